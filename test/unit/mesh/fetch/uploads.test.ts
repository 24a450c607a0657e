import { expect, test } from 'vitest';
import * as limits from '../../../../mesh/core/fetch/limits.ts';
import type { Part, UploadEffect } from '../../../../mesh/core/fetch/types.ts';
import { createUploads, type Uploads } from '../../../../mesh/core/fetch/uploads.ts';

const mib = 1024 * 1024;
const range = (blob: string, index = 0): Part => ({
  blob,
  offset: index * limits.rangeBytes,
  lengthBytes: limits.rangeBytes,
  whole: false,
});
const small = (blob: string): Part => ({ blob, offset: 0, lengthBytes: 1_000, whole: true });

let next = 0;
function ask(uploads: Uploads, to: string, parts: readonly Part[], nowMs = 0): UploadEffect {
  next += 1;
  return uploads.step({ kind: 'asked', upload: next, to, parts }, nowMs)[0] as UploadEffect;
}

test('what is sent stays within the budget, and a refusal says when there will be some', () => {
  const uploads = createUploads({ bytesPerSecond: 10 * mib, uploadsMax: 100 }, 0);
  let sent = 0;
  let refused = 0;
  for (let nowMs = 0; nowMs < 10_000; nowMs += 10) {
    const effect = ask(uploads, `node-${nowMs}`, [{ ...range(`blob ${nowMs}`), lengthBytes: mib }], nowMs);
    if (effect.kind === 'refuse') {
      refused += 1;
      expect(effect.retryAfterMs).toBeGreaterThan(0);
      continue;
    }
    sent += mib;
    uploads.step({ kind: 'sent', upload: effect.upload, sentBytes: mib }, nowMs);
  }
  expect(refused).toBeGreaterThan(0);
  expect(sent).toBeLessThanOrEqual(10 * 10 * mib + 10 * mib + mib);
  expect(sent).toBeGreaterThan(95 * mib);
});

test('what was broken off is given back to the budget', () => {
  const uploads = createUploads({ bytesPerSecond: mib, uploadsMax: 100 }, 0);
  const effect = ask(uploads, 'anna', [{ ...range('a'), lengthBytes: 50 * mib }]);
  expect(effect.kind).toBe('serve');
  expect(ask(uploads, 'ben', [small('b')]).kind).toBe('refuse');
  uploads.step({ kind: 'sent', upload: effect.upload, sentBytes: 0 }, 0);
  expect(ask(uploads, 'ben', [small('b')]).kind).toBe('serve');
});

test('one large blob is served to a few at once; others are sent to those who have it from here', () => {
  const uploads = createUploads({ bytesPerSecond: 10_000 * mib, uploadsMax: 100 }, 0);
  for (let i = 0; i < limits.uploadsPerBlob; i++)
    expect(ask(uploads, `node-${i}`, [range('big', i)]).kind).toBe('serve');
  const refusal = ask(uploads, 'late', [range('big')]);
  expect(refusal.kind === 'refuse' && refusal.tryNodes).toEqual(['node-0', 'node-1', 'node-2', 'node-3']);
  expect(ask(uploads, 'late', [range('other')]).kind).toBe('serve');
  uploads.step({ kind: 'absent', node: 'node-2' }, 0);
  const second = ask(uploads, 'late', [range('big')]);
  expect(second.kind === 'refuse' && second.tryNodes).toEqual(['node-0', 'node-1', 'node-3']);
});

test('requests at once are bounded, in all and of one node', () => {
  const uploads = createUploads({ bytesPerSecond: 1_000 * mib, uploadsMax: 20 }, 0);
  const greedy = Array.from({ length: 12 }, (_, i) => ask(uploads, 'greedy', [small(`g ${i}`)]).kind);
  expect(greedy.filter((kind) => kind === 'serve').length).toBe(limits.uploadsPerNode);
  const others = Array.from({ length: 40 }, (_, i) => ask(uploads, `node-${i}`, [small(`o ${i}`)]).kind);
  expect(others.filter((kind) => kind === 'serve').length).toBe(20 - limits.uploadsPerNode);
  expect(uploads.active()).toBe(20);
});

test('a node without an upload budget refuses everything, and asks to be left alone', () => {
  const uploads = createUploads({ bytesPerSecond: 0, uploadsMax: 8 }, 0);
  expect(ask(uploads, 'anna', [small('a')])).toMatchObject({ kind: 'refuse', retryAfterMs: limits.busyMsMax });
});
