import { create, toBinary } from '@bufbuild/protobuf';
import { describe, expect, test } from 'vitest';
import { createInputTrees } from '../../../../node/execution/input-tree.ts';
import { type Digest, digestKey, emptyDigest, toWireDigest } from '../../../../protos/digest.ts';
import { DirectorySchema } from '../../../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { digestOf } from '../../../../protos/hasher.ts';

interface Tree {
  readonly [name: string]: string | Tree;
}

/** Directories of trees, without the files, in memory; counts what is read. */
function createDirectories() {
  const held = new Map<string, Uint8Array>();
  let reads = 0;
  const add = (tree: Tree): Digest => {
    const entries = Object.entries(tree).sort(([a], [b]) => (a < b ? -1 : 1));
    const directory = create(DirectorySchema);
    for (const [name, content] of entries) {
      if (typeof content === 'string') {
        directory.files.push({ ...fileNode, name, digest: toWireDigest(digestOf('sha256', Buffer.from(content))) });
      } else {
        directory.directories.push({ ...directoryNode, name, digest: toWireDigest(add(content)) });
      }
    }
    return addBytes(toBinary(DirectorySchema, directory));
  };
  const addBytes = (bytes: Uint8Array): Digest => {
    const digest = digestOf('sha256', bytes);
    held.set(digestKey(digest), bytes);
    return digest;
  };
  const [fileNode, directoryNode] = (() => {
    const { files, directories } = create(DirectorySchema, { files: [{}], directories: [{}] });
    return [files[0] as (typeof files)[0], directories[0] as (typeof directories)[0]];
  })();
  return {
    add,
    addBytes,
    drop: (digest: Digest) => held.delete(digestKey(digest)),
    reads: () => reads,
    async get(digest: Digest) {
      reads += 1;
      return held.get(digestKey(digest));
    },
  };
}

const file = (text: string): string => digestKey(digestOf('sha256', Buffer.from(text)));
const keys = (digests: readonly Digest[]): string[] => digests.map(digestKey).sort();

describe('the blobs of an input tree', () => {
  test('are all directories and files, each once', async () => {
    const store = createDirectories();
    const shared = { lib: 'library' };
    const root = store.add({ a: shared, b: { nested: shared, same: 'library' }, top: 'top' });
    const tree = await createInputTrees(store).collect(root);
    const directories = [root, store.add(shared), store.add({ nested: shared, same: 'library' })];
    expect(keys(tree.blobs)).toEqual([...keys(directories), file('library'), file('top')].sort());
    expect(tree.missing).toEqual([]);
  });

  test('leave out the empty blob, as file, as directory and as root', async () => {
    const store = createDirectories();
    store.addBytes(new Uint8Array());
    const root = store.add({ emptyFile: '', emptyDirectory: {} });
    expect(keys((await createInputTrees(store).collect(root)).blobs)).toEqual(keys([root]));
    expect((await createInputTrees(store).collect(emptyDigest('sha256'))).blobs).toEqual([]);
  });

  test('name every missing directory and go on below the others', async () => {
    const store = createDirectories();
    const root = store.add({ a: { gone: 'x' }, b: { here: 'y', c: { gone: 'z' } } });
    const missing = [store.add({ gone: 'x' }), store.add({ gone: 'z' })];
    for (const digest of missing) store.drop(digest);
    const tree = await createInputTrees(store).collect(root);
    expect(keys(tree.missing)).toEqual(keys(missing));
    expect(keys(tree.blobs)).toContain(file('y'));
  });

  test('are walked below a directory whose bytes are a file as well', async () => {
    const store = createDirectories();
    const inner = store.add({ deep: 'deep' });
    const innerBytes = (await store.get(inner)) ?? new Uint8Array();
    const directory = create(DirectorySchema, {
      files: [{ name: 'copy', digest: toWireDigest(digestOf('sha256', innerBytes)) }],
      directories: [{ name: 'dir', digest: toWireDigest(inner) }],
    });
    const root = store.addBytes(toBinary(DirectorySchema, directory));
    expect(keys((await createInputTrees(store).collect(root)).blobs)).toContain(file('deep'));
  });

  test('are found the second time without reading', async () => {
    const store = createDirectories();
    const trees = createInputTrees(store);
    const first = await trees.collect(store.add({ a: { b: { c: '1' } }, changing: 'one' }));
    const before = store.reads();
    const second = await trees.collect(store.add({ a: { b: { c: '1' } }, changing: 'two' }));
    expect(store.reads() - before).toBe(1);
    expect(second.blobs).toHaveLength(first.blobs.length);
  });
});

describe('a malformed tree is INVALID_ARGUMENT', () => {
  test('when a directory is no Directory message', async () => {
    const store = createDirectories();
    const root = store.addBytes(Buffer.from('\xff\xff nonsense'));
    await expect(createInputTrees(store).collect(root)).rejects.toThrow(/^INVALID_ARGUMENT.*Directory/);
  });

  test.each([
    ['an entry has no digest', { name: 'x' }],
    ['an entry has a hash that is none', { name: 'x', digest: { hash: 'abc', sizeBytes: 1n } }],
    ['an entry has a negative size', { name: 'x', digest: { hash: 'a'.repeat(64), sizeBytes: -1n } }],
  ])('when %s', async (_what, node) => {
    const store = createDirectories();
    const root = store.addBytes(toBinary(DirectorySchema, create(DirectorySchema, { files: [node] })));
    await expect(createInputTrees(store).collect(root)).rejects.toThrow(/^INVALID_ARGUMENT/);
  });
});
