import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { create, type MessageInitShape, toBinary } from '@bufbuild/protobuf';
import { afterAll, describe, expect, test } from 'vitest';
import { emptyDigest, toWireDigest } from '../../../protos/digest.ts';
import { DirectorySchema } from '../../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { digestOf } from '../../../protos/hasher.ts';
import type { StatusError } from '../../../protos/status.ts';
import { createInputTrees, treeDigests } from '../../../sandbox/input-tree.ts';
import { addTree, createTestBlobs, missingSubjects, type Tree } from './support.ts';

const directory = mkdtempSync(join(tmpdir(), 'potluck-input-tree-'));
afterAll(() => rmSync(directory, { recursive: true }));
const blobs = createTestBlobs(directory);
const options = { signal: new AbortController().signal };
const hello = toWireDigest(blobs.add('hello'));
const empty = toWireDigest(emptyDigest('sha256'));

function addDirectory(message: MessageInitShape<typeof DirectorySchema>) {
  return blobs.add(toBinary(DirectorySchema, create(DirectorySchema, message)));
}

describe('load', () => {
  test('reads a tree and sums it up', async () => {
    const tree = await createInputTrees(blobs).load(
      addTree(blobs, { a: 'abc', d: { tree: { e: { tree: {} }, l: { link: '/x' } } } }),
      options,
    );
    expect(tree).toMatchObject({ entries: 5, bytes: 3, depth: 3 });
    expect(tree.directories[0]?.node.symlinks).toEqual([{ name: 'l', target: '/x' }]);
  });

  test('accepts the empty tree, whether or not the store has that blob as a file', async () => {
    expect(await createInputTrees(blobs).load(emptyDigest('sha256'), options)).toMatchObject({ entries: 1, depth: 1 });
  });

  test('accepts names in the order of UTF-8 bytes, which is not that of UTF-16', async () => {
    const file = (name: string) => ({ name, digest: hello });
    const load = (names: string[]) => createInputTrees(blobs).load(addDirectory({ files: names.map(file) }), options);
    await expect(load(['\uff61', '\u{1f600}'])).resolves.toMatchObject({ entries: 3 });
    await expect(load(['\u{1f600}', '\uff61'])).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
  });

  const file = (name: string) => ({ name, digest: hello });
  test.each<[string, MessageInitShape<typeof DirectorySchema>]>([
    ['unsorted files', { files: [file('b'), file('a')] }],
    ['unsorted directories', { directories: ['b', 'a'].map((name) => ({ name, digest: empty })) }],
    ['unsorted links', { symlinks: ['b', 'a'].map((name) => ({ name, target: 'x' })) }],
    ['a file twice', { files: [file('a'), file('a')] }],
    ['a file and a directory of one name', { files: [file('a')], directories: [{ name: 'a', digest: empty }] }],
    ['a file and a link of one name', { files: [file('a')], symlinks: [{ name: 'a', target: 'x' }] }],
    ['an empty name', { files: [file('')] }],
    ['a name of two segments', { files: [file('a/b')] }],
    ['the name .', { directories: [{ name: '.', digest: empty }] }],
    ['the name ..', { symlinks: [{ name: '..', target: 'x' }] }],
    ['a name with NUL', { files: [file('a\0')] }],
    ['a name no file system takes', { files: [file('ü'.repeat(128))] }],
    ['a file without a digest', { files: [{ name: 'a' }] }],
    ['a malformed digest', { files: [{ name: 'a', digest: { hash: 'XYZ', sizeBytes: 1n } }] }],
    ['a link to nothing', { symlinks: [{ name: 'a', target: '' }] }],
  ])('refuses %s', async (_, message) => {
    const load = createInputTrees(blobs).load(addDirectory(message), options);
    await expect(load).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
  });

  test('refuses a blob that is no Directory', async () => {
    const load = createInputTrees(blobs).load(blobs.add('\xff\xff no message'), options);
    await expect(load).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
  });

  test('refuses a tree that is too deep, also when its parts are known', async () => {
    const trees = createInputTrees(blobs);
    const nest = (tree: Tree, levels: number): Tree => (levels === 0 ? tree : { d: { tree: nest(tree, levels - 1) } });
    await trees.load(addTree(blobs, nest({}, 200)), options);
    await expect(trees.load(addTree(blobs, nest({}, 300)), options)).rejects.toMatchObject({
      code: 'INVALID_ARGUMENT',
    });
  });

  test('refuses a few messages that spell an astronomical tree', async () => {
    let digest = addTree(blobs, { a: 'hello' });
    for (let level = 0; level < 60; level++) {
      digest = addDirectory({ directories: ['l', 'r'].map((name) => ({ name, digest: toWireDigest(digest) })) });
    }
    await expect(createInputTrees(blobs).load(digest, options)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
  });

  test('names all that is missing when a Directory is: Directories and the files of those that are there', async () => {
    const goneTree = addTree(blobs, { inner: 'x' });
    const goneFile = blobs.add('gone file');
    const root = addTree(blobs, { a: { tree: { f: 'gone file', g: 'hello' } }, z: { tree: { inner: 'x' } } });
    blobs.drop(goneTree);
    blobs.drop(goneFile);
    const error = await createInputTrees(blobs)
      .load(root, options)
      .then(
        () => undefined,
        (error: StatusError) => error,
      );
    expect(error).toMatchObject({ code: 'FAILED_PRECONDITION' });
    expect(missingSubjects(error).toSorted()).toEqual(
      [goneTree, goneFile].map(({ hash, sizeBytes }) => `blobs/${hash}/${sizeBytes}`).toSorted(),
    );
  });

  test('names the function of a BLAKE3 blob', async () => {
    const root = addTree(blobs, { a: { tree: { f: 'blake' } } }, 'blake3');
    const child = addTree(blobs, { f: 'blake' }, 'blake3');
    blobs.drop(child);
    const error = await createInputTrees(blobs)
      .load(root, options)
      .catch((error: StatusError) => error);
    expect(missingSubjects(error as StatusError)).toEqual([`blobs/blake3/${child.hash}/${child.sizeBytes}`]);
  });

  test('reads a directory once, however often it appears and is asked for', async () => {
    const trees = createInputTrees(blobs);
    const shared = { tree: { s: 'shared' } };
    const before = blobs.calls['get'] ?? 0;
    await trees.load(addTree(blobs, { a: shared, b: shared }), options);
    expect(blobs.calls['get']).toBe(before + 2);
    await trees.load(addTree(blobs, { a: shared, c: shared }), options);
    expect(blobs.calls['get']).toBe(before + 3);
  });
});

test('treeDigests has every blob of a tree once', async () => {
  const tree = await createInputTrees(blobs).load(
    addTree(blobs, { a: 'one', b: { tree: { a: 'one', c: 'two' } } }),
    options,
  );
  expect(treeDigests(tree).map(({ sizeBytes }) => sizeBytes).length).toBe(4);
});

describe('find', () => {
  test('tells the Directories that are missing from every other blob that is named', async () => {
    const lost = addDirectory({ files: [{ name: 'never', digest: hello }] });
    const file = toWireDigest(digestOf('sha256', Buffer.from('a file that is not held')));
    const known = addDirectory({ files: [{ name: 'file', digest: file }] });
    const root = addDirectory({
      directories: [
        { name: 'known', digest: toWireDigest(known) },
        { name: 'lost', digest: toWireDigest(lost) },
      ],
    });
    blobs.drop(lost);
    const trees = createInputTrees(blobs);
    for (let round = 0; round < 2; round += 1) {
      const found = await trees.find(root, options);
      if ('root' in found) throw new Error('nothing is missing');
      expect(found.missing).toEqual([lost]);
      expect(found.named.map(({ hash }) => hash).toSorted()).toEqual([root.hash, known.hash, file.hash].toSorted());
    }
  });

  test('walks below a directory whose bytes are a file as well', async () => {
    const inner = addDirectory({ files: [{ name: 'deep', digest: hello }] });
    const root = addDirectory({
      files: [{ name: 'copy', digest: toWireDigest(inner) }],
      directories: [{ name: 'dir', digest: toWireDigest(inner) }],
    });
    const found = await createInputTrees(blobs).find(root, options);
    expect('root' in found && treeDigests(found.root).map(({ hash }) => hash)).toContain(hello.hash);
  });
});
