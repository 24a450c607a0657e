/** Whatever an action leaves behind can be removed. */
import { chmodSync, existsSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { removedHereMax } from '../../../sandbox/limits.ts';
import { removeTree } from '../../../sandbox/removal.ts';

const directory = mkdtempSync(join(tmpdir(), 'potluck-removal-'));
afterAll(() => rmSync(directory, { recursive: true }));

const trees: Record<string, (path: string) => void> = {
  'a small tree with links, without following them': (path) => {
    mkdirSync(join(path, 'a/b'), { recursive: true });
    writeFileSync(join(path, 'a/b/f'), '');
    symlinkSync(directory, join(path, 'a/out'));
    symlinkSync('nowhere', join(path, 'a/dangling'));
  },
  'a tree with many entries': (path) => {
    mkdirSync(join(path, 'd'), { recursive: true });
    for (let index = 0; index <= removedHereMax; index++) writeFileSync(join(path, 'd', String(index)), '');
  },
  'directories without permissions': (path) => {
    mkdirSync(join(path, 'a/b'), { recursive: true });
    chmodSync(join(path, 'a/b'), 0);
    chmodSync(join(path, 'a'), 0);
  },
  'names that are not UTF-8': (path) => {
    mkdirSync(path);
    if (process.platform === 'linux') writeFileSync(Buffer.concat([Buffer.from(`${path}/`), Buffer.from([0xfe])]), '');
  },
  'what is not there': () => undefined,
};

test.each(Object.keys(trees))('removes %s', async (name) => {
  const kept = join(directory, 'kept');
  writeFileSync(kept, '');
  const path = join(directory, 'tree');
  trees[name]?.(path);
  await removeTree(path);
  expect(existsSync(path)).toBe(false);
  expect(existsSync(kept)).toBe(true);
});
