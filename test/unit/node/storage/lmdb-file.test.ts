import { mkdtemp, open, rm, stat, truncate } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { checkEnvironment } from '../../../../node/storage/lmdb-file.ts';
import { openLmdbIndex } from '../../../../node/storage/lmdb-index.ts';
import { randomFrom } from './random.ts';

const pageBytes = 4096;

test('an index that ends before the last page it counts is sound, one that was cut is not', async () => {
  const random = randomFrom(1);
  const path = await mkdtemp(join(tmpdir(), 'potluck-lmdb-'));
  onTestFinished(() => rm(path, { recursive: true }));
  const file = join(path, 'data.mdb');
  const index = await openLmdbIndex({ path, dataDir: path, sizeLimitBytes: 1024 ** 3, sync: false });
  const keys = Array.from({ length: 1_500 }, () => Buffer.concat([Buffer.of(1), random.bytes(32), Buffer.alloc(6)]));
  await index.commit(keys.map((key) => ({ kind: 'file', key })));
  expect(checkEnvironment(path)).toBe((await stat(file)).size);
  // Pages of the tree are copied to new ones at the end, and those given back unwritten when nothing is left in them.
  await index.commit(keys.slice(20).map((key) => ({ kind: 'remove', key })));
  const { size } = await stat(file);
  expect(size).toBeLessThan((await countedPages(file)) * pageBytes);
  expect(checkEnvironment(path)).toBe(size);
  await index.close({ isTidy: true });

  await truncate(file, Math.floor(size / 2 / pageBytes) * pageBytes);
  expect(() => checkEnvironment(path)).toThrow(/damaged or cut short/);
});

async function countedPages(file: string): Promise<number> {
  await using handle = await open(file);
  const lastPageAt = 144;
  const newest = { lastPage: 0n, transaction: -1n };
  for (const position of [0, pageBytes]) {
    const page = Buffer.alloc(lastPageAt + 16);
    await handle.read(page, 0, page.length, position);
    const transaction = page.readBigUInt64LE(lastPageAt + 8);
    if (transaction > newest.transaction)
      Object.assign(newest, { lastPage: page.readBigUInt64LE(lastPageAt), transaction });
  }
  return Number(newest.lastPage) + 1;
}
