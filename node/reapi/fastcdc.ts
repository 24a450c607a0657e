/**
 * FastCDC 2020: cuts a stream where its content says so, so that equal stretches of different blobs give equal chunks.
 *
 * Gear hash over 64 bits, normalisation level 2, shortest chunk a quarter of the average, longest four times the average,
 * as REAPI fixes it. No mask has a bit above the 48th, and carries only move upwards, so the hash is kept modulo 2^48, in
 * two halves of 24 bits that stay within small integers.
 *
 * @see Xia et al., "The Design of Fast Content-Defined Chunking for Data Deduplication Based Storage Systems" (2020);
 *   REAPI v2.12, message FastCdc2020Params
 */
import { createHash } from 'node:crypto';
import { StatusError } from '../../protos/status.ts';

export interface ChunkerParams {
  /** A power of two from 1 KiB to 1 MiB. */
  readonly averageBytes: number;
  /** Shortest and longest chunk; by default a quarter of the average and four times the average. */
  readonly minBytes?: number;
  readonly maxBytes?: number;
  readonly seed: number;
}

/** Masks by the binary logarithm of the chunk size they aim at, from 2^8; of the algorithm's reference implementation. */
const masks = [
  0x1800035300n,
  0x19000353000n,
  0x590003530000n,
  0xd90003530000n,
  0xd90103530000n,
  0xd90303530000n,
  0xd90313530000n,
  0xd90f03530000n,
  0xd90303537000n,
  0xd90703537000n,
  0xd90707537000n,
  0xd91707537000n,
  0xd91747537000n,
  0xd91767537000n,
  0xd93767537000n,
];
const smallestMaskBits = 8;
const normalization = 2;

const low24 = 0xffffff;
const lowHalf = (value: bigint) => Number(value & 0xffffffn);
const highHalf = (value: bigint) => Number((value >> 24n) & 0xffffffn);

/**
 * 64 pseudo-random bits for each value of a byte: the first half of the MD5 of 64 such bytes. REAPI's text speaks of one
 * byte; its test vectors, and the implementations it names, hash 64. A seed is mixed into all of them.
 */
function gearTable(seed: number): { readonly low: Int32Array; readonly high: Int32Array } {
  const low = new Int32Array(256);
  const high = new Int32Array(256);
  for (let byte = 0; byte < 256; byte += 1) {
    const gear = createHash('md5').update(Buffer.alloc(64, byte)).digest().readBigUInt64BE() ^ BigInt(seed);
    low[byte] = lowHalf(gear);
    high[byte] = highHalf(gear);
  }
  return { low, high };
}

export interface Chunker {
  readonly minBytes: number;
  readonly maxBytes: number;
  /**
   * Length of the first chunk of `bytes`, which must reach to the end of the content or hold at least `maxBytes`.
   */
  readonly cut: (bytes: Uint8Array) => number;
}

export function createChunker({ averageBytes, minBytes, maxBytes, seed }: ChunkerParams): Chunker {
  const bits = Math.log2(averageBytes);
  if (!Number.isInteger(bits) || bits < 10 || bits > 20) {
    throw new StatusError(
      'INVALID_ARGUMENT',
      `average chunk size ${averageBytes} is no power of two from 1 KiB to 1 MiB`,
    );
  }
  const min = minBytes ?? averageBytes / 4;
  const max = maxBytes ?? averageBytes * 4;
  const gear = gearTable(seed);
  const strict = masks[bits + normalization - smallestMaskBits] as bigint;
  const loose = masks[bits - normalization - smallestMaskBits] as bigint;
  const strictLow = lowHalf(strict);
  const strictHigh = highHalf(strict);
  const looseLow = lowHalf(loose);
  const looseHigh = highHalf(loose);

  return {
    minBytes: min,
    maxBytes: max,
    cut(bytes) {
      const length = Math.min(bytes.byteLength, max);
      if (length <= min) return length;
      const { low: gearLow, high: gearHigh } = gear;
      // The reference steps by pairs of bytes, so the bounds of its two phases are even.
      const normal = Math.min(averageBytes, length) & ~1;
      const end = length & ~1;
      let low = 0;
      let high = 0;
      let index = min & ~1;
      for (; index < normal; index += 1) {
        const byte = bytes[index] as number;
        low = (low << 1) + (gearLow[byte] as number);
        high = ((high << 1) + (gearHigh[byte] as number) + (low >>> 24)) & low24;
        low &= low24;
        if ((low & strictLow) === 0 && (high & strictHigh) === 0) return index;
      }
      for (; index < end; index += 1) {
        const byte = bytes[index] as number;
        low = (low << 1) + (gearLow[byte] as number);
        high = ((high << 1) + (gearHigh[byte] as number) + (low >>> 24)) & low24;
        low &= low24;
        if ((low & looseLow) === 0 && (high & looseHigh) === 0) return index;
      }
      return length;
    },
  };
}

/** The chunks of a stream, in order; each is a copy. Holds at most `maxBytes` and one piece of the stream. */
export async function* chunkStream(chunker: Chunker, content: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  let buffer = Buffer.alloc(chunker.maxBytes * 2);
  let start = 0;
  let end = 0;
  const take = () => {
    const length = chunker.cut(buffer.subarray(start, end));
    const chunk = Uint8Array.prototype.slice.call(buffer, start, start + length);
    start += length;
    return chunk;
  };
  for await (const piece of content) {
    if (end + piece.byteLength > buffer.byteLength) {
      const needed = end - start + piece.byteLength;
      const target = needed > buffer.byteLength ? Buffer.alloc(needed) : buffer;
      buffer.copy(target, 0, start, end);
      buffer = target;
      end -= start;
      start = 0;
    }
    buffer.set(piece, end);
    end += piece.byteLength;
    while (end - start >= chunker.maxBytes) yield take();
  }
  while (start < end) yield take();
}
