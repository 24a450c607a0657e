import { rm } from 'node:fs/promises';
import { create, type MessageInitShape, toBinary } from '@bufbuild/protobuf';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { type Digest, emptyDigest, toWireDigest } from '../../../../protos/digest.ts';
import {
  type ActionResult,
  ActionResultSchema,
  type Directory,
  DirectorySchema,
  type OutputDirectorySchema,
  TreeSchema,
} from '../../../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { type Blob, blobOf, randomBlob } from '../../../contract/blobs.ts';
import { type TempStore, tempStore } from './temp-store.ts';

let subject: TempStore;
beforeEach(async () => {
  subject = await tempStore({ sizeLimitBytes: 64 * 1024 ** 2 });
});
afterEach(() => subject[Symbol.asyncDispose]());

const action = blobOf('an action').digest;
const key = { instance: '', action };
const wire = toWireDigest;

async function held(...blobs: Blob[]): Promise<void> {
  expect(await subject.store.blobs.putMany(blobs)).toEqual(blobs.map(() => undefined));
}

/** Names so long that a Directory is a large blob, which has a file of its own that can be removed. */
const longName = (start: string): string => start.padEnd(9_000, 'x');
const directory = (files: Blob[], children: Blob[] = []): Directory =>
  create(DirectorySchema, {
    files: files.map(({ digest }, at) => ({ name: longName(`f${at}`), digest: wire(digest) })),
    directories: children.map(({ digest }, at) => ({ name: longName(`d${at}`), digest: wire(digest) })),
  });
const directoryBlob = (files: Blob[], children: Blob[] = []): Blob =>
  blobOf(toBinary(DirectorySchema, directory(files, children)));

test('a result comes back as it was put', async () => {
  const [output, log] = [randomBlob(10_000), randomBlob(50)];
  await held(output, log);
  const result = create(ActionResultSchema, {
    outputFiles: [{ path: 'out/a', digest: wire(output.digest), isExecutable: true }],
    stdoutDigest: wire(log.digest),
    exitCode: 3,
  });
  expect(await subject.store.actions.get(key)).toBeUndefined();
  await subject.store.actions.put(key, result);
  expect(await subject.store.actions.get(key)).toEqual(result);
  await subject.reopen();
  expect(await subject.store.actions.get(key)).toEqual(result);
  expect(subject.store.stats()).toMatchObject({ results: 1, counters: { resultHits: 1, resultMisses: 0 } });
});

test('a result with nothing in it is a hit all the same', async () => {
  await subject.store.actions.put(key, create(ActionResultSchema));
  expect(await subject.store.actions.get(key)).toEqual(create(ActionResultSchema));
});

test('a later result takes the place of an earlier one', async () => {
  for (const exitCode of [1, 2, 3]) await subject.store.actions.put(key, create(ActionResultSchema, { exitCode }));
  expect((await subject.store.actions.get(key))?.exitCode).toBe(3);
  expect(subject.store.stats().results).toBe(1);
});

test('instance name, function, hash and size of the action are all part of the key', async () => {
  await subject.store.actions.put({ instance: 'a/b', action }, create(ActionResultSchema, { exitCode: 7 }));
  const others = [
    { instance: 'a', action },
    { instance: 'a/b', action: { ...action, fn: 'blake3' as const } },
    { instance: 'a/b', action: { ...action, sizeBytes: action.sizeBytes + 1 } },
  ];
  for (const other of others) expect(await subject.store.actions.get(other)).toBeUndefined();
  expect((await subject.store.actions.get({ instance: 'a/b', action }))?.exitCode).toBe(7);
});

/** A result that names `blob` in one way, and the other blobs it needs for that. */
interface Way {
  readonly name: string;
  readonly others: Blob[];
  readonly parts: MessageInitShape<typeof ActionResultSchema>;
}

function waysToName(blob: Blob): Way[] {
  const leaf = directoryBlob([blob]);
  const middle = directoryBlob([], [leaf]);
  const tree = (root: Directory, ...children: Directory[]): Blob =>
    blobOf(toBinary(TreeSchema, create(TreeSchema, { root, children })));
  const flat = tree(directory([blob]));
  const deep = tree(directory([], [leaf]), directory([blob]));
  const inDirectory = (parts: MessageInitShape<typeof OutputDirectorySchema>) => ({
    outputDirectories: [{ path: 'd', ...parts }],
  });
  return [
    { name: 'output file', others: [], parts: { outputFiles: [{ path: 'a', digest: wire(blob.digest) }] } },
    { name: 'stdout', others: [], parts: { stdoutDigest: wire(blob.digest) } },
    { name: 'stderr', others: [], parts: { stderrDigest: wire(blob.digest) } },
    { name: 'Tree itself', others: [], parts: inDirectory({ treeDigest: wire(blob.digest) }) },
    { name: 'in a Tree', others: [flat], parts: inDirectory({ treeDigest: wire(flat.digest) }) },
    { name: 'in a child of a Tree', others: [deep], parts: inDirectory({ treeDigest: wire(deep.digest) }) },
    { name: 'in a root directory', others: [leaf], parts: inDirectory({ rootDirectoryDigest: wire(leaf.digest) }) },
    {
      name: 'deep below a root directory',
      others: [leaf, middle],
      parts: inDirectory({ rootDirectoryDigest: wire(middle.digest) }),
    },
  ];
}

