import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import * as limits from '../../../../mesh/net/data/limits.ts';
import { createUploads } from '../../../../mesh/net/data/uploads.ts';
import * as wire from '../../../../mesh/net/data/wire.ts';
import { type Digest, digestKey } from '../../../../protos/digest.ts';
import { randomBlob } from '../../../contract/blobs.ts';

describe('digests and ranges', () => {
  test('are read as they are written', () => {
    const { digest } = randomBlob(1_000, 'blake3');
    expect(wire.parseDigestKey(digestKey(digest))).toEqual(digest);
    fc.assert(
      fc.property(fc.nat(999), fc.integer({ min: 1, max: 1_000 }), (offset, length) => {
        const range = { offset, length: Math.min(length, 1_000 - offset) };
        expect(wire.parseRangeHeader(wire.rangeHeader(range), digest)).toEqual(range);
      }),
    );
    expect(wire.parseRangeHeader(undefined, digest)).toEqual({ offset: 0, length: 1_000 });
  });

  test.each(['bytes=5-4', 'bytes=0-1000', 'bytes=-5', 'bytes=5-', 'bytes=0-1,3-4', 'bytes=99999999999999999-1', 'x'])(
    'the range %s is refused',
    (header) => {
      expect(() => wire.parseRangeHeader(header, randomBlob(1_000).digest)).toThrow('OUT_OF_RANGE');
    },
  );

  test.each([
    '',
    'sha256',
    'sha256/aa/5',
    'toString/aa/5',
    `sha256/${'a'.repeat(64)}/-1`,
    `sha256/${'a'.repeat(64)}/1e3`,
  ])('"%s" is no digest', (text) => {
    expect(() => wire.parseDigestKey(text)).toThrow('INVALID_ARGUMENT');
  });

  test('a batch of too many blobs, too many bytes or one too large is refused', () => {
    const of = (sizeBytes: number): Digest => ({ ...randomBlob(1).digest, sizeBytes });
    expect(() => wire.checkBatch(Array.from({ length: limits.batchBlobsMax + 1 }, () => of(0)))).toThrow();
    expect(() => wire.checkBatch(Array.from({ length: 33 }, () => of(1024 * 1024)))).toThrow();
    expect(() => wire.checkBatch([of(limits.batchBlobBytesMax + 1)])).toThrow();
    wire.checkBatch([of(limits.batchBlobBytesMax)]);
  });
});

test('frames are read as they are written, however the bytes are cut', async () => {
  const size = fc.oneof(fc.constant(undefined), fc.nat(300));
  await fc.assert(
    fc.asyncProperty(
      fc.array(size, { maxLength: 12 }),
      fc.array(fc.nat(80), { maxLength: 40 }),
      async (sizes, cuts) => {
        const blobs = sizes.map((sizeBytes) => ({ ...randomBlob(sizeBytes ?? 7), isHeld: sizeBytes !== undefined }));
        const all = Buffer.concat(
          blobs.flatMap(({ isHeld, bytes }) => [wire.frameHead(isHeld), ...(isHeld ? [bytes] : [])]),
        );
        const parts: Uint8Array[] = [];
        let at = 0;
        for (const cut of [...cuts, all.length]) {
          parts.push(all.subarray(at, at + cut), new Uint8Array());
          at += cut;
        }
        const read: (Uint8Array | undefined)[] = [];
        const digests = blobs.map(({ digest }) => digest);
        for await (const { bytes } of wire.readFrames(digests, streamOf(parts))) read.push(bytes);
        expect(read.map((bytes) => bytes && Buffer.from(bytes))).toEqual(
          blobs.map(({ isHeld, bytes }) => (isHeld ? Buffer.from(bytes) : undefined)),
        );
        for (const wrong of [all.subarray(0, -1), Buffer.concat([all, Buffer.of(0)])]) {
          if (all.length === 0 && wrong.length === 0) continue;
          const reading = (async () => {
            for await (const _ of wire.readFrames(digests, streamOf([wrong])));
          })();
          await expect(reading).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
        }
      },
    ),
    { numRuns: 60 },
  );
});

async function* streamOf(parts: readonly Uint8Array[]): AsyncGenerator<Uint8Array> {
  yield* parts;
}

describe('turns', () => {
  const free = { uploadsMax: 2, uploadsPerPeerMax: 1, bytesPerSecond: undefined };
  const { signal } = new AbortController();

  test('what is urgent goes first, and nobody has more than its share', async () => {
    const uploads = createUploads(() => free);
    const first = await uploads.enter('anna', 'build', signal);
    const second = await uploads.enter('ben', 'build', signal);
    const order: string[] = [];
    const waiting = (['seed', 'ahead', 'build'] as const).map(async (urgency) => {
      using upload = await uploads.enter('cleo', urgency, signal);
      if (upload) order.push(urgency);
    });
    expect(uploads.active()).toBe(2);
    first?.[Symbol.dispose]();
    await Promise.all(waiting);
    expect(order).toEqual(['build', 'ahead', 'seed']);
    second?.[Symbol.dispose]();
    second?.[Symbol.dispose]();
    expect(uploads.active()).toBe(0);
  });

  test('who waits too long is refused, and on a link that serves nobody at once', async () => {
    const uploads = createUploads(() => free);
    using _ = await uploads.enter('anna', 'build', signal);
    expect(await uploads.enter('anna', 'build', signal)).toBeUndefined();
    const closed = createUploads(() => ({ ...free, uploadsMax: 0 }));
    expect(await closed.enter('anna', 'build', signal)).toBeUndefined();
  });

  test('bytes are paid for, and waiting for them can be given up', async () => {
    const uploads = createUploads(() => ({ ...free, bytesPerSecond: 1_000 }));
    using upload = await uploads.enter('anna', 'build', signal);
    const abort = new AbortController();
    await upload?.pace(50, signal);
    let isPaid = false;
    const paying = upload?.pace(1_000_000, abort.signal).then(() => (isPaid = true));
    abort.abort();
    await expect(paying).rejects.toThrow();
    expect(isPaid).toBe(false);
  });
});
