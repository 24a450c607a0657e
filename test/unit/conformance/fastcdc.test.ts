import { createCipheriv } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { chunkSizes } from '../../conformance/fastcdc.ts';

function noise(sizeBytes: number): Buffer {
  return createCipheriv('aes-128-ctr', Buffer.alloc(16, 1), Buffer.alloc(16)).update(Buffer.alloc(sizeBytes));
}

describe('the boundaries that servers are held against', () => {
  it('keep to a quarter and four times of the average', () => {
    for (const avgBytes of [1024, 8192, 65_536]) {
      const sizes = chunkSizes(noise(avgBytes * 40), { avgBytes, seed: 0 });
      expect(sizes.reduce((sum, size) => sum + size, 0)).toBe(avgBytes * 40);
      expect(Math.max(...sizes)).toBeLessThanOrEqual(avgBytes * 4);
      expect(Math.min(...sizes.slice(0, -1))).toBeGreaterThanOrEqual(avgBytes / 4);
    }
  });

  it('cut uniform content at the maximum', () => {
    expect(chunkSizes(Buffer.alloc(10 * 4096, 7), { avgBytes: 4096, seed: 0 })).toEqual([16_384, 16_384, 8192]);
  });

  it('follow the content: what is put in front moves no later boundary', () => {
    const bytes = noise(200_000);
    const ends = (sizes: number[], from: number) =>
      new Set(
        sizes.map(
          (
            (at) => (size: number) =>
              (at += size)
          )(from),
        ),
      );
    const plain = ends(chunkSizes(bytes, { avgBytes: 4096, seed: 0 }), 0);
    const shifted = ends(chunkSizes(Buffer.concat([Buffer.from('in front'), bytes]), { avgBytes: 4096, seed: 0 }), -8);
    const common = [...plain].filter((end) => shifted.has(end));
    expect(common.length).toBeGreaterThan(plain.size * 0.8);
  });

  it('leave what is below the maximum whole', () => {
    expect(chunkSizes(noise(4 * 4096 - 1), { avgBytes: 4096, seed: 0 })).toEqual([4 * 4096 - 1]);
    expect(chunkSizes(Buffer.alloc(0), { avgBytes: 4096, seed: 0 })).toEqual([]);
  });
});
