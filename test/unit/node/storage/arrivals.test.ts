import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as fc from 'fast-check';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { Store } from '../../../../node/storage/open-store.ts';
import { type FsFile, type FsPort, nodeFs } from '../../../../node/storage/fs-port.ts';
import { openStore } from '../../../../node/storage/open-store.ts';
import { digestOf } from '../../../../protos/hasher.ts';
import { randomBlob } from '../../../contract/blobs.ts';

let dataDir: string;
let store: Store;

beforeEach(async () => {
  dataDir = await mkdtemp(join(tmpdir(), 'potluck-arrivals-'));
  store = await openStore({ dataDir, sizeLimitBytes: 64 * 1024 ** 2, durability: 'fast' });
});
afterEach(async () => {
  await store.close();
  await rm(dataDir, { recursive: true });
});

const leftOvers = () => readdir(join(dataDir, 'tmp'));

test('pieces in any order, overlapping and repeated, make the blob', async () => {
  const pieces = fc.array(fc.tuple(fc.nat(299_999), fc.integer({ min: 1, max: 120_000 })), { maxLength: 12 });
  await fc.assert(
    fc.asyncProperty(pieces, fc.boolean(), async (some, inParallel) => {
      const { digest, bytes } = randomBlob(300_000);
      await using arrival = await store.blobs.arrive(digest);
      const write = ([from, length]: [number, number]) => {
        const part = bytes.subarray(from, from + length);
        return arrival.write(from, [part.subarray(0, 10), part.subarray(10)]);
      };
      const all: [number, number][] = [...some, [150_000, 150_000], [0, 150_000]];
      if (inParallel) await Promise.all(all.map(write));
      else for (const piece of all) await write(piece);
      expect(Buffer.from(await arrival.read(140_000, 20_000)).equals(bytes.subarray(140_000, 160_000))).toBe(true);
      expect(await store.blobs.missing([digest])).toEqual([digest]);
      await arrival.finish();
      expect(Buffer.from((await store.blobs.get(digest)) ?? []).equals(bytes)).toBe(true);
    }),
    { numRuns: 40 },
  );
  expect(await leftOvers()).toEqual([]);
});

test('a byte that was brought cannot be changed any more', async () => {
  const { digest, bytes } = randomBlob(100_000);
  await using arrival = await store.blobs.arrive(digest);
  await arrival.write(0, [bytes]);
  await arrival.write(0, [Buffer.alloc(100_000)]);
  await arrival.finish();
  expect(Buffer.from((await store.blobs.get(digest)) ?? []).equals(bytes)).toBe(true);
});

test.each([
  ['wrong', (bytes: Buffer) => Buffer.concat([Buffer.of((bytes[0] ?? 0) ^ 1), bytes.subarray(1)])],
  ['short', (bytes: Buffer) => bytes.subarray(0, -1)],
])('%s bytes are refused, and nothing is left of them', async (_, damage) => {
  const { digest, bytes } = randomBlob(100_000);
  await using arrival = await store.blobs.arrive(digest);
  await arrival.write(0, [damage(Buffer.from(bytes))]);
  await expect(arrival.finish()).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
  expect(await store.blobs.missing([digest])).toEqual([digest]);
  expect(await leftOvers()).toEqual([]);
});

test('bytes beyond the end are refused', async () => {
  const { digest, bytes } = randomBlob(100_000);
  await using arrival = await store.blobs.arrive(digest);
  await expect(arrival.write(1, [bytes])).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
});

test('an arrival that is dropped gives its room back, and one that came by another way ends well', async () => {
  const usedBytes = store.stats().usedBytes;
  const { digest, bytes } = randomBlob(100_000);
  {
    await using arrival = await store.blobs.arrive(digest);
    await arrival.write(0, [bytes.subarray(0, 50_000)]);
    expect(store.stats().usedBytes).toBeGreaterThanOrEqual(usedBytes + 100_000);
  }
  expect(store.stats().usedBytes).toBe(usedBytes);
  await using arrival = await store.blobs.arrive(digest);
  await arrival.write(0, [bytes]);
  await store.blobs.putMany([{ digest, bytes }]);
  await arrival.finish();
  expect(await store.blobs.missing([digest])).toEqual([]);
  expect(await leftOvers()).toEqual([]);
});

test('an arrival for which there is no room is refused', async () => {
  await expect(store.blobs.arrive({ ...randomBlob(1).digest, sizeBytes: 1e9 })).rejects.toMatchObject({
    code: 'RESOURCE_EXHAUSTED',
  });
});

/** Opens the store again on a file system some of whose calls fail. */
async function reopen(fs: Partial<FsPort>): Promise<void> {
  await store.close();
  store = await openStore({
    dataDir,
    sizeLimitBytes: 64 * 1024 ** 2,
    durability: 'fast',
    fs: { ...nodeFs, ...fs },
  });
}

const failing = (code: string) => Promise.reject(Object.assign(new Error(code), { code }));

