import { appendFileSync, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { createDurableLog, readLog } from '../../../../node/mesh/durable-log.ts';
import { createDiskFiles, readLogText, truncateLog } from '../../../../node/mesh/log-files.ts';

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'potluck-log-'));
});
afterEach(() => rmSync(dir, { recursive: true }));

function openLog(checkpoint: () => object[] = () => []) {
  const files = createDiskFiles(dir);
  const text = readLogText(dir, 'peer.log');
  const { records, goodLength } = readLog(text);
  if (goodLength < text.length) truncateLog(dir, 'peer.log', text, goodLength);
  const durable: number[] = [];
  const log = createDurableLog({
    files,
    name: 'peer.log',
    sizeBytes: goodLength,
    durableTo: (id) => durable.push(id),
    failed: () => durable.push(-1),
    checkpoint,
  });
  return { files, log, records, durable };
}

test('records are read back in order by the next life, and are their owner’s alone', async () => {
  const first = openLog();
  for (let id = 1; id <= 3; id++) first.log.append(id, { id, text: 'é ✓' });
  first.log.flush();
  await first.files.close();
  expect(first.durable).toEqual([3]);
  expect(openLog().records).toEqual([1, 2, 3].map((id) => ({ id, text: 'é ✓' })));
  expect(statSync(join(dir, 'peer.log')).mode & 0o777).toBe(0o600);
});

test('a torn tail is cut off, and what follows is read again', async () => {
  const first = openLog();
  first.log.append(1, { text: 'é ✓' });
  first.log.flush();
  await first.files.close();
  appendFileSync(join(dir, 'peer.log'), 'abc {"torn": "é');
  const second = openLog();
  expect(second.records).toHaveLength(1);
  second.log.append(2, { id: 2 });
  second.log.flush();
  await second.files.close();
  expect(openLog().records).toEqual([{ text: 'é ✓' }, { id: 2 }]);
});

test('a log that cannot be written says so', async () => {
  const files = createDiskFiles(join(dir, 'gone'));
  const outcomes: boolean[] = [];
  files.append('peer.log', 'x', (ok) => outcomes.push(ok));
  files.replace('peer.log', 'y', (ok) => outcomes.push(ok));
  await files.close();
  expect(outcomes).toEqual([false, false]);
});

test('a replaced log is the new one, and goes on', async () => {
  const { files } = openLog();
  const outcomes: boolean[] = [];
  files.append('peer.log', 'old\n', (ok) => outcomes.push(ok));
  files.replace('peer.log', 'new\n', (ok) => outcomes.push(ok));
  files.append('peer.log', 'more\n', (ok) => outcomes.push(ok));
  files.sync('peer.log', (ok) => outcomes.push(ok));
  await files.close();
  expect(outcomes).toEqual([true, true, true, true]);
  expect(readFileSync(join(dir, 'peer.log'), 'utf8')).toBe('new\nmore\n');
});
