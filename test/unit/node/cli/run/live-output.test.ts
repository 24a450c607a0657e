import { PassThrough } from 'node:stream';
import { expect, test } from 'vitest';
import { createLiveOutput } from '../../../../../node/cli/run/live-output.ts';
import { until } from '../../../../support/until.ts';
import { createMemoryRemote } from './memory-remote.ts';

const text = (value: string) => new TextEncoder().encode(value);

async function* stream(...parts: (string | Promise<void>)[]) {
  for (const part of parts)
    if (typeof part === 'string') yield text(part);
    else await part;
}

function open() {
  const remote = createMemoryRemote();
  const target = new PassThrough();
  let shown = '';
  target.on('data', (chunk: Buffer) => {
    shown += chunk.toString();
  });
  return { remote, live: createLiveOutput(remote, target), shown: () => shown };
}

test('without a stream the whole is shown at the end', async () => {
  const { live, shown } = open();
  await live.finish(stream('all ', 'of it'));
  expect(shown()).toBe('all of it');
});

test('what came live is not shown again', async () => {
  const { remote, live, shown } = open();
  remote.setStream('log', stream('one ', 'two '));
  live.follow('log');
  live.follow('log');
  await until(() => shown() === 'one two ');
  await live.finish(stream('one t', 'wo three'));
  expect(shown()).toBe('one two three');
});

test('a stream that has a gap is left, and the stored output takes over there', async () => {
  const { remote, live, shown } = open();
  remote.setStream('log', stream('one ', '\n[potluck: 4 bytes of this log were not kept]\n', 'three'));
  live.follow('log');
  await until(() => shown() === 'one ');
  await live.finish(stream('one two three'));
  expect(shown()).toBe('one two three');
});

test('a stream that breaks costs nothing but the liveness', async () => {
  const { live, shown } = open();
  live.follow('no such log');
  await live.finish(stream('whole'));
  expect(shown()).toBe('whole');
});
