import { expect, test } from 'vitest';
import { parseDuration, parseSize } from '../../../../node/config/quantities.ts';

test.each([
  ['0', 0],
  ['1024', 1024],
  ['50GB', 50e9],
  ['20GiB', 20 * 2 ** 30],
  ['1.5 kb', 1500],
  ['2TB', 2e12],
  [' 7 MiB ', 7 * 2 ** 20],
])('size %j is %d bytes', (text, value) => {
  expect(parseSize(text)).toEqual({ value });
});

test.each(['', 'GB', '-1', '1XB', '1e9', '9999999TB', '50G', '10%'])('size %j is refused', (text) => {
  expect(parseSize(text)).toEqual({ problem: expect.stringContaining('50GB') });
});

test.each([
  ['500ms', 500],
  ['90s', 90_000],
  ['10m', 600_000],
  ['1.5h', 5_400_000],
  ['1d', 86_400_000],
])('duration %j is %d ms', (text, value) => {
  expect(parseDuration(text)).toEqual({ value });
});

test.each(['', '10', 'm', '0s', '-1s', '10M', '1h30m'])('duration %j is refused', (text) => {
  expect(parseDuration(text)).toEqual({ problem: expect.stringContaining('10m') });
});
