import { execFileSync } from 'node:child_process';
import { chmod, mkdir, readdir, readFile, rm, stat, truncate, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { type OpenStoreOptions, openStore, readStoreStats } from '../../../../node/storage/open-store.ts';
import type { Digest } from '../../../../protos/digest.ts';
import { type Blob, chunksOf, randomBlob, readAll } from '../../../contract/blobs.ts';
import { type TempStore, tempStore } from './temp-store.ts';

let subject: TempStore;
beforeEach(async () => {
  subject = await tempStore();
});
afterEach(() => subject[Symbol.asyncDispose]());

const large = randomBlob(600_000);
const blobs = () => subject.store.blobs;

/** Flips one bit far behind the first chunk. */
async function flip(path: string): Promise<void> {
  const bytes = await readFile(path);
  bytes[500_000] = (bytes[500_000] ?? 0) ^ 1;
  await chmod(path, 0o644);
  await writeFile(path, bytes);
}

const damages: [string, (path: string) => Promise<void>][] = [
  ['cut', async (path) => truncate(path, 599_999)],
  ['longer', async (path) => writeFile(path, Buffer.alloc(600_001))],
  ['empty', async (path) => truncate(path, 0)],
  ['gone', async (path) => rm(path)],
  ['flipped in one bit', flip],
];

/** Every way out of the store; each resolves to whether the blob was handed out as good. */
const exits: [string, (digest: Digest) => Promise<boolean>][] = [
  ['get', async (digest) => (await blobs().get(digest)) !== undefined],
  ['read of all', (digest) => readOut(digest)],
  ['read of a part', (digest) => readOut(digest, { offset: 1_000, length: 5_000 })],
  ['copyTo', (digest) => blobs().copyTo(digest, join(subject.dataDir, '../out'), { executable: false })],
  ['linkTo', (digest) => blobs().linkTo(digest, join(subject.dataDir, '../out'), { executable: false })],
  ['linkTo executable', (digest) => blobs().linkTo(digest, join(subject.dataDir, '../out'), { executable: true })],
];

async function readOut(digest: Digest, range?: { offset: number; length: number }): Promise<boolean> {
  await using reader = await blobs().open(digest);
  if (!reader) return false;
  let seenBytes = 0;
  try {
    for await (const chunk of reader.read(range)) seenBytes += chunk.byteLength;
    return true;
  } catch (error) {
    expect(error).toMatchObject({ code: 'NOT_FOUND' });
    // All of a bad blob is never handed out, and of a part nothing.
    expect(seenBytes).toBeLessThan(range ? 1 : digest.sizeBytes);
    return false;
  }
}

describe.each(damages)('a blob whose file is %s', (_, damage) => {
  test.each(exits)('is not handed out by %s, and is missing from then on', async (_exit, exit) => {
    await blobs().put(large.digest, chunksOf(large.bytes));
    await damage(subject.fileOf(large.digest));
    expect(await exit(large.digest)).toBe(false);
    expect(await blobs().missing([large.digest])).toEqual([large.digest]);
    expect(subject.store.stats()).toMatchObject({ blobs: 0, blobBytes: 0, counters: { badBlobs: 1 } });
    expect(subject.warnings).toHaveLength(1);

    await blobs().put(large.digest, chunksOf(large.bytes));
    expect(Buffer.from((await blobs().get(large.digest)) ?? []).equals(large.bytes)).toBe(true);
  });

  test('is found by verify', async () => {
    const good = randomBlob(20_000);
    await blobs().putMany([large, good, randomBlob(10)]);
    await damage(subject.fileOf(large.digest));
    const key = `sha256/${large.digest.hash}/600000`;
    expect(await subject.store.verify()).toMatchObject({ blobs: 3, dropped: [key], strayFiles: 0 });
    expect(await blobs().missing([large.digest, good.digest])).toEqual([large.digest]);
    expect((await subject.store.verify()).dropped).toEqual([]);
  });
});

test('a file changed since the last start is hashed again', async () => {
  await blobs().put(large.digest, chunksOf(large.bytes));
  await subject.reopen(async () => {
    const path = subject.fileOf(large.digest);
    const { atime, mtime } = await stat(path);
    await flip(path);
    // Even with the old time on it.
    await utimes(path, atime, mtime);
  });
  expect(await readOut(large.digest)).toBe(false);
});

test('a reader that finds a blob bad does not drop the good one that has taken its place', async () => {
  await blobs().put(large.digest, chunksOf(large.bytes));
  await flip(subject.fileOf(large.digest));
  await using first = await blobs().open(large.digest);
  expect(await readOut(large.digest)).toBe(false);
  await blobs().put(large.digest, chunksOf(large.bytes));
  await expect(first && readAll(first)).rejects.toMatchObject({ code: 'NOT_FOUND' });
  expect(await blobs().missing([large.digest])).toEqual([]);
});

test('stray files are removed after a crash and by verify, files of blobs are not', async () => {
  await blobs().putMany([large]);
  const strays = [
    join(subject.dataDir, 'cas/sha256/00', `${'0'.repeat(64)}-12`),
    join(subject.dataDir, 'cas/sha256/00/nonsense'),
  ];
  await mkdir(join(subject.dataDir, 'cas/sha256/00'), { recursive: true });
  for (const path of strays) await writeFile(path, 'stray');
  expect(await subject.store.verify()).toMatchObject({ dropped: [], strayFiles: 2 });
  // One of 256 blobs has its file beside them.
  const left = await readdir(join(subject.dataDir, 'cas/sha256/00'));
  expect(left.filter((name) => !name.startsWith(large.digest.hash))).toEqual([]);
  expect(await blobs().missing([large.digest])).toEqual([]);
});

test('temporary files of a dead process are removed at the start', async () => {
  await subject.reopen(() => writeFile(join(subject.dataDir, 'tmp/left-over'), 'x'));
  expect(await readdir(join(subject.dataDir, 'tmp'))).toEqual([]);
});

describe('an index that is', () => {
  const indexFile = (): string => join(subject.dataDir, 'index/data.mdb');
  const ways: [string, () => Promise<void>][] = [
    ['missing', () => rm(join(subject.dataDir, 'index'), { recursive: true })],
    ['garbage', () => writeFile(indexFile(), Buffer.alloc(50_000, 'garbage'))],
    ['cut', () => truncate(indexFile(), 8_192)],
    ['empty', () => truncate(indexFile(), 0)],
  ];

  test.each(ways)('%s is built anew from the files, hashing them', async (_, harm) => {
    const good = [randomBlob(9_000), randomBlob(50_000, 'blake3'), randomBlob(70_000, 'sha512')];
    await blobs().putMany([...good, large]);
    await subject.reopen(async () => {
      await harm();
      await flip(subject.fileOf(large.digest));
    });
    expect(subject.warnings.at(-1)).toMatch(/built anew: 3 blobs kept, 1 dropped/);
    expect(await blobs().missing([...good, large].map(({ digest }) => digest))).toEqual([large.digest]);
    for (const { digest, bytes } of good) expect(Buffer.from((await blobs().get(digest)) ?? [])).toEqual(bytes);
    expect(subject.store.stats()).toMatchObject({ blobs: 3, blobBytes: 129_000 });
    await subject.reopen();
    expect(subject.store.stats()).toMatchObject({ blobs: 3, blobBytes: 129_000 });
    expect(await subject.store.verify()).toMatchObject({ dropped: [], strayFiles: 0 });
  });
});

test('an index written without syncs in an earlier boot is not trusted', async () => {
  await subject.reopen(undefined, { durability: 'fast' });
  const [small, big] = [randomBlob(100), randomBlob(50_000)];
  await blobs().putMany([small, big]);
  await subject.reopen(() => writeFile(join(subject.dataDir, 'unsynced-boot'), 'another boot'));
  expect(await blobs().missing([small.digest, big.digest])).toEqual([small.digest]);
});

test('a store written without syncs and closed in good order is trusted', async () => {
  await subject.reopen(undefined, { durability: 'fast' });
  const small = randomBlob(100);
  await blobs().putMany([small]);
  await subject.reopen();
  expect(await blobs().missing([small.digest])).toEqual([]);
  expect(await readdir(subject.dataDir)).not.toContain('unsynced-boot');
});

test('one writer at a time, readers beside it', async () => {
  const all: Blob[] = [randomBlob(100), randomBlob(50_000)];
  await blobs().putMany(all);
  const second: OpenStoreOptions = { dataDir: subject.dataDir, sizeLimitBytes: 1024 ** 3 };
  const refused = openStore(second);
  await expect(refused).rejects.toMatchObject({ code: 'FAILED_PRECONDITION' });
  await expect(refused).rejects.toThrow(`another potluck node (pid ${process.pid}) uses ${subject.dataDir}`);
  const script = `
    import { readStoreStats } from ${JSON.stringify(join(import.meta.dirname, '../../../../node/storage/open-store.ts'))};
    console.log(JSON.stringify(await readStoreStats(${JSON.stringify(subject.dataDir)})));`;
  const output = execFileSync(process.execPath, ['--input-type=module', '-e', script], { encoding: 'utf8' });
  expect(JSON.parse(output)).toMatchObject({ blobs: 2, smallBlobs: 1, blobBytes: 50_100 });
  expect(await blobs().missing(all.map(({ digest }) => digest))).toEqual([]);
});

test('there are no stats of a store that is not there', async () => {
  await mkdir(join(subject.dataDir, 'other'));
  expect(await readStoreStats(join(subject.dataDir, 'other'))).toBeUndefined();
});
