/** What is taken from a finished command: P44 to P52. */
import { fromBinary, toBinary } from '@bufbuild/protobuf';
import { BinaryReader, WireType } from '@bufbuild/protobuf/wire';
import {
  Command_OutputDirectoryFormat,
  type Directory,
  DirectorySchema,
  type OutputSymlink,
  SymlinkAbsolutePathStrategy_Value,
} from '../../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { execute, failureOf, outputOf, putAction, stdoutOf, treeOf } from '../actions.ts';
import { digestOf, fetchBlob, mustBeOk, mustRefuse, put, putMessage, sameDigest, wire } from '../fixtures.ts';
import { NotApplicable, type Rule, part } from '../rule.ts';

export const outputRules: readonly Rule[] = [
  {
    id: 'P44',
    title: 'Parents of outputs exist',
    says: 'The directories that outputs lie in are made before the command runs, the outputs themselves are not.',
    source: 'REAPI, message Command, output_paths, output_files, output_directories',
    parts: [
      part('output_paths', ['execution'], async (context, check) => {
        const script = 'touch out/a/b && mkdir out/d && touch out/d/f && test -d deep/er';
        const done = await execute(
          context,
          await putAction(context, { script, outputPaths: ['deep/er/x', 'out/a/b', 'out/d'] }),
        );
        check.must(done.result?.exitCode === 0, done.summary);
        check.must(done.result?.outputFiles[0]?.path === 'out/a/b', 'the file is not among the outputs');
        check.must(done.result?.outputDirectories[0]?.path === 'out/d', 'the directory is not among the outputs');
      }),
      part('output_files', ['execution'], async (context, check) => {
        const done = await execute(
          context,
          await putAction(context, { script: 'touch out/a/b', outputFiles: ['out/a/b'] }),
        );
        check.must(done.result?.exitCode === 0, done.summary);
      }),
      part('output_directories', ['execution'], async (context, check) => {
        const script = 'test -d out && if test -e out/d; then echo made; else mkdir out/d; fi';
        const done = await execute(context, await putAction(context, { script, outputDirectories: ['out/d'] }));
        check.must(done.result?.exitCode === 0, done.summary);
        if ((await stdoutOf(context, done)) === 'made\n') check.choice('output_directories are made before the run');
      }),
      part('in a working directory', ['execution'], async (context, check) => {
        const action = await putAction(context, {
          script: 'echo x > out/f && echo y > ../beside',
          inputs: { w: { dir: { keep: '' } } },
          workingDirectory: 'w',
          outputPaths: ['out/f'],
        });
        const done = await execute(context, action);
        check.must((await outputOf(context, done, 'out/f')) === 'x\n', done.summary);
      }),
    ],
  },
  {
    id: 'P45',
    title: 'output_paths come first',
    says: 'Where output_paths is set the two older fields count for nothing; where it is not they are served.',
    source: 'REAPI, message Command, output_paths',
    parts: [
      part('both', ['execution'], async (context, check) => {
        const action = await putAction(context, {
          script: 'echo a > a; echo b > b; mkdir c',
          outputPaths: ['a'],
          outputFiles: ['b'],
          outputDirectories: ['c'],
        });
        const { result, summary } = await execute(context, action);
        check.must(
          result?.outputFiles.map((file) => file.path).join() === 'a',
          `files ${result?.outputFiles.map((file) => file.path).join()}, ${summary}`,
        );
        check.must(result?.outputDirectories.length === 0, 'output_directories was served too');
      }),
      part('the older fields alone', ['execution'], async (context, check) => {
        const action = await putAction(context, {
          script: 'echo b > b; mkdir c; echo d > c/d',
          outputFiles: ['b'],
          outputDirectories: ['c'],
        });
        const done = await execute(context, action);
        check.must((await outputOf(context, done, 'b')) === 'b\n', `the file: ${done.summary}`);
        const tree = await treeOf(context, done, 'c');
        check.must(tree?.tree.root?.files[0]?.name === 'd', 'the directory');
      }),
    ],
  },
  {
    id: 'P46',
    title: 'Outputs that are not there',
    says: 'A missing output is left out without an error; one of the wrong kind under an older field is FAILED_PRECONDITION.',
    source: 'REAPI, message ActionResult, output_files and output_directories',
    parts: [
      part('missing', ['execution'], async (context, check) => {
        for (const spec of [
          { outputPaths: ['a', 'gone'] },
          { outputFiles: ['a', 'gone'], outputDirectories: ['lost'] },
        ]) {
          const done = await execute(context, await putAction(context, { script: 'echo a > a', ...spec }));
          if (!mustBeOk(check, JSON.stringify(spec), failureOf(done))) continue;
          check.must(done.result?.outputFiles.length === 1, `${done.result?.outputFiles.length} files`);
          check.must(done.result?.outputDirectories.length === 0, 'a directory that is not there');
        }
      }),
      part('of the wrong kind', ['execution'], async (context, check) => {
        for (const [what, spec] of [
          ['a directory in output_files', { script: 'mkdir a', outputFiles: ['a'] }],
          ['a file in output_directories', { script: 'echo x > a', outputDirectories: ['a'] }],
        ] as const) {
          const failure = failureOf(await execute(context, await putAction(context, spec)));
          mustRefuse(check, what, failure, 'FAILED_PRECONDITION', 'INVALID_ARGUMENT');
        }
      }),
      part('of any kind under output_paths', ['execution'], async (context, check) => {
        const script = 'mkdir d; echo x > f; ln -s f l';
        const { result, summary } = await execute(
          context,
          await putAction(context, { script, outputPaths: ['d', 'f', 'l'] }),
        );
        const counts = [result?.outputDirectories.length, result?.outputFiles.length, result?.outputSymlinks.length];
        check.must(counts.join() === '1,1,1', `${counts.join()} directories, files, links: ${summary}`);
      }),
      part('everything below the root', ['execution'], async (context, check) => {
        const action = await putAction(context, { script: 'echo x > f', inputs: { in: 'i' }, outputPaths: [''] });
        const done = await execute(context, action);
        const names = (await treeOf(context, done, ''))?.tree.root?.files.map((file) => file.name).join();
        if (failureOf(done).code !== 'OK') mustRefuse(check, 'the path ""', failureOf(done), 'INVALID_ARGUMENT');
        else check.must(names === 'f,in', `the whole working directory has ${names}`);
      }),
    ],
  },
  {
    id: 'P47',
    title: 'Symbolic links among outputs',
    says: 'A link is one entry with its raw target and is not followed: in output_symlinks for output_paths, by kind for the older fields.',
    source: 'REAPI, message ActionResult, output_symlinks',
    parts: [
      part('output_paths', ['execution'], async (context, check) => {
        const action = await putAction(context, {
          script: 'echo x > f; mkdir d; ln -s f to-file; ln -s d to-dir; ln -s nowhere dangling; ln -s ./../x/./y odd',
          outputPaths: ['dangling', 'odd', 'to-dir', 'to-file'],
        });
        const { result, summary } = await execute(context, action);
        check.must(
          links(result?.outputSymlinks) === 'dangling>nowhere odd>./../x/./y to-dir>d to-file>f',
          `${links(result?.outputSymlinks)}; ${summary}`,
        );
        check.must(result?.outputFiles.length === 0 && result.outputDirectories.length === 0, 'a link was followed');
        const old = [...(result?.outputFileSymlinks ?? []), ...(result?.outputDirectorySymlinks ?? [])];
        if (old.length > 0) check.choice('the older lists are filled too');
      }),
      part('the older fields', ['execution'], async (context, check) => {
        const action = await putAction(context, {
          script: 'echo x > f; mkdir d; ln -s f to-file; ln -s d to-dir; ln -s nowhere dangling',
          outputFiles: ['dangling', 'to-file'],
          outputDirectories: ['to-dir'],
        });
        const { result, summary } = await execute(context, action);
        check.must(
          links(result?.outputFileSymlinks) === 'dangling>nowhere to-file>f',
          `file links ${links(result?.outputFileSymlinks)}; ${summary}`,
        );
        check.must(
          links(result?.outputDirectorySymlinks) === 'to-dir>d',
          `directory links ${links(result?.outputDirectorySymlinks)}`,
        );
        check.must(result?.outputFiles.length === 0 && result.outputDirectories.length === 0, 'a link was followed');
        if ((result?.outputSymlinks.length ?? 0) > 0) check.choice('output_symlinks is filled too');
      }),
      part('inside a directory', ['execution'], async (context, check) => {
        const script = 'mkdir d; echo x > d/f; ln -s f d/file; ln -s .. d/up; ln -s gone d/dangling';
        const done = await execute(context, await putAction(context, { script, outputPaths: ['d'] }));
        const root = (await treeOf(context, done, 'd'))?.tree.root;
        const found = root?.symlinks.map((link) => `${link.name}>${link.target}`).join(' ');
        check.must(found === 'dangling>gone file>f up>..', `links ${found}; ${done.summary}`);
        check.must(root?.files.length === 1, `${root?.files.length} files instead of 1`);
      }),
      part('among inputs', ['execution'], async (context, check) => {
        const inputs = {
          d: { dir: { f: 'content' } },
          link: { link: 'd/f' },
          dirlink: { link: 'd' },
          dangling: { link: 'gone' },
        };
        const done = await execute(
          context,
          await putAction(context, { script: 'cat link dirlink/f; readlink dangling link', inputs }),
        );
        check.must(
          (await stdoutOf(context, done)) === 'contentcontentgone\nd/f\n',
          `${await stdoutOf(context, done)}; ${done.summary}`,
        );
      }),
    ],
  },
  {
    id: 'P48',
    title: 'Absolute links',
    says: 'Where the server disallows them an input link is INVALID_ARGUMENT and an output link FAILED_PRECONDITION; where it allows them they stay as they are.',
    source: 'REAPI, SymlinkAbsolutePathStrategy',
    parts: [
      part('as advertised', ['execution'], async (context, check) => {
        const strategy = context.capabilities.cacheCapabilities?.symlinkAbsolutePathStrategy;
        const outside = await putAction(context, { script: 'ln -s /etc/passwd l', outputPaths: ['l'] });
        const nested = await putAction(context, { script: 'mkdir d; ln -s /etc/passwd d/l', outputPaths: ['d'] });
        const input = await putAction(context, { script: 'readlink l', inputs: { l: { link: '/etc/passwd' } } });
        if (strategy === SymlinkAbsolutePathStrategy_Value.ALLOWED) {
          check.choice('allowed');
          const done = await execute(context, outside);
          const { result } = done;
          check.must(links(result?.outputSymlinks) === 'l>/etc/passwd', `output: ${done.summary}`);
          const tree = await treeOf(context, await execute(context, nested), 'd');
          check.must(tree?.tree.root?.symlinks[0]?.target === '/etc/passwd', 'inside a directory: the link is lost');
          const read = await stdoutOf(context, await execute(context, input));
          check.must(read === '/etc/passwd\n', `input: ${JSON.stringify(read)}`);
        } else {
          check.choice('disallowed');
          mustRefuse(check, 'output', failureOf(await execute(context, outside)), 'FAILED_PRECONDITION');
          mustRefuse(
            check,
            'output inside a directory',
            failureOf(await execute(context, nested)),
            'FAILED_PRECONDITION',
          );
          mustRefuse(
            check,
            'input',
            failureOf(await execute(context, input)),
            'INVALID_ARGUMENT',
            'FAILED_PRECONDITION',
          );
        }
      }),
    ],
  },
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

function links(symlinks: readonly OutputSymlink[] | undefined): string {
  return (symlinks ?? [])
    .map((link) => `${link.path}>${link.target}`)
    .toSorted()
    .join(' ');
}

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
