/** Directories as trees and in canonical form: P18 and P23. */
import { create, toBinary } from '@bufbuild/protobuf';
import type { Digest } from '../../../protos/digest.ts';
import {
  ContentAddressableStorage,
  type Directory,
  DirectorySchema,
} from '../../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { execute, failureOf, putAction, treeOf } from '../actions.ts';
import { type Context } from '../context.ts';
import {
  absentDigest,
  byBytes,
  digestOf,
  mustBeOk,
  mustRefuse,
  put,
  putMessage,
  putTree,
  requestBase,
  type TreeSpec,
  wire,
} from '../fixtures.ts';
import { type Rule, part } from '../rule.ts';

const cas = ContentAddressableStorage.method;

export const treeRules: readonly Rule[] = [
  {
    id: 'P18',
    title: 'GetTree',
    says: 'Pages of the directories below a root; a missing subtree is left out, a missing root is NOT_FOUND.',
    source: 'REAPI, GetTree',
    parts: [
      part('whole and in pages', async (context, check) => {
        const spec: TreeSpec = Object.fromEntries(
          Array.from({ length: 25 }, (_, index) => [
            `d${index}`,
            { dir: { [`f${index}`]: `${context.fresh(4).toString('hex')}` } },
          ]),
        );
        const root = await putTree(context, spec);
        const whole = await tree(context, root, 0);
        if (!mustBeOk(check, 'whole', whole)) return;
        const hashes = hashesOf(context, whole.directories);
        check.must(hashes.has(root.hash), 'the root is not among them');
        check.must(hashes.size === 26, `${hashes.size} of 26 directories`);
        if (hashesOf(context, whole.directories.slice(0, 1)).has(root.hash) === false)
          check.choice('the root does not come first');
        const paged = new Map<string, number>();
        let pageToken = '';
        let pages = 0;
        do {
          const reply = await context.client.collect(cas.getTree, {
            ...requestBase(context),
            rootDigest: wire(root),
            pageSize: 10,
            pageToken,
          });
          if (!mustBeOk(check, `page ${pages + 1}`, reply)) return;
          for (const message of reply.messages) {
            check.must(message.directories.length <= 10, `${message.directories.length} directories in a page of 10`);
            for (const hash of hashesOf(context, message.directories)) paged.set(hash, (paged.get(hash) ?? 0) + 1);
          }
          const next = reply.messages.at(-1)?.nextPageToken ?? '';
          check.must(next === '' || next !== pageToken, 'the token does not move');
          pageToken = next;
          pages += 1;
        } while (pageToken !== '' && pages < 30);
        check.must(paged.size === 26, `${paged.size} of 26 directories over ${pages} calls`);
        check.saw(`${pages} calls of at most 10 directories`);
      }),
      part('a token starts where the page ended', async (context, check) => {
        const spec = Object.fromEntries(
          Array.from({ length: 12 }, (_, index) => [`d${index}`, { dir: { f: context.fresh(4).toString('hex') } }]),
        );
        const root = await putTree(context, spec);
        const first = await context.client.collect(cas.getTree, {
          ...requestBase(context),
          rootDigest: wire(root),
          pageSize: 5,
        });
        const [page] = first.messages;
        if (!page || page.nextPageToken === '') {
          return check.choice(
            first.messages.length > 1 ? 'all pages in one stream' : 'page_size is not kept, one page for all',
          );
        }
        const before = hashesOf(context, page.directories);
        const rest = await context.client.collect(cas.getTree, {
          ...requestBase(context),
          rootDigest: wire(root),
          pageSize: 100,
          pageToken: page.nextPageToken,
        });
        if (!mustBeOk(check, 'with the token', rest)) return;
        const after = hashesOf(
          context,
          rest.messages.flatMap((message) => message.directories),
        );
        check.must(
          new Set([...before, ...after]).size === 13,
          `${before.size} + ${after.size} directories do not make 13`,
        );
        check.must(
          [...before].every((hash) => !after.has(hash)),
          'directories of the first page come again',
        );
      }),
      part('a token that is none', async (context, check) => {
        const root = await putTree(context, { d: { dir: {} } });
        const reply = await context.client.collect(cas.getTree, {
          ...requestBase(context),
          rootDigest: wire(root),
          pageToken: 'not a token of yours',
        });
        mustRefuse(check, 'a made-up token', reply, 'INVALID_ARGUMENT', 'OK');
      }),
      part('a missing subtree', async (context, check) => {
        const lost = absentDigest(context);
        const kept = await putTree(context, { file: 'x' });
        const root = await putMessage(context, DirectorySchema, {
          directories: [
            { name: 'a', digest: wire(lost) },
            { name: 'b', digest: wire(kept) },
          ],
        });
        const reply = await tree(context, root, 0);
        if (!mustBeOk(check, 'a root with a missing subtree', reply)) return;
        const hashes = hashesOf(context, reply.directories);
        check.must(hashes.has(root.hash) && hashes.has(kept.hash), `only ${hashes.size} of 2 directories`);
      }),
      part('a missing root', async (context, check) => {
        mustRefuse(check, 'GetTree', await tree(context, absentDigest(context), 0), 'NOT_FOUND');
      }),
      part('a root that is no Directory', async (context, check) => {
        const root = await put(context, Buffer.concat([Buffer.from([0xff, 0xff, 0xff]), context.fresh()]));
        mustRefuse(
          check,
          'GetTree',
          await tree(context, root, 0),
          'INVALID_ARGUMENT',
          'FAILED_PRECONDITION',
          'NOT_FOUND',
        );
      }),
      part('a shared and a deep tree', async (context, check) => {
        let root = await putTree(context, { leaf: context.fresh(8).toString('hex') });
        for (let depth = 0; depth < 40; depth++) {
          const digest = wire(root);
          root = await putMessage(context, DirectorySchema, {
            directories: [
              { name: 'a', digest },
              { name: 'b', digest },
            ],
          });
        }
        // Two to the fortieth paths lead to forty-one directories.
        const reply = await tree(context, root, 0);
        if (reply.code === 'OK') {
          check.must(
            hashesOf(context, reply.directories).size === 41,
            `${hashesOf(context, reply.directories).size} of 41 directories`,
          );
          check.must(reply.directories.length < 10_000, `${reply.directories.length} directories were sent`);
        } else mustRefuse(check, 'a tree of 2^40 paths', reply, 'RESOURCE_EXHAUSTED', 'INVALID_ARGUMENT');
      }),
    ],
  },
  {
    id: 'P23',
    title: 'Directories in canonical form',
    says: 'Entries are sorted by the bytes of their names, names are unique single segments.',
    source: 'REAPI, message Directory',
    parts: [
      part('inputs sorted by bytes', ['execution'], async (context, check) => {
        // Ordered by UTF-16 units these two names change places.
        const done = await execute(
          context,
          await putAction(context, { script: 'cat *', inputs: { '\uff61': 'a', '\u{1f600}': 'b' } }),
        );
        if (mustBeOk(check, 'names beyond the basic plane', failureOf(done))) {
          check.must(done.result?.exitCode === 0, done.summary);
        }
      }),
      part('outputs sorted by bytes', ['execution'], async (context, check) => {
        const names = ['\uff61', '\u{1f600}', 'a', 'B', 'a-b', 'a.b'];
        const script = `mkdir out && cd out && touch ${names.map((name) => `'${name}'`).join(' ')}`;
        const done = await execute(context, await putAction(context, { script, outputPaths: ['out'] }));
        const listed = (await treeOf(context, done, 'out'))?.tree.root?.files.map((file) => file.name);
        const expected = names.toSorted(byBytes);
        check.must(
          JSON.stringify(listed) === JSON.stringify(expected),
          `${listed?.join(' ')} instead of ${expected.join(' ')}`,
        );
      }),
      part('not sorted', ['execution'], async (context, check) => {
        const file = wire(await put(context, Buffer.from('x')));
        const code = await runRoot(context, {
          files: [
            { name: 'b', digest: file },
            { name: 'a', digest: file },
          ],
        });
        if (code === 'OK') check.choice('unsorted entries are tolerated');
        else check.must(code === 'INVALID_ARGUMENT' || code === 'FAILED_PRECONDITION', `unsorted entries: ${code}`);
      }),
      part('names that cannot be', ['execution'], async (context, check) => {
        const file = wire(await put(context, Buffer.from('x')));
        const empty = wire(digestOf(context.fn, Buffer.alloc(0)));
        const bad: [string, Parameters<typeof runRoot>[1]][] = [
          [
            'a name twice',
            {
              files: [
                { name: 'a', digest: file },
                { name: 'a', digest: file },
              ],
            },
          ],
          [
            'a file and a directory of one name',
            { files: [{ name: 'a', digest: file }], directories: [{ name: 'a', digest: empty }] },
          ],
          [
            'a file and a link of one name',
            { files: [{ name: 'a', digest: file }], symlinks: [{ name: 'a', target: 'b' }] },
          ],
          ['..', { files: [{ name: '..', digest: file }] }],
          ['.', { directories: [{ name: '.', digest: empty }] }],
          ['a path', { files: [{ name: 'a/b', digest: file }] }],
          ['an empty name', { files: [{ name: '', digest: file }] }],
          ['a path that leads out', { files: [{ name: '../../escaped', digest: file }] }],
          ['a zero byte', { files: [{ name: 'a\0b', digest: file }] }],
        ];
        for (const [what, root] of bad) {
          const code = await runRoot(context, root);
          check.must(code === 'INVALID_ARGUMENT' || code === 'FAILED_PRECONDITION', `${what}: ${code}`);
        }
      }),
    ],
  },
];

async function tree(context: Context, root: Digest, pageSize: number) {
  const reply = await context.client.collect(cas.getTree, {
    ...requestBase(context),
    rootDigest: wire(root),
    pageSize,
  });
  return { ...reply, directories: reply.messages.flatMap((message) => message.directories) };
}

function hashesOf(context: Context, directories: readonly Directory[]): Set<string> {
  return new Set(directories.map((directory) => digestOf(context.fn, toBinary(DirectorySchema, directory)).hash));
}

async function runRoot(context: Context, root: Parameters<typeof create<typeof DirectorySchema>>[1]): Promise<string> {
  const inputRoot = await putMessage(context, DirectorySchema, root ?? {});
  return failureOf(await execute(context, await putAction(context, { inputRoot }))).code;
}
