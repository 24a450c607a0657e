import { createHash } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { chunkStream, createChunker } from '../../../../node/reapi/fastcdc.ts';
import { noise } from '../../../integration/reapi/harness.ts';

/**
 * The algorithm once more, as its papers put it: a 64-bit hash, one byte at a time, no halves and no tricks.
 * `strict` and `loose` are the masks for the average in use.
 */
function naiveCut(bytes: Uint8Array, averageBytes: number, seed: number, strict: bigint, loose: bigint): number {
  const length = Math.min(bytes.byteLength, averageBytes * 4);
  if (length <= averageBytes / 4) return length;
  let hash = 0n;
  for (let index = averageBytes / 4; index < length - (length % 2); index += 1) {
    const gear = createHash('md5').update(Buffer.alloc(64, bytes[index])).digest().readBigUInt64BE() ^ BigInt(seed);
    hash = BigInt.asUintN(64, (hash << 1n) + gear);
    const normal = Math.min(averageBytes, length) & ~1;
    if ((hash & (index < normal ? strict : loose)) === 0n) return index;
  }
  return length;
}

function lengths(bytes: Uint8Array, cut: (rest: Uint8Array) => number): number[] {
  const all: number[] = [];
  for (let at = 0; at < bytes.byteLength; at += all.at(-1) as number) all.push(cut(bytes.subarray(at)));
  return all;
}

describe('chunk boundaries', () => {
  // Recorded from a version whose boundaries, for both seeds, equal the vectors published with REAPI; their input is a
  // picture that is not kept here.
  test.each([
    [1024, 0, [1046, 1205, 1159, 376, 1071, 730, 1128, 1145, 332]],
    [16384, 0, [18448, 18388, 17110, 17331, 18178, 17028, 22859, 1730]],
    [16384, 666, [5491, 17443, 31657, 21803, 13789, 17847, 10473, 12569]],
    [524288, 0, [619003, 566807, 554631, 333340, 318577, 587153, 538434, 658357, 18002]],
    [1048576, 7, [438198, 1362758, 1104016, 1064782, 1177585, 1191641, 1621832, 427796]],
  ])('for an average of %d bytes and seed %d stay where they are', (averageBytes, seed, expected) => {
    const chunker = createChunker({ averageBytes, seed });
    expect(lengths(noise(averageBytes * 8, 42), chunker.cut)).toEqual(expected);
  });

  test('equal those of the plain algorithm', () => {
    const chunkers = [0, 666].map((seed) => ({ seed, chunker: createChunker({ averageBytes: 1024, seed }) }));
    const words = fc.array(fc.integer({ min: 1, max: 2 ** 31 }), { minLength: 1, maxLength: 4 });
    fc.assert(
      fc.property(words, fc.nat(6000), fc.constantFrom(...chunkers), (seeds, length, { seed, chunker }) => {
        const bytes = Buffer.concat(seeds.map((word) => noise(length, word)));
        const naive = lengths(bytes, (rest) => naiveCut(rest, 1024, seed, 0xd90103530000n, 0x1800035300n));
        expect(lengths(bytes, chunker.cut)).toEqual(naive);
      }),
      { numRuns: 15 },
    );
  });

  test('are bounded where the content never gives a reason', () => {
    const chunker = createChunker({ averageBytes: 1024, seed: 0 });
    expect(lengths(new Uint8Array(10_000), chunker.cut)).toEqual([4096, 4096, 1808]);
  });

  test('are those of the stream, however it arrives', async () => {
    const bytes = noise(60_000, 3);
    const chunker = createChunker({ averageBytes: 1024, seed: 0 });
    const expected = lengths(bytes, chunker.cut);
    for (const step of [1000, 4096, 50_000, 60_000]) {
      async function* content() {
        for (let at = 0; at < bytes.byteLength; at += step) yield bytes.subarray(at, at + step);
      }
      const chunks: Uint8Array[] = [];
      for await (const chunk of chunkStream(chunker, content())) chunks.push(chunk);
      expect(chunks.map(({ byteLength }) => byteLength)).toEqual(expected);
      expect(Buffer.concat(chunks).equals(bytes)).toBe(true);
    }
  });

  test('averages outside of what REAPI allows are refused', () => {
    for (const averageBytes of [512, 1000, 2 ** 21]) {
      expect(() => createChunker({ averageBytes, seed: 0 })).toThrow(/INVALID_ARGUMENT/);
    }
  });
});
