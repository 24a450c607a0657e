import { expect, test } from 'vitest';
import { count, formatBytes, formatDuration, formatTable } from '../../../../node/cli/format.ts';
import { nearest } from '../../../../node/config/nearest.ts';

test.each([
  [0, '0 B'],
  [999, '999 B'],
  [1000, '1 kB'],
  [1234, '1.2 kB'],
  [999_949, '1 MB'],
  [123_456_789, '123 MB'],
  [50e9, '50 GB'],
  [1.5e15, '1.5 PB'],
])('%d bytes read %s', (bytes, text) => {
  expect(formatBytes(bytes)).toBe(text);
});

test.each([
  [0.4, '0 ms'],
  [999, '999 ms'],
  [1300, '1.3 s'],
  [125_000, '2 min 5 s'],
  [10_920_000, '3 h 2 min'],
])('%d ms read %s', (ms, text) => {
  expect(formatDuration(ms)).toBe(text);
});

test('columns are as wide as their widest cell, and lines end without blanks', () => {
  expect(
    formatTable([
      ['a', 'bb', ''],
      ['ccc', 'd', 'e'],
    ]),
  ).toEqual(['a    bb', 'ccc  d   e']);
});

test('one is singular', () => {
  expect([count(1, 'blob'), count(0, 'blob'), count(12_345, 'blob')]).toEqual(['1 blob', '0 blobs', '12,345 blobs']);
});

test('a mistyped word finds its neighbour, a strange one none', () => {
  expect(nearest('stauts', ['up', 'status', 'run'])).toBe('status');
  expect(nearest('cachesize', ['cache-size', 'slots'])).toBe('cache-size');
  expect(nearest('frobnicate', ['up', 'status', 'run'])).toBeUndefined();
});
