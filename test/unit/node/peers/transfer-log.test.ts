import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import * as limits from '../../../../node/peers/limits.ts';
import { createTransferLog } from '../../../../node/peers/transfer-log.ts';

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

test('what came and went in a while is one line each, and nothing is said of nothing', () => {
  const lines: string[] = [];
  const log = createTransferLog((text) => lines.push(text));
  for (let at = 0; at < 1_000; at++) log.received('anna', 2_000);
  log.received('ben', 700);
  log.served('cleo', 3, 5_000_000);
  log.served('cleo', 0, 0);
  expect(lines).toEqual([]);
  vi.advanceTimersByTime(limits.transferLogMs);
  expect(lines.splice(0)).toEqual([
    'received 1000 blobs (2.0 MB) from anna, 1 blob (0.7 kB) from ben',
    'served 3 blobs (5.0 MB) to cleo',
  ]);
  vi.advanceTimersByTime(10 * limits.transferLogMs);
  expect(lines).toEqual([]);
});

test('of many members those with most are named; closing says the rest at once', () => {
  const lines: string[] = [];
  const log = createTransferLog((text) => lines.push(text));
  for (let at = 1; at <= limits.transferLogPeers + 2; at++) log.received(`peer${at}`, at * 1_000);
  log.close();
  const [line = ''] = lines;
  expect(
    line.startsWith(`received 1 blob (${limits.transferLogPeers + 2}.0 kB) from peer${limits.transferLogPeers + 2}`),
  ).toBe(true);
  expect(line.endsWith('2 blobs (3.0 kB) from 2 more')).toBe(true);
  vi.advanceTimersByTime(10 * limits.transferLogMs);
  expect(lines).toHaveLength(1);
});
