import { expect, test } from 'vitest';
import { createHeldTrees, sketchOf } from '../../../../node/offload/item.ts';
import { actionName, actionOf } from '../../../../node/offload/keys.ts';
import { createTail } from '../../../../node/offload/tail.ts';
import { digestOf } from '../../../../protos/hasher.ts';
import type { InputDirectory } from '../../../../sandbox/input-tree.ts';

let serial = 0;
function directory(bytes: number, children: readonly InputDirectory[] = []): InputDirectory {
  const inside = children.reduce((sum, child) => sum + child.bytes, 0);
  return {
    digest: digestOf('sha256', Buffer.from(`directory ${(serial += 1)}`)),
    files: [],
    symlinks: [],
    directories: children.map((node, at) => ({ name: `d${at}`, node })),
    entries: 1,
    bytes: bytes + inside,
    depth: 1,
  };
}

test('the sketch of a tree names its largest directories, however deep, and no empty ones', () => {
  const deep = directory(5_000);
  const small = Array.from({ length: 30 }, () => directory(1));
  const root = directory(0, [directory(10, [deep]), ...small, directory(0)]);
  const hashOf = ({ digest }: InputDirectory): number => Number.parseInt(digest.hash.slice(0, 8), 16);
  const sketch = sketchOf(root);
  expect(sketch).toHaveLength(16);
  expect(sketch.slice(0, 3)).toEqual([root, root.directories[0]?.node as InputDirectory, deep].map(hashOf));
  expect(sketchOf(directory(0))).toEqual([]);
});

test('trees that were here lately are remembered, the newest longest', () => {
  const held = createHeldTrees();
  const trees = Array.from({ length: 100 }, () => directory(10));
  for (const tree of trees) held.add(tree);
  expect(held.sketch()).toHaveLength(64);
  expect(held.sketch()).toEqual(expect.arrayContaining([...sketchOf(trees[99] as InputDirectory)]));
  expect(held.sketch()).not.toEqual(expect.arrayContaining([...sketchOf(trees[0] as InputDirectory)]));
});

test('the name of an action says all of it, whatever the instance is called', () => {
  const action = digestOf('blake3', Buffer.from('action'));
  for (const instance of ['', 'main', 'a/b/c']) {
    expect(actionOf(actionName({ instance, action }))).toEqual({ instance, action });
  }
  expect(() => actionOf('nonsense')).toThrow('INVALID_ARGUMENT');
});

test('a tail keeps the newest output, and says where it begins', () => {
  let writes = 0;
  const tail = createTail(() => (writes += 1), 10);
  tail.write(Buffer.from('0123456789'));
  tail.write(Buffer.from('abcdefghijk'));
  expect(writes).toBe(2);
  expect(tail.endOffset).toBe(21);
  const { offset, bytes } = tail.read(0, 4);
  expect([offset, Buffer.from(bytes).toString()]).toEqual([11, 'bcde']);
  expect(Buffer.from(tail.read(20, 100).bytes).toString()).toBe('k');
  expect(tail.read(21, 100).bytes).toHaveLength(0);
});
