import { mkdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { type Blob, chunksOf, randomBlob } from '../../../contract/blobs.ts';
import { diskUsage, tempStore } from './temp-store.ts';

const pick = <T>(from: readonly T[]): T => from[Math.floor(Math.random() * from.length)] as T;

test('under everything at once no byte is wrong, and in the end no space is lost', async () => {
  await using subject = await tempStore({ sizeLimitBytes: 16 * 1024 ** 2 });
  const { blobs } = subject.store;
  const out = join(subject.dataDir, '../out');
  await mkdir(out);
  const pool: Blob[] = [100, 5_000, 7_900, 8_100, 60_000, 300_000, 900_000].flatMap((sizeBytes) =>
    Array.from({ length: 24 }, () => randomBlob(sizeBytes)),
  );
  let linkCount = 0;

  const actions: ((blob: Blob) => Promise<void>)[] = [
    async ({ digest, bytes }) => blobs.put(digest, chunksOf(bytes, 50_000)),
    async ({ digest, bytes }) => blobs.put(digest, chunksOf(bytes, 50_000)),
    async () =>
      expect(await blobs.putMany([pick(pool), pick(pool), pick(pool)])).toEqual([undefined, undefined, undefined]),
    async ({ digest, bytes }) => {
      const held = await blobs.get(digest);
      if (held) expect(Buffer.compare(held, bytes)).toBe(0);
    },
    async ({ digest, bytes }) => {
      await using reader = await blobs.open(digest);
      const offset = Math.floor(Math.random() * digest.sizeBytes);
      let position = offset;
      for await (const chunk of reader?.read({ offset, length: digest.sizeBytes }) ?? []) {
        expect(Buffer.compare(chunk, bytes.subarray(position, position + chunk.byteLength))).toBe(0);
        position += chunk.byteLength;
        if (Math.random() < 0.2) break;
      }
    },
    async ({ digest }) => {
      using pin = await blobs.pin([digest, pick(pool).digest]);
      const missing = new Set(pin.missing.map(({ hash }) => hash));
      await blobs.putMany([pick(pool)]);
      if (!missing.has(digest.hash)) expect(await blobs.missing([digest])).toEqual([]);
    },
    async ({ digest, bytes }) => {
      const path = join(out, `${linkCount++}`);
      const isExecutable = Math.random() < 0.5;
      const how = Math.random() < 0.7 ? 'linkTo' : 'copyTo';
      if (!(await blobs[how](digest, path, { executable: isExecutable }))) return;
      expect((await readFile(path)).equals(bytes)).toBe(true);
      await rm(path);
    },
    async ({ digest, bytes }) => {
      const abort = new AbortController();
      const broken = (async function* () {
        yield bytes.subarray(0, 50);
        abort.abort();
        yield bytes.subarray(50);
      })();
      await blobs.put(digest, broken, { signal: abort.signal }).catch((error: { code?: string }) => {
        expect(error.code).toBe('CANCELLED');
      });
    },
    async ({ digest, bytes }) => {
      const wrong = Buffer.from(bytes);
      wrong[0] = (wrong[0] ?? 0) ^ 1;
      // It may succeed early when the right bytes come from elsewhere.
      await blobs.put(digest, chunksOf(wrong)).catch((error: { code?: string }) => {
        expect(error.code).toBe('INVALID_ARGUMENT');
      });
    },
  ];
  const worker = async (): Promise<void> => {
    for (let step = 0; step < 80; step++) {
      await pick(actions)(pick(pool));
      expect(subject.store.stats().usedBytes).toBeLessThanOrEqual(16 * 1024 ** 2);
    }
  };
  await Promise.all(Array.from({ length: 10 }, worker));

  expect(await subject.store.verify()).toMatchObject({ dropped: [], strayFiles: 0 });
  expect(subject.store.stats()).toMatchObject({ pinnedBlobs: 0, counters: { badBlobs: 0 } });
  expect(subject.store.stats().counters.evictedBlobs).toBeGreaterThan(20);
  await subject.store.gc({ targetBytes: 0 });
  const { usedBytes, blobs: left } = subject.store.stats();
  expect(left).toBe(0);
  // The lock file of the index and directories of more than one block are all that is not counted.
  expect(Math.abs(usedBytes - (await diskUsage(subject.dataDir)))).toBeLessThan(64 * 1024);
});
