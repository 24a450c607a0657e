/** What every blob store does, whatever it is made of. Call it inside a `describe`. */
import * as fc from 'fast-check';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { BlobStore } from '../../node/storage/blob-store.ts';
import { digestFunctionNames, emptyDigest } from '../../protos/digest.ts';
import { blobOf, chunksOf, otherHash, randomBlob, readAll } from './blobs.ts';

export interface StoreUnderTest extends AsyncDisposable {
  readonly store: BlobStore;
}

/** Below and above every size at which a store may change its ways. */
const sizes = [1, 100, 4_096, 8_000, 8_001, 100_000, 700_000];

export function blobStoreContract(open: () => Promise<StoreUnderTest>): void {
  let subject: StoreUnderTest;
  let store: BlobStore;

  beforeEach(async () => {
    subject = await open();
    store = subject.store;
  });
  afterEach(async () => {
    await subject[Symbol.asyncDispose]();
  });

  test.each(sizes)('a blob of %i bytes comes back as it was put', async (sizeBytes) => {
    const { digest, bytes } = randomBlob(sizeBytes);
    expect(await store.missing([digest])).toEqual([digest]);
    expect(await store.get(digest)).toBeUndefined();
    expect(await store.open(digest)).toBeUndefined();

    await store.put(digest, chunksOf(bytes));

    expect(await store.missing([digest])).toEqual([]);
    expect(Buffer.from((await store.get(digest)) ?? [])).toEqual(bytes);
    await using reader = await store.open(digest);
    expect(reader && (await readAll(reader))).toEqual(bytes);
  });

  test('bytes stay what they are when others are read after them', async () => {
    const blobs = [randomBlob(500), randomBlob(7_000), randomBlob(500), randomBlob(30_000)];
    await store.putMany(blobs);
    const held = [];
    for (const { digest } of blobs) held.push(await store.get(digest));
    expect(held.map((bytes) => Buffer.from(bytes ?? []))).toEqual(blobs.map(({ bytes }) => bytes));
  });

  test.each(digestFunctionNames)('%s works for small and large blobs', async (fn) => {
    for (const sizeBytes of [50, 50_000]) {
      const { digest, bytes } = randomBlob(sizeBytes, fn);
      await store.put(digest, chunksOf(bytes));
      expect(Buffer.from((await store.get(digest)) ?? [])).toEqual(bytes);
    }
  });

  test('the digest function is part of the key', async () => {
    const bytes = Buffer.from('the same bytes');
    await store.put(blobOf(bytes, 'sha256').digest, chunksOf(bytes));
    const blake3 = blobOf(bytes, 'blake3').digest;
    expect(await store.missing([blake3])).toEqual([blake3]);
    const otherName = { ...blobOf(bytes, 'sha256').digest, fn: 'blake3' as const };
    expect(await store.missing([otherName])).toEqual([otherName]);
  });

  test('the size is part of the key', async () => {
    for (const sizeBytes of [10, 50_000]) {
      const { digest, bytes } = randomBlob(sizeBytes);
      await store.put(digest, chunksOf(bytes));
      const longer = { ...digest, sizeBytes: sizeBytes + 1 };
      expect(await store.missing([longer])).toEqual([longer]);
      expect(await store.open(longer)).toBeUndefined();
      await expect(store.put(longer, chunksOf(bytes))).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    }
  });

  test.each(digestFunctionNames)('the empty blob of %s is always present', async (fn) => {
    const digest = emptyDigest(fn);
    expect(await store.missing([digest])).toEqual([]);
    expect((await store.get(digest))?.byteLength).toBe(0);
    await using reader = await store.open(digest);
    expect(reader && (await readAll(reader))).toHaveLength(0);
    await store.put(digest, chunksOf(Buffer.alloc(0)));
    expect(await store.putMany([{ digest, bytes: new Uint8Array() }])).toEqual([undefined]);
    expect(await store.missing([digest])).toEqual([]);
  });

  test('size zero with another hash is not the empty blob', async () => {
    const digest = otherHash(emptyDigest('sha256'));
    expect(await store.missing([digest])).toEqual([digest]);
    await expect(store.put(digest, chunksOf(Buffer.alloc(0)))).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
  });

  test('missing keeps the order and names each digest once', async () => {
    const [a, b, c] = [randomBlob(10), randomBlob(20_000), randomBlob(30)];
    await store.put(b.digest, chunksOf(b.bytes));
    expect(await store.missing([c.digest, a.digest, b.digest, c.digest])).toEqual([c.digest, a.digest]);
    expect(await store.missing([])).toEqual([]);
  });

  test('ranges are served exactly', async () => {
    for (const sizeBytes of [3_000, 600_000]) {
      const { digest, bytes } = randomBlob(sizeBytes);
      await store.put(digest, chunksOf(bytes));
      await using reader = await store.open(digest);
      if (!reader) throw new Error('not held');
      await fc.assert(
        fc.asyncProperty(fc.nat(sizeBytes), fc.nat(2 * sizeBytes), async (offset, length) => {
          const part = await readAll(reader, { offset, length });
          expect(part.equals(bytes.subarray(offset, offset + length))).toBe(true);
        }),
        { numRuns: 30 },
      );
    }
  });

  test('chunks are bounded and stay valid', async () => {
    const { digest, bytes } = randomBlob(2_000_000);
    await store.put(digest, chunksOf(bytes));
    await using reader = await store.open(digest);
    const chunks: Uint8Array[] = [];
    for await (const chunk of reader?.read() ?? []) chunks.push(chunk);
    expect(Math.max(...chunks.map((chunk) => chunk.byteLength))).toBeLessThanOrEqual(512 * 1024);
    expect(Buffer.concat(chunks).equals(bytes)).toBe(true);
  });

  test('a reader may stop early', async () => {
    const { digest, bytes } = randomBlob(2_000_000);
    await store.put(digest, chunksOf(bytes));
    await using reader = await store.open(digest);
    for await (const _ of reader?.read() ?? []) break;
    expect(reader && (await readAll(reader))).toHaveLength(bytes.length);
  });

  test.each([
    ['small', 100],
    ['large', 100_000],
  ])('wrong bytes of a %s blob are refused and nothing becomes visible', async (_, sizeBytes) => {
    const { digest, bytes } = randomBlob(sizeBytes);
    const flipped = Buffer.from(bytes);
    flipped[50] = (flipped[50] ?? 0) ^ 1;
    const attempts = [flipped, bytes.subarray(1), Buffer.concat([bytes, Buffer.of(0)]), Buffer.alloc(0)];
    for (const attempt of attempts) {
      await expect(store.put(digest, chunksOf(attempt))).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
      expect(await store.putMany([{ digest, bytes: attempt }])).toMatchObject([{ code: 'INVALID_ARGUMENT' }]);
      expect(await store.missing([digest])).toEqual([digest]);
    }
    await store.put(digest, chunksOf(bytes));
    expect(await store.missing([digest])).toEqual([]);
  });

  test('putMany gives one outcome each, in order', async () => {
    const blobs = [randomBlob(10), randomBlob(50_000), randomBlob(20), randomBlob(60_000)];
    const wrong = { digest: otherHash(randomBlob(30).digest), bytes: Buffer.alloc(30) };
    const [a, b, c, d] = blobs;
    if (!a || !b || !c || !d) throw new Error('four blobs');
    const outcomes = await store.putMany([a, wrong, b, c, a, d]);
    expect(outcomes.map((outcome) => outcome && (outcome as { code?: string }).code)).toEqual([
      undefined,
      'INVALID_ARGUMENT',
      undefined,
      undefined,
      undefined,
      undefined,
    ]);
    expect(await store.missing([...blobs, wrong].map(({ digest }) => digest))).toEqual([wrong.digest]);
    expect(await store.putMany([])).toEqual([]);
  });

  test('putting a held blob ends at once and lets the stream go', async () => {
    for (const sizeBytes of [100, 100_000]) {
      const { digest, bytes } = randomBlob(sizeBytes);
      await store.put(digest, chunksOf(bytes));
      const stream = stalled(bytes);
      await store.put(digest, stream);
      expect(stream.wasReturned()).toBe(true);
    }
  });

  test('many puts of one blob at once all succeed', async () => {
    for (const sizeBytes of [100, 300_000]) {
      const { digest, bytes } = randomBlob(sizeBytes);
      await Promise.all(Array.from({ length: 10 }, () => store.put(digest, chunksOf(bytes, 7_777))));
      expect(Buffer.from((await store.get(digest)) ?? [])).toEqual(bytes);
    }
  });

  test('a put whose stream stalls ends when another put brings the blob', async () => {
    for (const sizeBytes of [100, 300_000]) {
      const { digest, bytes } = randomBlob(sizeBytes);
      const stream = stalled(bytes.subarray(0, 50));
      const slow = store.put(digest, stream);
      await stream.isWaiting;
      await store.put(digest, chunksOf(bytes));
      await slow;
    }
  });

  test('a put whose stream fails leaves nothing, and others of the same blob go on', async () => {
    for (const sizeBytes of [100, 300_000]) {
      const { digest, bytes } = randomBlob(sizeBytes);
      const broken = (async function* () {
        yield bytes.subarray(0, 50);
        throw new Error('connection lost');
      })();
      const outcomes = await Promise.allSettled([store.put(digest, broken), store.put(digest, chunksOf(bytes))]);
      expect(outcomes[1].status).toBe('fulfilled');
      expect(await store.missing([digest])).toEqual([]);
    }
  });

  test('abort ends a put that waits for its stream', async () => {
    for (const sizeBytes of [100, 300_000]) {
      const { digest, bytes } = randomBlob(sizeBytes);
      const stream = stalled(bytes.subarray(0, 50));
      const abort = new AbortController();
      const put = store.put(digest, stream, { signal: abort.signal });
      await stream.isWaiting;
      abort.abort();
      await expect(put).rejects.toMatchObject({ code: 'CANCELLED' });
      expect(await store.missing([digest])).toEqual([digest]);
      await store.put(digest, chunksOf(bytes));
    }
  });

  test('any sequence of puts and reads behaves like a map', async () => {
    const pool = [0, 1, 30, 7_999, 8_001, 40_000].map((sizeBytes) => randomBlob(sizeBytes));
    const held = new Set(['0']);
    const command = fc.record({
      what: fc.constantFrom('put', 'putMany', 'get', 'missing'),
      at: fc.nat(pool.length - 1),
    });
    await fc.assert(
      fc.asyncProperty(command, async ({ what, at }) => {
        const { digest, bytes } = pool[at] ?? randomBlob(1);
        if (what === 'put') await store.put(digest, chunksOf(bytes));
        if (what === 'putMany') expect(await store.putMany([{ digest, bytes }])).toEqual([undefined]);
        if (what === 'put' || what === 'putMany') held.add(String(at));
        const isHeld = held.has(String(at));
        if (what === 'get') expect((await store.get(digest))?.byteLength).toBe(isHeld ? bytes.byteLength : undefined);
        if (what === 'missing') expect(await store.missing([digest])).toEqual(isHeld ? [] : [digest]);
      }),
      { numRuns: 60 },
    );
  });
}

/** Yields `bytes`, then waits for good, like a client that went to sleep. */
function stalled(bytes: Uint8Array) {
  const waiting = Promise.withResolvers<void>();
  let returned = false;
  let isFirst = true;
  return {
    isWaiting: waiting.promise,
    wasReturned: () => returned,
    [Symbol.asyncIterator](): AsyncIterator<Uint8Array> {
      return {
        async next() {
          if (isFirst) {
            isFirst = false;
            return { done: false, value: bytes };
          }
          waiting.resolve();
          return new Promise(() => {});
        },
        async return() {
          returned = true;
          return { done: true, value: undefined };
        },
      };
    },
  };
}
