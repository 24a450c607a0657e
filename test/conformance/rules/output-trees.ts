/** Trees, modes, special files and properties of outputs: P49 to P52. */
import { fromBinary, toBinary } from '@bufbuild/protobuf';
import { BinaryReader, WireType } from '@bufbuild/protobuf/wire';
import {
  Command_OutputDirectoryFormat,
  type Directory,
  DirectorySchema,
} from '../../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { execute, failureOf, outputOf, putAction, stdoutOf, treeOf } from '../actions.ts';
import { digestOf, fetchBlob, mustRefuse, put, putMessage, sameDigest, wire } from '../fixtures.ts';
import { NotApplicable, type Rule, part } from '../rule.ts';

export const outputTreeRules: readonly Rule[] = [
  {
    id: 'P49',
    title: 'Trees',
    says: 'The root and each different directory below it once, none that is not referred to; parents before children where sorted is claimed.',
    source: 'REAPI, messages Tree and OutputDirectory',
    parts: [
      part('each directory once', ['execution'], async (context, check) => {
        const script = 'mkdir -p o/a/x o/b/x o/c/y; for d in o/a/x o/b/x; do echo same > $d/f; done; echo z > o/c/y/z';
        const done = await execute(context, await putAction(context, { script, outputPaths: ['o'] }));
        const found = await treeOf(context, done, 'o');
        if (!found?.tree.root) return check.must(false, `no Tree: ${done.summary}`);
        const { root, children } = found.tree;
        const byHash = new Map(children.map((child) => [hashOf(context.fn, child), child]));
        // a and b are the same directory, so are the x below them.
        check.must(
          children.length === 4 && byHash.size === 4,
          `${children.length} children, ${byHash.size} different, not 4`,
        );
        const reached = new Set<string>();
        const walk = (directory: Directory): void => {
          for (const { digest } of directory.directories) {
            const child = byHash.get(digest?.hash ?? '');
            if (!child) check.must(false, 'a directory that is not among the children');
            else if (!reached.has(digest?.hash ?? '')) {
              reached.add(digest?.hash ?? '');
              walk(child);
            }
          }
        };
        walk(root);
        check.must(reached.size === byHash.size, 'a child that nothing refers to');
        for (const child of [root, ...children]) {
          for (const file of child.files) {
            const digest = { fn: context.fn, hash: file.digest?.hash ?? '', sizeBytes: Number(file.digest?.sizeBytes) };
            check.must((await fetchBlob(context, digest)) !== undefined, `the content of ${file.name} is not stored`);
          }
        }
      }),
      part('topologically sorted', ['execution'], async (context, check) => {
        const script = 'mkdir -p o/a/b/c/d o/z/c/d; echo 1 > o/a/b/c/d/f; echo 1 > o/z/c/d/f; echo 2 > o/z/g';
        const done = await execute(context, await putAction(context, { script, outputPaths: ['o'] }));
        const found = await treeOf(context, done, 'o');
        if (!found) return check.must(false, `no Tree: ${done.summary}`);
        if (!done.result?.outputDirectories[0]?.isTopologicallySorted) return check.choice('not claimed');
        check.choice('claimed');
        const records = recordsOf(found.bytes);
        check.must(records[0]?.field === 1, 'the first record is not the root');
        check.must(
          records.slice(1).every((record) => record.field === 2),
          'a record that is no child',
        );
        const known = new Set<string>();
        for (const [index, record] of records.entries()) {
          if (index > 0) check.must(known.has(digestOf(context.fn, record.bytes).hash), 'a child before its parent');
          const directory = fromBinary(DirectorySchema, record.bytes);
          for (const { digest } of directory.directories) known.add(digest?.hash ?? '');
        }
      }),
      part('root_directory_digest', ['execution'], async (context, check) => {
        const script = 'mkdir -p o/a; echo 1 > o/a/f';
        for (const [what, format] of [
          ['TREE_ONLY', Command_OutputDirectoryFormat.TREE_ONLY],
          ['DIRECTORY_ONLY', Command_OutputDirectoryFormat.DIRECTORY_ONLY],
          ['TREE_AND_DIRECTORY', Command_OutputDirectoryFormat.TREE_AND_DIRECTORY],
          ['an unknown format', 55 as Command_OutputDirectoryFormat],
        ] as const) {
          const done = await execute(context, await putAction(context, { script, outputPaths: ['o'], format }));
          const output = done.result?.outputDirectories[0];
          const found = await treeOf(context, done, 'o');
          if (format !== Command_OutputDirectoryFormat.DIRECTORY_ONLY) {
            if (!found?.tree.root) {
              check.must(false, `${what}: no Tree, ${done.summary}`);
              continue;
            }
          }
          const root = output?.rootDirectoryDigest;
          if (!root) {
            check.must(found !== undefined, `${what}: neither a Tree nor a root directory`);
            if (format === 1 || format === 2) check.choice(`${what}: a Tree only`);
            continue;
          }
          const digest = { fn: context.fn, hash: root.hash, sizeBytes: Number(root.sizeBytes) };
          const directory = await fetchBlob(context, digest);
          check.must(directory !== undefined, `${what}: the root directory is not stored`);
          if (!directory) continue;
          if (found?.tree.root) {
            check.must(
              sameDigest(root, digestOf(context.fn, toBinary(DirectorySchema, found.tree.root))),
              `${what}: the root directory is not that of the Tree`,
            );
          }
          const child = fromBinary(DirectorySchema, directory).directories[0]?.digest;
          const childDigest = { fn: context.fn, hash: child?.hash ?? '', sizeBytes: Number(child?.sizeBytes ?? 0) };
          check.must(
            (await fetchBlob(context, childDigest)) !== undefined,
            `${what}: a directory below the root is not stored`,
          );
        }
      }),
      part('an empty directory', ['execution'], async (context, check) => {
        const done = await execute(
          context,
          await putAction(context, { script: 'mkdir -p o/empty', outputPaths: ['o'] }),
        );
        const tree = (await treeOf(context, done, 'o'))?.tree;
        check.must(
          tree?.root?.directories[0]?.name === 'empty' && tree.children.length === 1,
          `the empty directory is lost: ${done.summary}`,
        );
      }),
      part('the whole working directory', ['execution'], async (context, check) => {
        const action = await putAction(context, {
          script: 'echo o > out',
          inputs: { in: 'i', d: { dir: { deep: 'x' } } },
          outputDirectories: [''],
        });
        const done = await execute(context, action);
        const root = (await treeOf(context, done, ''))?.tree.root;
        const names = [...(root?.files ?? []), ...(root?.directories ?? [])].map((node) => node.name).join();
        check.must(names === 'in,out,d', `output_directories "" has ${names || 'nothing'}: ${done.summary}`);
      }),
    ],
  },
  {
    id: 'P50',
    title: 'Modes',
    says: 'Whether the owner may execute a file is the one mode that is kept; an action cannot change a stored blob.',
    source: 'REAPI, messages FileNode and OutputFile, is_executable',
    parts: [
      part('of inputs', ['execution'], async (context, check) => {
        const inputs = { run: { file: '#!/bin/sh\necho ran\n', executable: true }, data: 'x' };
        const done = await execute(
          context,
          await putAction(context, { script: './run; test -x data && echo bad; true', inputs }),
        );
        check.must(
          (await stdoutOf(context, done)) === 'ran\n',
          `${JSON.stringify(await stdoutOf(context, done))}; ${done.summary}`,
        );
      }),
      part('of outputs', ['execution'], async (context, check) => {
        const script = 'for m in 755 644 700 600 711 444 655; do echo $m > f$m; chmod $m f$m; done';
        const names = ['f444', 'f600', 'f644', 'f655', 'f700', 'f711', 'f755'];
        const { result, summary } = await execute(context, await putAction(context, { script, outputPaths: names }));
        const executable = result?.outputFiles
          .filter((file) => file.isExecutable)
          .map((file) => file.path)
          .toSorted()
          .join();
        check.must(executable === 'f700,f711,f755', `executable: ${executable}; ${summary}`);
        check.must(
          result?.outputFiles.every((file) => file.nodeProperties?.unixMode === undefined) ?? false,
          'unix_mode is set unasked',
        );
      }),
      part('inside a Tree', ['execution'], async (context, check) => {
        const script = 'mkdir d; echo x > d/run; chmod 755 d/run; echo y > d/data';
        const done = await execute(context, await putAction(context, { script, outputPaths: ['d'] }));
        const files = (await treeOf(context, done, 'd'))?.tree.root?.files ?? [];
        check.must(
          files.map((file) => `${file.name}:${file.isExecutable}`).join() === 'data:false,run:true',
          files.map((file) => `${file.name}:${file.isExecutable}`).join(),
        );
      }),
      part('outputs that nobody may read', ['execution'], async (context, check) => {
        const script = 'echo secret > f; chmod 0 f; mkdir -p d/e; echo x > d/e/g; chmod 0 d/e/g d/e d';
        const done = await execute(context, await putAction(context, { script, outputPaths: ['d', 'f'] }));
        check.must((await outputOf(context, done, 'f')) === 'secret\n', `a file of mode 0: ${done.summary}`);
        const tree = (await treeOf(context, done, 'd'))?.tree;
        check.must(
          tree?.children.some((child) => child.files[0]?.name === 'g') ?? false,
          'a directory of mode 0 was not collected',
        );
      }),
      part('stored blobs stay as they are', ['execution'], async (context, check) => {
        const content = context.fresh(2000);
        const digest = await put(context, content);
        const inputRoot = await putMessage(context, DirectorySchema, {
          files: [
            { name: 'data', digest: wire(digest) },
            { name: 'tool', digest: wire(digest), isExecutable: true },
          ],
        });
        const script =
          'for f in data tool; do chmod u+w $f 2>/dev/null; echo changed > $f; truncate -s 1 $f; rm -f $f; done; true';
        await execute(context, await putAction(context, { inputRoot, script }));
        check.must((await fetchBlob(context, digest))?.equals(content) ?? false, 'an action changed a stored blob');
        const after = await execute(
          context,
          await putAction(context, { inputRoot, script: 'cmp data tool && cat data', outputPaths: ['data'] }),
        );
        check.must(
          sameDigest(after.result?.outputFiles[0]?.digest, digest),
          `another action sees other bytes: ${after.summary}`,
        );
      }),
      part('umask', ['execution'], async (context, check) => {
        const done = await execute(context, await putAction(context, { script: 'umask' }));
        check.saw(`umask ${(await stdoutOf(context, done)).trim()}`);
      }),
    ],
  },
  {
    id: 'P51',
    title: 'Special files',
    says: 'Not said: leaving them out and FAILED_PRECONDITION are both in use, but the server must not hang on them.',
    source: 'REAPI, message ActionResult',
    parts: [
      part('a FIFO', ['execution'], async (context, check) => {
        for (const [what, spec] of [
          ['as an output', { script: 'mkfifo p', outputPaths: ['p'] }],
          ['inside a directory', { script: 'mkdir d; mkfifo d/p; echo x > d/f', outputPaths: ['d'] }],
        ] as const) {
          const done = await execute(context, await putAction(context, spec), {}, { deadlineMs: 20_000 });
          const failure = failureOf(done);
          if (failure.code === 'OK') check.choice(`${what}: left out`);
          else mustRefuse(check, what, failure, 'FAILED_PRECONDITION', 'INVALID_ARGUMENT');
          if (failure.code === 'FAILED_PRECONDITION') check.choice(`${what}: FAILED_PRECONDITION`);
        }
      }),
      part('names that are not UTF-8', ['execution'], async (context, check) => {
        const script = 'mkdir d; touch "d/$(printf "bad\\377name")"';
        const done = await execute(context, await putAction(context, { script, outputPaths: ['d'] }));
        const failure = failureOf(done);
        if (failure.code !== 'OK')
          return mustRefuse(check, 'such a name', failure, 'FAILED_PRECONDITION', 'INVALID_ARGUMENT');
        const files = (await treeOf(context, done, 'd'))?.tree.root?.files ?? [];
        check.must(files.length === 0, `collected under the name ${JSON.stringify(files[0]?.name)}`);
        check.choice('left out');
      }),
    ],
  },
  {
    id: 'P52',
    title: 'Node properties',
    says: 'Only what was asked for is set; a property the server does not know is INVALID_ARGUMENT.',
    source: 'REAPI, message Command, output_node_properties',
    parts: [
      part('not asked', ['execution'], async (context, check) => {
        const script = 'echo x > f; mkdir d; echo y > d/g; ln -s f l';
        const done = await execute(context, await putAction(context, { script, outputPaths: ['d', 'f', 'l'] }));
        const tree = (await treeOf(context, done, 'd'))?.tree;
        const nodes = [
          ...(done.result?.outputFiles ?? []),
          ...(done.result?.outputSymlinks ?? []),
          ...(tree?.root?.files ?? []),
          ...(tree?.root ? [tree.root] : []),
        ];
        check.must(nodes.length >= 4, done.summary);
        check.must(
          nodes.every((node) => node.nodeProperties === undefined),
          'properties are set unasked',
        );
      }),
      part('asked', ['execution'], async (context, check) => {
        const supported = context.capabilities.executionCapabilities?.supportedNodeProperties ?? [];
        if (supported.length === 0) throw new NotApplicable('no supported_node_properties');
        const script =
          'echo x > f; chmod 750 f; touch -d @1234567890 f; mkdir d; echo y > d/g; chmod 640 d/g; touch -d @1234567890 d/g';
        const done = await execute(
          context,
          await putAction(context, { script, outputPaths: ['d', 'f'], nodeProperties: [...supported].toSorted() }),
        );
        const file = done.result?.outputFiles[0]?.nodeProperties;
        const inner = (await treeOf(context, done, 'd'))?.tree.root?.files[0]?.nodeProperties;
        if (supported.includes('mtime')) {
          check.must(file?.mtime?.seconds === 1_234_567_890n, `mtime ${file?.mtime?.seconds}; ${done.summary}`);
          check.must(inner?.mtime?.seconds === 1_234_567_890n, `mtime inside a Tree ${inner?.mtime?.seconds}`);
        }
        if (supported.includes('unix_mode')) {
          check.must(((file?.unixMode ?? 0) & 0o777) === 0o750, `unix_mode ${file?.unixMode?.toString(8)}`);
          check.must(
            ((inner?.unixMode ?? 0) & 0o777) === 0o640,
            `unix_mode inside a Tree ${inner?.unixMode?.toString(8)}`,
          );
        }
      }),
      part('unknown', ['execution'], async (context, check) => {
        const action = await putAction(context, {
          script: 'echo x > f',
          outputPaths: ['f'],
          nodeProperties: ['no-such-property'],
        });
        mustRefuse(check, 'no-such-property', failureOf(await execute(context, action)), 'INVALID_ARGUMENT');
      }),
    ],
  },
];

function hashOf(fn: Parameters<typeof digestOf>[0], directory: Directory): string {
  return digestOf(fn, toBinary(DirectorySchema, directory)).hash;
}

/** The length-delimited records of an encoded Tree, in the order of the bytes. */
function recordsOf(bytes: Uint8Array): { readonly field: number; readonly bytes: Uint8Array }[] {
  const reader = new BinaryReader(bytes);
  const records: { field: number; bytes: Uint8Array }[] = [];
  while (reader.pos < reader.len) {
    const [field, type] = reader.tag();
    if (type !== WireType.LengthDelimited) return [];
    records.push({ field, bytes: reader.bytes() });
  }
  return records;
}
