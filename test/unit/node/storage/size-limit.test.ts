import { setTimeout as pause, setImmediate as turn } from 'node:timers/promises';
import { expect, test } from 'vitest';
import type { Digest } from '../../../../protos/digest.ts';
import { chunksOf, randomBlob, type Blob } from '../../../contract/blobs.ts';
import { diskUsage, tempStore } from './temp-store.ts';

const mib = 1024 ** 2;
const limit = { sizeLimitBytes: 16 * mib };

async function putAll(
  store: { put(digest: Digest, content: AsyncIterable<Uint8Array>): Promise<void> },
  blobs: Blob[],
) {
  for (const { digest, bytes } of blobs) await store.put(digest, chunksOf(bytes, 65_536));
}

test('disk use stays at or below the limit at every instant, and writes go on', async () => {
  await using subject = await tempStore(limit);
  let isDone = false;
  const samples: number[] = [];
  const sampling = (async () => {
    while (!isDone) {
      samples.push(await diskUsage(subject.dataDir));
      // Looking is work too, and the writers are to press against the limit.
      await pause(5);
    }
  })();
  const writer = async (sizeBytes: number, count: number): Promise<void> => {
    for (let i = 0; i < count; i++) await putAll(subject.store.blobs, [randomBlob(sizeBytes)]);
  };
  await Promise.all([writer(mib, 40), writer(300_000, 60), writer(20_000, 100), writer(2_000, 300)]);
  const batch = Array.from({ length: 2_000 }, () => randomBlob(3_000));
  expect((await subject.store.blobs.putMany(batch)).filter((outcome) => outcome !== undefined)).toEqual([]);
  isDone = true;
  await sampling;

  expect(samples.length).toBeGreaterThan(10);
  expect(Math.max(...samples)).toBeLessThanOrEqual(limit.sizeLimitBytes);
  const { usedBytes, counters } = subject.store.stats();
  expect(usedBytes).toBeLessThanOrEqual(limit.sizeLimitBytes);
  expect(counters.evictedBlobs).toBeGreaterThan(100);
  expect(await subject.store.verify()).toMatchObject({ dropped: [], strayFiles: 0 });
});

test.each([
  ['large', 500_000, 4, 15],
  ['small', 4_000, 40, 40],
])('of %s blobs the longest unused go first', async (_, sizeBytes, count, rounds) => {
  await using subject = await tempStore(limit);
  const { blobs } = subject.store;
  const kept = randomBlob(sizeBytes);
  const forgotten = randomBlob(sizeBytes);
  await putAll(blobs, [kept, forgotten]);
  for (let i = 0; i < rounds; i++) {
    await blobs.putMany(Array.from({ length: count }, () => randomBlob(sizeBytes)));
    expect(await blobs.missing([kept.digest])).toEqual([]);
  }
  expect(await blobs.missing([forgotten.digest])).toEqual([forgotten.digest]);
});

test('what was called present stays while little is written, also in the midst of evictions', async () => {
  await using subject = await tempStore(limit);
  const { blobs } = subject.store;
  const written: Digest[] = [];
  const promised: { digest: Digest; until: number }[] = [];
  const rounds = 250;
  const write = async (): Promise<void> => {
    while (written.length < rounds) {
      const blob = randomBlob(200_000);
      await putAll(blobs, [blob]);
      written.push(blob.digest);
    }
  };
  const ask = async (): Promise<void> => {
    while (written.length < rounds) {
      // The oldest that may be left are the ones that evictions are after.
      const digest = written[written.length - 40 - Math.floor(Math.random() * 30)];
      if (digest && (await blobs.missing([digest])).length === 0) promised.push({ digest, until: written.length + 15 });
      const [first] = promised;
      if (first && first.until <= written.length) promised.shift();
      else if (first) expect(await blobs.missing([first.digest])).toEqual([]);
      await turn();
    }
  };
  await Promise.all([write(), write(), ask()]);
  expect(subject.store.stats().counters.evictedBlobs).toBeGreaterThan(100);
});

test('use is remembered over a restart', async () => {
  await using subject = await tempStore(limit);
  const [first, second] = [randomBlob(mib), randomBlob(mib)];
  await putAll(subject.store.blobs, [first, second]);
  await subject.store.blobs.missing([first.digest]);
  await subject.reopen();
  await subject.store.gc({ targetBytes: subject.store.stats().usedBytes - 1 });
  expect(await subject.store.blobs.missing([first.digest, second.digest])).toEqual([second.digest]);
});

test('pinned blobs and open ones stay; with nothing else to evict a write is refused and says why', async () => {
  await using subject = await tempStore(limit);
  const { blobs } = subject.store;
  const pinned = Array.from({ length: 10 }, () => randomBlob(mib));
  const read = randomBlob(mib);
  await putAll(blobs, [...pinned, read]);
  const pin = await blobs.pin(pinned.map(({ digest }) => digest));
  expect(pin.missing).toEqual([]);
  const reader = await blobs.open(read.digest);
  expect(subject.store.stats().pinnedBlobs).toBe(11);

  const large = randomBlob(8 * mib);
  const refused = blobs.put(large.digest, chunksOf(large.bytes));
  await expect(refused).rejects.toMatchObject({ code: 'RESOURCE_EXHAUSTED' });
  await expect(refused).rejects.toThrow(/16777216 bytes.*--cache-size/);
  expect(await blobs.missing([...pinned, read].map(({ digest }) => digest))).toEqual([]);

  pin[Symbol.dispose]();
  pin[Symbol.dispose]();
  await reader?.[Symbol.asyncDispose]();
  await blobs.put(large.digest, chunksOf(large.bytes));
  expect(subject.store.stats().pinnedBlobs).toBe(0);
});

test('a pin names what is not held', async () => {
  await using subject = await tempStore(limit);
  const [held, absent] = [randomBlob(10), randomBlob(10)];
  await putAll(subject.store.blobs, [held]);
  using pin = await subject.store.blobs.pin([absent.digest, held.digest, absent.digest]);
  expect(pin.missing).toEqual([absent.digest]);
});

test('a blob that can never fit is refused at once', async () => {
  await using subject = await tempStore(limit);
  const { digest } = randomBlob(10);
  const huge = { ...digest, sizeBytes: 17 * mib };
  await expect(subject.store.blobs.put(huge, chunksOf(Buffer.alloc(1)))).rejects.toMatchObject({
    code: 'RESOURCE_EXHAUSTED',
  });
});

test('a write waits for others under way to make room', async () => {
  await using subject = await tempStore(limit);
  const { blobs } = subject.store;
  const all = Array.from({ length: 12 }, () => randomBlob(4 * mib));
  await Promise.all(all.map(({ digest, bytes }) => blobs.put(digest, chunksOf(bytes, 100_000))));
  expect(subject.store.stats().usedBytes).toBeLessThanOrEqual(limit.sizeLimitBytes);
});

test('gc evicts down to a target', async () => {
  await using subject = await tempStore(limit);
  await putAll(
    subject.store.blobs,
    Array.from({ length: 10 }, () => randomBlob(mib)),
  );
  const { evictedBlobs } = await subject.store.gc({ targetBytes: 6 * mib });
  expect(evictedBlobs).toBeGreaterThan(3);
  expect(subject.store.stats().usedBytes).toBeLessThanOrEqual(6 * mib);
  expect(subject.store.stats().blobs).toBe(10 - evictedBlobs);
});

test('a limit below the least is refused', async () => {
  await expect(tempStore({ sizeLimitBytes: 1000 })).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
});
