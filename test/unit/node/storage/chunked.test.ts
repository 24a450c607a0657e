/** Blobs that are kept as lists of others: they behave as blobs do, and take no room for what they share. */
import { readFile, rm, stat, writeFile, chmod } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { chunkStream, createChunker } from '../../../../node/reapi/fastcdc.ts';
import type { FsPort } from '../../../../node/storage/fs-port.ts';
import { nodeFs } from '../../../../node/storage/fs-port.ts';
import type { Digest } from '../../../../protos/digest.ts';
import { type Blob, blobOf, chunksOf, readAll } from '../../../contract/blobs.ts';
import { randomFrom } from './random.ts';
import { diskUsage, type TempStore, tempStore } from './temp-store.ts';

const MiB = 1024 ** 2;
const random = randomFrom(7);

/** A blob and the chunks it consists of, of which `shared` come first. */
function chunkedBlob(sizes: readonly number[], shared: readonly Blob[] = []): { whole: Blob; chunks: Blob[] } {
  const chunks = [...shared, ...sizes.map((size) => blobOf(random.bytes(size)))];
  return { whole: blobOf(Buffer.concat(chunks.map(({ bytes }) => bytes))), chunks };
}

const digestsOf = (blobs: readonly Blob[]): Digest[] => blobs.map(({ digest }) => digest);

let subject: TempStore;
beforeEach(async () => {
  subject = await tempStore();
});
afterEach(async () => {
  await subject[Symbol.asyncDispose]();
});

async function stored(sizes: readonly number[], shared: readonly Blob[] = []) {
  const made = chunkedBlob(sizes, shared);
  await subject.store.blobs.putMany(made.chunks);
  await subject.store.blobs.putChunked(made.whole.digest, digestsOf(made.chunks));
  return made;
}

const sizes = [1.5 * MiB, 300_000, 5_000, 700_000];

