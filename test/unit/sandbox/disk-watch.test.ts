import { tmpdir } from 'node:os';
import { expect, test, vi } from 'vitest';
import { watchDisk } from '../../../sandbox/disk-watch.ts';

test('refuses to begin on a disk that is nearly full', async () => {
  const watch = watchDisk(tmpdir(), { freeBytesMin: Number.MAX_VALUE, intervalMs: 1, onLow: () => {} });
  await expect(watch).rejects.toMatchObject({ code: 'RESOURCE_EXHAUSTED' });
});

test('says once when the disk runs low, and what it found', async () => {
  const onLow = vi.fn();
  const settings = { freeBytesMin: 0, intervalMs: 1, onLow };
  // The bound is read at every look, which lets a test move it instead of filling a disk.
  const watch = await watchDisk(tmpdir(), settings);
  expect(watch.problem).toBeUndefined();
  settings.freeBytesMin = Number.MAX_VALUE;
  await vi.waitFor(() => expect(onLow).toHaveBeenCalled());
  expect(watch.problem).toMatchObject({ code: 'RESOURCE_EXHAUSTED' });
  watch[Symbol.dispose]();
  expect(onLow).toHaveBeenCalledTimes(1);
});
