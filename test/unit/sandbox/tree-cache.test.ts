import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeEach, expect, test } from 'vitest';
import { createInputTrees, type InputDirectory } from '../../../sandbox/input-tree.ts';
import type { SandboxBlobs } from '../../../sandbox/sandbox.ts';
import { createTreeCache, InputVanished, type TreeCache } from '../../../sandbox/staging.ts';
import { addTree, createTestBlobs, type TestBlobs, type Tree } from './support.ts';

const root = mkdtempSync(join(tmpdir(), 'potluck-tree-cache-'));
afterAll(() => rmSync(root, { recursive: true }));
const options = { signal: new AbortController().signal };

let made = 0;
let blobs: TestBlobs;
let removed: string[];
let cache: TreeCache;
beforeEach(() => {
  const own = join(root, String(made++));
  blobs = createTestBlobs(join(own, 'blobs'));
  mkdirSync(join(own, 'trees'));
  removed = [];
  cache = createTreeCache({ blobs, directory: join(own, 'trees'), remove: (path) => removed.push(path) });
});

function load(tree: Tree): Promise<InputDirectory> {
  return createInputTrees(blobs).load(addTree(blobs, tree), options);
}

test('stages a directory once, for those who wait at the same time and those who come later', async () => {
  const node = await load({ a: 'a', d: { tree: { b: { content: 'b', executable: true }, l: { link: '../a' } } } });
  const [first, second] = await Promise.all([cache.acquire(node, options), cache.acquire(node, options)]);
  const third = await cache.acquire(node, options);
  expect(new Set([first.path, second.path, third.path]).size).toBe(1);
  expect(blobs.calls['linkTo']).toBe(2);
  expect(readFileSync(join(first.path, 'd/b'), 'utf8')).toBe('b');
  expect(statSync(join(first.path, 'd/l')).ino).toBe(statSync(join(first.path, 'a')).ino);
  expect(removed).toEqual([]);
});

test('shares the inode of the store, except for files with a mode of their own', async () => {
  const digest = blobs.add('shared');
  const node = await load({ a: 'shared', own: { content: 'shared', properties: { unixMode: 0o600 } } });
  const staged = await cache.acquire(node, options);
  expect(statSync(join(staged.path, 'a')).nlink).toBeGreaterThan(1);
  expect(statSync(join(staged.path, 'own')).nlink).toBe(1);
  expect(statSync(join(staged.path, 'own')).mode & 0o777).toBe(0o600);
  expect(statSync(blobs.pathOf(digest)).mode & 0o777).toBe(0o444);
});

test('forgets what could not be staged, and tries again when asked again', async () => {
  const node = await load({ a: 'gone' });
  const digest = blobs.add('gone');
  blobs.drop(digest);
  await expect(cache.acquire(node, options)).rejects.toBeInstanceOf(InputVanished);
  await cache.settle();
  expect(removed).toHaveLength(1);
  blobs.add('gone');
  const staged = await cache.acquire(node, options);
  expect(readFileSync(join(staged.path, 'a'), 'utf8')).toBe('gone');
});

test('goes on for those who still wait when one gives up, and stops with the last', async () => {
  const gate = Promise.withResolvers<void>();
  const slow: SandboxBlobs = {
    ...blobs,
    linkTo: async (...call) => {
      await gate.promise;
      return blobs.linkTo(...call);
    },
  };
  const directory = join(root, `${made - 1}`, 'trees');
  const cache = createTreeCache({ blobs: slow, directory, remove: (path) => removed.push(path) });
  const node = await load({ a: 'a' });
  const impatient = new AbortController();
  const first = cache.acquire(node, { signal: impatient.signal });
  const second = cache.acquire(node, options);
  impatient.abort();
  await expect(first).rejects.toMatchObject({ name: 'AbortError' });
  gate.resolve();
  expect(existsSync(join((await second).path, 'a'))).toBe(true);
  expect(removed).toEqual([]);

  const other = await load({ b: 'b' });
  const last = new AbortController();
  const third = cache.acquire(other, { signal: last.signal });
  last.abort();
  await expect(third).rejects.toMatchObject({ name: 'AbortError' });
  await cache.settle();
  expect(removed).toHaveLength(1);
});