describe('a result that lacks a blob', () => {
  // A Tree, so that the same bytes can also stand for a Tree itself.
  const inner = randomBlob(30);
  const blob = blobOf(toBinary(TreeSchema, create(TreeSchema, { root: directory([inner]) })));

  test.each(waysToName(blob))(
    'is refused, and is a miss when the blob goes later: $name',
    async ({ others, parts }) => {
      await held(inner, ...others);
      const result = create(ActionResultSchema, parts);
      const refused = subject.store.actions.put(key, result);
      await expect(refused).rejects.toMatchObject({ code: 'FAILED_PRECONDITION' });
      await expect(refused).rejects.toThrow(blob.digest.hash);
      expect(await subject.store.actions.get(key)).toBeUndefined();

      await held(blob);
      await subject.store.actions.put(key, result);
      expect(await subject.store.actions.get(key)).toEqual(result);
      await drop(blob.digest);
      expect(await subject.store.actions.get(key)).toBeUndefined();
      expect(subject.store.stats().counters.resultIncomplete).toBe(1);
      await held(blob);
      expect(await subject.store.actions.get(key)).toEqual(result);
    },
  );

  test.each(['leaf', 'middle'])('is a miss when a directory of a hierarchy is gone: %s', async (which) => {
    const blob = randomBlob(40);
    const leaf = directoryBlob([blob]);
    const middle = directoryBlob([], [leaf]);
    await held(blob, leaf, middle);
    const result = create(ActionResultSchema, {
      outputDirectories: [{ path: 'd', rootDirectoryDigest: wire(middle.digest) }],
    });
    await subject.store.actions.put(key, result);
    await drop((which === 'leaf' ? leaf : middle).digest);
    expect(await subject.store.actions.get(key)).toBeUndefined();
  });
});

/** Takes a large blob away behind the store's back; opening it tells the store. */
async function drop(digest: Digest): Promise<void> {
  await rm(subject.fileOf(digest));
  expect(await subject.store.blobs.open(digest)).toBeUndefined();
}

test('contents in the result itself need no blob', async () => {
  const [contents, stdout, stderr] = [blobOf('contents'), blobOf('out'), blobOf('err')];
  const result = create(ActionResultSchema, {
    outputFiles: [{ path: 'a', digest: wire(contents.digest), contents: contents.bytes }],
    stdoutRaw: stdout.bytes,
    stdoutDigest: wire(stdout.digest),
    stderrRaw: stderr.bytes,
  });
  await subject.store.actions.put(key, result);
  expect(await subject.store.actions.get(key)).toEqual(result);
});

test('contents that do not have their digest are refused', async () => {
  const result = create(ActionResultSchema, {
    outputFiles: [{ path: 'a', digest: wire(blobOf('right').digest), contents: Buffer.from('wrong') }],
  });
  await expect(subject.store.actions.put(key, result)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
});

test('the empty blob need not be there', async () => {
  const empty = wire(emptyDigest('sha256'));
  const result = create(ActionResultSchema, {
    outputFiles: [{ path: 'a', digest: empty }],
    stdoutDigest: empty,
    outputDirectories: [{ path: 'd', rootDirectoryDigest: empty, treeDigest: empty }],
  });
  await subject.store.actions.put(key, result);
  expect(await subject.store.actions.get(key)).toEqual(result);
});

test('malformed results are refused', async () => {
  const bad: MessageInitShape<typeof ActionResultSchema>[] = [
    { outputFiles: [{ path: 'a' }] },
    { stdoutDigest: { ...wire(action), hash: 'ABC' } },
    { outputDirectories: [{ path: 'd' }] },
  ];
  for (const parts of bad) {
    const put = subject.store.actions.put(key, create(ActionResultSchema, parts));
    await expect(put).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
  }
  const noTree = blobOf('\u0001 not a Tree');
  await held(noTree);
  const result = create(ActionResultSchema, { outputDirectories: [{ path: 'd', treeDigest: wire(noTree.digest) }] });
  await expect(subject.store.actions.put(key, result)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
});

test('a hit lengthens the life of the result and of all it names', async () => {
  const [output, inTree] = [randomBlob(400_000), randomBlob(400_000)];
  const tree = blobOf(toBinary(TreeSchema, create(TreeSchema, { root: directory([inTree]) })));
  await held(output, inTree, tree);
  const result = create(ActionResultSchema, {
    outputFiles: [{ path: 'a', digest: wire(output.digest) }],
    outputDirectories: [{ path: 'd', treeDigest: wire(tree.digest) }],
  });
  await subject.store.actions.put(key, result);
  for (let round = 0; round < 30; round++) {
    await held(...Array.from({ length: 10 }, () => randomBlob(400_000)));
    expect(await subject.store.actions.get(key)).toEqual(result);
  }
  expect(subject.store.stats().counters.evictedBlobs).toBeGreaterThan(100);
});

test('old results go when the index is full of them', async () => {
  const bulky = (exitCode: number): ActionResult =>
    create(ActionResultSchema, { exitCode, stdoutRaw: Buffer.alloc(100_000, exitCode) });
  const keyOf = (at: number) => ({ instance: '', action: blobOf(`action ${at}`).digest });
  let fewest = Number.POSITIVE_INFINITY;
  for (let at = 0; at < 300; at++) {
    await subject.store.actions.put(keyOf(at), bulky(at % 200));
    const { counters, results } = subject.store.stats();
    if (counters.evictedResults > 0) fewest = Math.min(fewest, results);
  }
  // Not many more than had to.
  expect(fewest).toBeGreaterThan(60);
  expect(await subject.store.actions.get(keyOf(0))).toBeUndefined();
  expect((await subject.store.actions.get(keyOf(299)))?.exitCode).toBe(99);
  const { counters, indexBytes, sizeLimitBytes } = subject.store.stats();
  expect(counters.evictedResults).toBeGreaterThan(100);
  expect(indexBytes).toBeLessThan(sizeLimitBytes / 2);
});
