import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { toWireDigest } from '../../../protos/digest.ts';
import { digestOf } from '../../../protos/hasher.ts';
import { createCapture } from '../../../sandbox/capture.ts';
import { createTestBlobs } from './support.ts';

const directory = mkdtempSync(join(tmpdir(), 'potluck-capture-'));
afterAll(() => rmSync(directory, { recursive: true }));
const blobs = createTestBlobs(join(directory, 'blobs'));
const bounds = { memoryBytes: 10, totalBytes: 25 };

test('keeps little in memory and leaves it to be stored with other small blobs', async () => {
  const path = join(directory, 'little');
  const capture = createCapture(path, 'stdout', bounds);
  capture.write(Buffer.from('0123'));
  capture.write(Buffer.from('456789'));
  expect(capture.text()).toBe('0123456789');
  const stored = await capture.store('sha256', blobs);
  expect(stored?.digest).toEqual(digestOf('sha256', Buffer.from('0123456789')));
  expect(Buffer.from(stored?.bytes ?? []).toString()).toBe('0123456789');
  expect(existsSync(path)).toBe(false);
});

test('goes to a file with more, in order', async () => {
  const capture = createCapture(join(directory, 'more'), 'stdout', bounds);
  for (const part of ['01234', '56789', 'abcde', 'fghij']) capture.write(Buffer.from(part));
  expect(capture.text()).toBeUndefined();
  const stored = await capture.store('sha256', blobs);
  expect(stored?.bytes).toBeUndefined();
  expect(blobs.text(stored && toWireDigest(stored.digest))).toBe('0123456789abcdefghij');
});

test('drops what is beyond the cap and says so in a last line, once', async () => {
  const capture = createCapture(join(directory, 'flood'), 'stderr', bounds);
  for (let index = 0; index < 10; index++) capture.write(Buffer.from('0123456789'));
  const stored = await capture.store('sha256', blobs);
  expect(blobs.text(stored && toWireDigest(stored.digest))).toBe(
    '0123456789012345678901234\n[potluck: stderr was cut here, after 25 bytes]\n',
  );
});

test('is nothing when nothing was written', async () => {
  expect(await createCapture(join(directory, 'none'), 'stdout').store('sha256', blobs)).toBeUndefined();
});