test('an arrival that cannot begin leaves nothing behind', async () => {
  await reopen({
    openRead: (path) => (path.startsWith(join(dataDir, 'tmp/')) ? failing('EMFILE') : nodeFs.openRead(path)),
  });
  const { usedBytes } = store.stats();
  await expect(store.blobs.arrive(randomBlob(100_000).digest)).rejects.toThrow();
  expect(await leftOvers()).toEqual([]);
  expect(store.stats().usedBytes).toBe(usedBytes);
});

test('bytes that the disk does not take are not taken for wrong ones, whoever brings them again', async () => {
  let isFull = false;
  const full = (file: FsFile): FsFile => ({
    ...file,
    write: (chunks, position) => (isFull ? failing('ENOSPC') : file.write(chunks, position)),
  });
  await reopen({ create: async (path, mode) => full(await nodeFs.create(path, mode)) });
  const { usedBytes } = store.stats();
  const { digest, bytes } = randomBlob(100_000);
  await using arrival = await store.blobs.arrive(digest);
  await arrival.write(50_000, [bytes.subarray(50_000)]);
  isFull = true;
  await expect(arrival.write(0, [bytes.subarray(0, 50_000)])).rejects.toMatchObject({ code: 'RESOURCE_EXHAUSTED' });
  isFull = false;
  await expect(arrival.write(0, [bytes.subarray(0, 50_000)])).rejects.toMatchObject({ code: 'RESOURCE_EXHAUSTED' });
  // What came before can be read on.
  expect(Buffer.from(await arrival.read(50_000, 1_000)).equals(bytes.subarray(50_000, 51_000))).toBe(true);
  await expect(arrival.finish()).rejects.toMatchObject({ code: 'RESOURCE_EXHAUSTED' });
  expect(await leftOvers()).toEqual([]);
  expect(store.stats().usedBytes).toBe(usedBytes);
});

test('an arrival that is dropped while it is finished, or before, is cancelled, not wrong', async () => {
  const { usedBytes } = store.stats();
  for (const isHashed of [true, false]) {
    const { digest, bytes } = randomBlob(600_000);
    const arrival = await store.blobs.arrive(digest);
    if (!isHashed) await arrival.write(300_000, [bytes.subarray(300_000)]);
    await arrival.write(0, [isHashed ? bytes : bytes.subarray(0, 300_000)]);
    const finishing = expect(arrival.finish()).rejects.toMatchObject({ code: 'CANCELLED' });
    await arrival[Symbol.asyncDispose]();
    await finishing;
    await expect(arrival.finish()).rejects.toMatchObject({ code: 'CANCELLED' });
    await expect(arrival.write(0, [bytes])).rejects.toMatchObject({ code: 'CANCELLED' });
    expect(await store.blobs.missing([digest])).toEqual([digest]);
  }
  expect(await leftOvers()).toEqual([]);
  expect(store.stats().usedBytes).toBe(usedBytes);
});

test('several arrivals of one blob end well, whoever is first', async () => {
  const { digest, bytes } = randomBlob(300_000);
  const { usedBytes } = store.stats();
  const all = await Promise.all(Array.from({ length: 4 }, () => store.blobs.arrive(digest)));
  await Promise.all(all.map((arrival) => arrival.write(0, [bytes])));
  await Promise.all([...all.map((arrival) => arrival.finish()), store.blobs.putMany([{ digest, bytes }])]);
  expect(Buffer.from((await store.blobs.get(digest)) ?? []).equals(bytes)).toBe(true);
  expect(await leftOvers()).toEqual([]);
  expect(store.stats()).toMatchObject({ blobs: 1, pinnedBlobs: 0 });
  expect(store.stats().usedBytes - usedBytes).toBeLessThan(400_000);
});

test('memory of pieces is free to be used again once they are written, in whatever order they came', async () => {
  const { digest, bytes } = randomBlob(900_000);
  await using arrival = await store.blobs.arrive(digest);
  const memory = Buffer.alloc(300_000);
  for (const from of [600_000, 0, 300_000]) {
    memory.set(bytes.subarray(from, from + memory.length));
    await arrival.write(from, [memory]);
    memory.fill(0);
  }
  await arrival.finish();
  expect(Buffer.from((await store.blobs.get(digest)) ?? []).equals(bytes)).toBe(true);
});

test('an arrival is synced while it comes, and a sync that fails on the way is not forgotten', async () => {
  let syncs = 0;
  const syncing = (file: FsFile): FsFile => ({
    ...file,
    sync: () => (++syncs === 1 ? failing('EIO') : file.sync()),
  });
  await store.close();
  store = await openStore({
    dataDir,
    sizeLimitBytes: 512 * 1024 ** 2,
    durability: 'full',
    fs: { ...nodeFs, create: async (path, mode) => syncing(await nodeFs.create(path, mode)) },
  });
  const piece = randomBlob(16 * 1024 ** 2);
  const bytes = Buffer.concat(Array.from({ length: 5 }, () => piece.bytes));
  const arrival = await store.blobs.arrive(digestOf('sha256', bytes));
  for (let from = 0; from < bytes.length; from += piece.bytes.length) {
    await arrival.write(from, [piece.bytes]).catch(() => {});
  }
  await expect(arrival.finish()).rejects.toThrow();
  expect(syncs).toBe(1);
  expect(await store.blobs.missing([arrival.digest])).toEqual([arrival.digest]);
});
