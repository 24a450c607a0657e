import { expect, test } from 'vitest';
import { createSpace } from '../../../../node/storage/space.ts';
import type { IndexTotals } from '../../../../node/storage/store-index.ts';

const MiB = 1024 ** 2;
const noTotals: IndexTotals = {
  fileBlobs: 0,
  fileBytes: 0,
  fileDiskBytes: 0,
  smallBlobs: 0,
  smallBytes: 0,
  chunkedBlobs: 0,
  chunkedBytes: 0,
  results: 0,
};

/** The index has free pages, but perhaps not in a row; 100 KiB of the limit are left. */
function nearlyFull() {
  const totals = { ...noTotals, fileDiskBytes: 12 * MiB - 100 * 1024 };
  return createSpace({
    limitBytes: 16 * MiB,
    committer: {
      commit: async () => {},
      idle: async () => {},
      totals: () => totals,
      size: () => ({ fileBytes: 4 * MiB, usedBytes: MiB }),
    },
    evictBatch: async (place, excessBytes) => {
      if (place !== 'file' || excessBytes() <= 0) return 0;
      totals.fileDiskBytes -= MiB;
      return 1;
    },
  });
}

test('a long value counts as growth of the index, a short one finds free pages', async () => {
  const space = nearlyFull();
  expect(space.tryReserve({ fileBytes: 0, indexBytes: 200 * 1024 })).toBeUndefined();
  const first = space.tryReserve({ fileBytes: 0, indexBytes: 60 * 1024 });
  expect(first).toBeDefined();
  expect(space.usedBytes()).toBe(16 * MiB - 40 * 1024);
  expect(space.tryReserve({ fileBytes: 0, indexBytes: 60 * 1024 })).toBeUndefined();
  expect(space.tryReserve({ fileBytes: 0, indexBytes: 9_000 })).toBeDefined();
  first?.release();
  expect(space.tryReserve({ fileBytes: 0, indexBytes: 60 * 1024 })).toBeDefined();
});

test('files make room for a long value', async () => {
  const space = nearlyFull();
  await space.reserve({ fileBytes: 0, indexBytes: 200 * 1024 }, 'storing');
  expect(space.usedBytes()).toBeLessThanOrEqual(16 * MiB);
});
