import { constants, createZstdCompress, zstdCompressSync, zstdDecompressSync } from 'node:zlib';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { limits } from '../../../../node/reapi/limits.ts';
import { compressBlob, compressStream, decompressBlob, decompressStream } from '../../../../node/reapi/zstd.ts';
import { createFrameSplitter } from '../../../../node/reapi/zstd-frames.ts';

async function* of(chunks: readonly Uint8Array[]) {
  yield* chunks;
}
async function collect(chunks: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const all: Uint8Array[] = [];
  for await (const chunk of chunks) all.push(chunk);
  return Buffer.concat(all);
}

/** One frame, or one to skip, as clients may write them. */
const content = fc.oneof(
  fc.uint8Array({ maxLength: 500 }),
  fc.nat(400_000).map((length) => new Uint8Array(length).fill(7)),
);
const frame = fc.record({ content, checksum: fc.boolean(), size: fc.boolean() }).map(({ content, checksum, size }) => {
  const params = {
    [constants.ZSTD_c_checksumFlag]: Number(checksum),
    [constants.ZSTD_c_contentSizeFlag]: Number(size),
  };
  return { content, bytes: zstdCompressSync(content, { params }) };
});
const skippable = fc.tuple(fc.nat(15), fc.uint8Array({ maxLength: 40 })).map(([kind, payload]) => {
  const header = Buffer.alloc(8);
  header.writeUInt32LE(0x184d2a50 + kind);
  header.writeUInt32LE(payload.byteLength, 4);
  return { content: new Uint8Array(), bytes: Buffer.concat([header, payload]) };
});
const stream = fc.tuple(
  fc.array(fc.oneof(skippable, frame), { maxLength: 3 }),
  frame,
  fc.array(skippable, { maxLength: 1 }),
);

describe('any sequence of frames', () => {
  test('is decompressed, however it is cut', async () => {
    await fc.assert(
      fc.asyncProperty(stream, fc.integer({ min: 1, max: 70 }), async ([before, one, after], step) => {
        const frames = [...before, one, ...after];
        const whole = Buffer.concat(frames.map(({ content }) => content));
        const packed = Buffer.concat(frames.map(({ bytes }) => bytes));
        expect(decompressBlob(packed, whole.byteLength).length).toBe(whole.byteLength);
        const chunks = [];
        for (let at = 0; at < packed.byteLength; at += step) chunks.push(packed.subarray(at, at + step));
        expect((await collect(decompressStream(of(chunks), whole.byteLength))).equals(whole)).toBe(true);
      }),
      { numRuns: 40 },
    );
  });

  test('is refused when cut off, followed by other bytes, or of another size', async () => {
    await fc.assert(
      fc.asyncProperty(frame, fc.nat(), fc.uint8Array({ minLength: 1, maxLength: 9 }), async (frame, cut, junk) => {
        const size = frame.content.byteLength;
        fc.pre(junk[0] !== 0x28 && (junk[0] ?? 0) >>> 4 !== 5);
        const short = frame.bytes.subarray(0, cut % frame.bytes.byteLength);
        for (const bad of [short, Buffer.concat([frame.bytes, junk])]) {
          expect(() => decompressBlob(bad, size)).toThrow(/INVALID_ARGUMENT/);
          await expect(collect(decompressStream(of([bad]), size))).rejects.toThrow(/INVALID_ARGUMENT/);
        }
        expect(() => decompressBlob(frame.bytes, size + 1)).toThrow(/INVALID_ARGUMENT/);
        if (size === 0) return;
        expect(() => decompressBlob(frame.bytes, size - 1)).toThrow(/INVALID_ARGUMENT/);
        await expect(collect(decompressStream(of([frame.bytes]), size - 1))).rejects.toThrow(/INVALID_ARGUMENT/);
      }),
      { numRuns: 40 },
    );
  });
});

test('damaged frames are INVALID_ARGUMENT, not INTERNAL', async () => {
  const packed = zstdCompressSync(Buffer.from('some text to be damaged, some text to be damaged'.repeat(50)), {
    params: { [constants.ZSTD_c_checksumFlag]: 1 },
  });
  for (let at = 0; at < packed.byteLength; at += 1) {
    const bad = Buffer.from(packed);
    bad[at] = (bad[at] as number) ^ 0x55;
    await expect(collect(decompressStream(of([bad]), 2400))).rejects.toThrow(/INVALID_ARGUMENT/);
    expect(() => decompressBlob(bad, 2400)).toThrow(/INVALID_ARGUMENT/);
  }
});

test('a field of very many frames is refused, a stream of them is not', async () => {
  const empty = zstdCompressSync(Buffer.alloc(0));
  const many = Buffer.concat(Array.from({ length: limits.zstdFramesMax + 1 }, () => empty));
  expect(() => decompressBlob(many, 0)).toThrow(/INVALID_ARGUMENT/);
  expect(await collect(decompressStream(of([many]), 0))).toHaveLength(0);
});

test('a frame that asks for more memory than a decompressor may have is refused', async () => {
  const packed = async (windowLog: number) => {
    const compressor = createZstdCompress({ params: { [constants.ZSTD_c_windowLog]: windowLog } });
    // Written in two parts, so that its size is not known when the window is chosen.
    compressor.write(Buffer.alloc(1000));
    compressor.flush();
    compressor.end(Buffer.alloc(1000));
    return Buffer.from(await collect(compressor));
  };
  expect(await collect(decompressStream(of([await packed(limits.zstdWindowLogMax)]), 2000))).toHaveLength(2000);
  const greedy = await packed(limits.zstdWindowLogMax + 1);
  await expect(collect(decompressStream(of([greedy]), 2000))).rejects.toThrow(/INVALID_ARGUMENT/);
  expect(() => decompressBlob(greedy, 2000)).toThrow(/INVALID_ARGUMENT/);
});

test('a source that fails passes its own error on', async () => {
  async function* broken() {
    yield zstdCompressSync(Buffer.alloc(1000)).subarray(0, 5);
    throw new RangeError('lost');
  }
  await expect(collect(decompressStream(broken(), 1000))).rejects.toThrow(RangeError);
  await expect(collect(compressStream(broken(), 1000))).rejects.toThrow(RangeError);
});

test('what broke off gives what it held', async () => {
  const whole = Buffer.alloc(1_000_000, 'potluck');
  const packed = Buffer.concat([compressBlob(whole.subarray(0, 600_000)), compressBlob(whole.subarray(600_000))]);
  const cut = packed.subarray(0, packed.byteLength - 10);
  const part = await collect(decompressStream(of([cut]), whole.byteLength, () => true));
  expect(part.byteLength).toBeGreaterThanOrEqual(600_000);
  expect(part.equals(whole.subarray(0, part.byteLength))).toBe(true);
});

test('compressing a stream gives one frame', async () => {
  const parts = [Buffer.alloc(100_000, 1), Buffer.alloc(5, 2)];
  const packed = await collect(compressStream(of(parts), 100_005));
  const splitter = createFrameSplitter();
  splitter.push(packed);
  splitter.end();
  expect(splitter.frames).toBe(1);
  expect(zstdDecompressSync(packed).equals(Buffer.concat(parts))).toBe(true);
});
