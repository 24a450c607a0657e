import { expect, test } from 'vitest';
import { createLogStreams } from '../../../../node/execution/log-streams.ts';

const bounds = { logStreamBytesMax: 100, logBytesMax: 250, endedLogsMax: 2 };
const signal = new AbortController().signal;

async function readAll(stream: AsyncIterable<Uint8Array> | undefined): Promise<string> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of stream ?? []) chunks.push(chunk);
  return Buffer.concat(chunks).toString();
}

test('a reader gets what was written before it came and what comes after, and ends with the log', async () => {
  const logs = createLogStreams(bounds);
  const log = logs.create('a/stdout');
  log.write(Buffer.from('early '));
  const reading = readAll(logs.read('a/stdout', 0, { signal }));
  await Promise.resolve();
  log.write(Buffer.from('late'));
  log.end();
  expect(await reading).toBe('early late');
});

test('reading begins at the offset', async () => {
  const logs = createLogStreams(bounds);
  const log = logs.create('a');
  log.write(Buffer.from('0123456789'));
  log.end();
  expect(await readAll(logs.read('a', 4, { signal }))).toBe('456789');
  expect(await readAll(logs.read('a', 10, { signal }))).toBe('');
});

test('an unknown name is no log', () => {
  expect(createLogStreams(bounds).read('nothing', 0, { signal })).toBeUndefined();
});

test('a log keeps its newest part, and says how much a late reader misses', async () => {
  const logs = createLogStreams(bounds);
  const log = logs.create('a');
  for (let n = 0; n < 30; n += 1) log.write(Buffer.from(`line ${String(n).padStart(4, '0')}\n`.repeat(2)));
  log.end();
  const text = await readAll(logs.read('a', 0, { signal }));
  const [, missed, rest = ''] = /^\n\[potluck: (\d+) bytes of this log were not kept\]\n([^]*)$/.exec(text) ?? [];
  expect(Number(missed) + rest.length).toBe(600);
  expect(rest.length).toBeLessThanOrEqual(100);
  expect(text.endsWith('line 0029\n')).toBe(true);
});

test('one write larger than the bound leaves its end', async () => {
  const logs = createLogStreams(bounds);
  const log = logs.create('a');
  log.write(Buffer.from(`${'x'.repeat(500)}the end`));
  log.end();
  const text = await readAll(logs.read('a', 0, { signal }));
  expect(text).toContain('[potluck: 407 bytes');
  expect(text.endsWith('the end')).toBe(true);
});

test('a writer may use its memory again', async () => {
  const logs = createLogStreams(bounds);
  const log = logs.create('a');
  const memory = Buffer.from('first');
  log.write(memory);
  memory.fill('#');
  log.end();
  expect(await readAll(logs.read('a', 0, { signal }))).toBe('first');
});

test('all logs together are bounded: ended ones are forgotten first', async () => {
  const logs = createLogStreams(bounds);
  const ended = logs.create('ended');
  ended.write(Buffer.alloc(100, 'e'));
  ended.end();
  const one = logs.create('one');
  const two = logs.create('two');
  one.write(Buffer.alloc(100, '1'));
  two.write(Buffer.alloc(100, '2'));
  expect(logs.read('ended', 0, { signal })).toBeUndefined();
  one.end();
  two.end();
  expect(await readAll(logs.read('one', 0, { signal }))).toBe('1'.repeat(100));
  expect(await readAll(logs.read('two', 0, { signal }))).toBe('2'.repeat(100));
});

test('only so many ended logs are kept', () => {
  const logs = createLogStreams(bounds);
  for (const name of ['a', 'b', 'c']) logs.create(name).end();
  expect(logs.read('a', 0, { signal })).toBeUndefined();
  expect(logs.read('c', 0, { signal })).toBeDefined();
});

test('a reader that waits ends when its signal does', async () => {
  const logs = createLogStreams(bounds);
  logs.create('a').write(Buffer.from('x'));
  const abort = new AbortController();
  const reading = readAll(logs.read('a', 0, { signal: abort.signal }));
  abort.abort();
  await expect(reading).rejects.toThrow();
});