describe('a blob of chunks', () => {
  test('is read whole and in part, also after a restart', async () => {
    const { whole } = await stored(sizes);
    for (let round = 0; round < 2; round += 1) {
      const { blobs } = subject.store;
      expect(subject.store.stats()).toMatchObject({ chunkedBlobs: 1, chunkedBlobBytes: whole.digest.sizeBytes });
      expect(await blobs.missing([whole.digest])).toEqual([]);
      expect(Buffer.from((await blobs.get(whole.digest)) ?? []).equals(whole.bytes)).toBe(true);
      await using reader = await blobs.open(whole.digest);
      for (const [offset, length] of [
        [0, 1],
        [1.5 * MiB - 1, 2],
        [1.5 * MiB + 299_999, 5_003],
        [whole.digest.sizeBytes - 1, 100],
        [1000, whole.digest.sizeBytes],
        [whole.digest.sizeBytes, 5],
      ] as const) {
        const parts: Uint8Array[] = [];
        for await (const part of reader?.read({ offset, length }) ?? []) parts.push(part);
        expect(Buffer.concat(parts).equals(whole.bytes.subarray(offset, offset + length)), `${offset}`).toBe(true);
      }
      await subject.reopen();
    }
  });

  test('shares with its next version what did not change', async () => {
    const bytes = random.bytes(24 * MiB);
    const next = Buffer.from(bytes);
    random.bytes(1000).copy(next, 10 * MiB);
    const chunker = createChunker({ averageBytes: 512 * 1024, seed: 0 });
    for (const version of [bytes, next]) {
      const chunks: Blob[] = [];
      for await (const chunk of chunkStream(chunker, chunksOf(version))) chunks.push(blobOf(chunk));
      await subject.store.blobs.putMany(chunks);
      await subject.store.blobs.putChunked(blobOf(version).digest, digestsOf(chunks));
    }
    const used = await diskUsage(subject.dataDir);
    console.log(`two versions of 24 MiB with 1000 bytes changed take ${(used / MiB).toFixed(1)} MiB`);
    expect(used).toBeLessThan(28 * MiB);
  });

  test('takes the place of the file of the same blob, which readers may go on reading', async () => {
    const { whole, chunks } = chunkedBlob(sizes);
    const { blobs } = subject.store;
    await blobs.put(whole.digest, chunksOf(whole.bytes));
    await blobs.putMany(chunks);
    const reader = await blobs.open(whole.digest);
    await blobs.putChunked(whole.digest, digestsOf(chunks));
    expect(subject.store.stats().chunkedBlobs).toBe(0);
    expect(reader && (await readAll(reader)).equals(whole.bytes)).toBe(true);
    await reader?.[Symbol.asyncDispose]();

    await blobs.putChunked(whole.digest, digestsOf(chunks));
    expect(subject.store.stats().chunkedBlobs).toBe(1);
    await expect.poll(() => stat(subject.fileOf(whole.digest)).catch(() => 'gone')).toBe('gone');
    expect(Buffer.from((await blobs.get(whole.digest)) ?? []).equals(whole.bytes)).toBe(true);
    expect(await subject.store.verify()).toMatchObject({ dropped: [], strayFiles: 0 });
  });

  test('is missing when a chunk was evicted, and can be stored again', async () => {
    const { whole, chunks } = await stored(sizes);
    const { blobs } = subject.store;
    // What was touched stays longest, so only the chunks that are files go.
    await subject.store.gc({ targetBytes: 0 });
    expect((await blobs.missing(digestsOf(chunks))).length).toBeGreaterThan(0);
    expect(await blobs.missing([whole.digest])).toEqual([whole.digest]);
    expect(await blobs.open(whole.digest)).toBeUndefined();
    await blobs.put(whole.digest, chunksOf(whole.bytes));
    expect(Buffer.from((await blobs.get(whole.digest)) ?? []).equals(whole.bytes)).toBe(true);
    expect(await subject.store.verify()).toMatchObject({ dropped: [] });
  });

  test('keeps its chunks while it is pinned or open', async () => {
    const { whole, chunks } = await stored(sizes);
    const { blobs } = subject.store;
    const pin = await blobs.pin([whole.digest]);
    await subject.store.gc({ targetBytes: 0 });
    expect(await blobs.missing([whole.digest, ...digestsOf(chunks)])).toEqual([]);
    const reader = await blobs.open(whole.digest);
    pin[Symbol.dispose]();
    await subject.store.gc({ targetBytes: 0 });
    expect(reader && (await readAll(reader)).equals(whole.bytes)).toBe(true);
    await reader?.[Symbol.asyncDispose]();
    await subject.store.gc({ targetBytes: 0 });
    expect(await blobs.missing([whole.digest])).toEqual([whole.digest]);
    expect(subject.store.stats().pinnedBlobs).toBe(0);
  });

  test('called present has its chunks live longer', async () => {
    await subject[Symbol.asyncDispose]();
    subject = await tempStore({ sizeLimitBytes: 32 * MiB });
    const { whole } = await stored(sizes);
    for (let n = 0; n < 60; n += 1) {
      expect(await subject.store.blobs.missing([whole.digest]), `after ${n}`).toEqual([]);
      const other = blobOf(random.bytes(MiB));
      await subject.store.blobs.put(other.digest, chunksOf(other.bytes));
    }
    expect(subject.store.stats().counters.evictedBlobs).toBeGreaterThan(20);
  });

  test('with a bad chunk is missing', async () => {
    const { whole, chunks } = await stored(sizes);
    const victim = subject.fileOf((chunks[1] as Blob).digest);
    await subject.reopen(async () => {
      const bytes = await readFile(victim);
      bytes[100] = (bytes[100] as number) ^ 1;
      await rm(victim);
      await writeFile(victim, bytes);
      await chmod(victim, 0o444);
    });
    const { blobs } = subject.store;
    expect(await blobs.get(whole.digest)).toBeUndefined();
    expect(await blobs.missing([whole.digest])).toEqual([whole.digest]);
  });

  test('becomes a file where one is needed', async () => {
    const { whole } = await stored(sizes);
    for (const how of ['copyTo', 'linkTo'] as const) {
      const path = join(subject.dataDir, how);
      expect(await subject.store.blobs[how](whole.digest, path, { executable: true })).toBe(true);
      expect((await readFile(path)).equals(whole.bytes)).toBe(true);
      expect((await stat(path)).mode & 0o777).toBe(how === 'copyTo' ? 0o755 : 0o555);
    }
  });

  test('is refused when the chunks do not make it, or are not held', async () => {
    const { whole, chunks } = chunkedBlob(sizes);
    const { blobs } = subject.store;
    const digests = digestsOf(chunks);
    await expect(blobs.putChunked(whole.digest, digests)).rejects.toMatchObject({ code: 'NOT_FOUND' });
    await blobs.putMany(chunks);
    const swapped = [...digests.slice(1), digests[0] as Digest];
    await expect(blobs.putChunked(whole.digest, swapped)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    expect(await blobs.missing([whole.digest])).toEqual([whole.digest]);
  });
});

test('a death at any step of the exchange leaves the blob, in one form or the other', async () => {
  const { whole, chunks } = chunkedBlob(sizes);
  await subject[Symbol.asyncDispose]();
  let mayUnlink = true;
  const fs: FsPort = {
    ...nodeFs,
    unlink: (path) => (mayUnlink ? nodeFs.unlink(path) : Promise.reject(new Error('died before'))),
  };
  subject = await tempStore({ fs });
  await subject.store.blobs.put(whole.digest, chunksOf(whole.bytes));
  await subject.store.blobs.putMany(chunks);
  mayUnlink = false;
  await subject.store.blobs.putChunked(whole.digest, digestsOf(chunks));
  mayUnlink = true;
  await subject.reopen();
  expect(Buffer.from((await subject.store.blobs.get(whole.digest)) ?? []).equals(whole.bytes)).toBe(true);
  expect(await subject.store.verify()).toMatchObject({ dropped: [], strayFiles: 1 });
  await expect(stat(subject.fileOf(whole.digest))).rejects.toMatchObject({ code: 'ENOENT' });
  expect(Buffer.from((await subject.store.blobs.get(whole.digest)) ?? []).equals(whole.bytes)).toBe(true);
});
