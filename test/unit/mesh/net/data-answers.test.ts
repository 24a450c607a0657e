import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { createAnswerReader } from '../../../../mesh/net/data/answer-reader.ts';
import { gatherBytes, headerBytesMax } from '../../../../mesh/net/data/limits.ts';
import { createMemory } from '../../../../mesh/net/data/memory.ts';

interface Read {
  status: number;
  headers: Record<string, string>;
  body: string;
  isWhole: boolean;
}

/** What is read of the parts, one after the other. */
function read(parts: readonly Buffer[]): Read {
  const answer: Read = { status: 0, headers: {}, body: '', isWhole: false };
  const take = createAnswerReader('anna', {
    onHead(status, headers) {
      answer.status = status;
      answer.headers = Object.fromEntries(headers);
    },
    onBody: (bytes) => (answer.body += Buffer.from(bytes).toString('latin1')),
    onEnd: () => (answer.isWhole = true),
  });
  for (const part of parts) take(part);
  return answer;
}

function cut(text: string, cuts: readonly number[]): Buffer[] {
  const bytes = Buffer.from(text, 'latin1');
  const at = [0, ...cuts.map((one) => one % (bytes.length + 1)).sort((a, b) => a - b), bytes.length];
  return at.slice(1).map((to, which) => bytes.subarray(at[which], to));
}

const named = 'HTTP/1.1 206 Partial Content\r\nContent-Length: 11\r\nX:  a b \r\n\r\nhello\r\nyou!';
const chunked = 'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\nA\r\n, you all!\r\n0\r\n\r\n';

test('an answer is the same however it is cut', () => {
  fc.assert(
    fc.property(fc.array(fc.nat(200), { maxLength: 20 }), (cuts) => {
      expect(read(cut(named, cuts))).toEqual({
        status: 206,
        headers: { 'content-length': '11', x: 'a b' },
        body: 'hello\r\nyou!',
        isWhole: true,
      });
      expect(read(cut(chunked, cuts))).toMatchObject({ status: 200, body: 'hello, you all!', isWhole: true });
    }),
    { numRuns: 200 },
  );
});

test('an answer that breaks off is not whole', () => {
  for (const text of [named, chunked]) {
    for (let length = 0; length < text.length; length++)
      expect(read([Buffer.from(text.slice(0, length))]).isWhole).toBe(false);
  }
});

describe('no answer', () => {
  const head = 'HTTP/1.1 200 OK\r\n';
  test.each([
    ['another protocol', 'SSH-2.0-OpenSSH\r\n'],
    ['an older HTTP', 'HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n'],
    ['lines without a carriage return', 'HTTP/1.1 200 OK\n'],
    ['no length', `${head}\r\n`],
    ['two lengths', `${head}content-length: 1\r\ncontent-length: 2\r\n\r\n`],
    ['a length and chunks', `${head}content-length: 1\r\ntransfer-encoding: chunked\r\n\r\n`],
    ['a negative length', `${head}content-length: -1\r\n\r\n`],
    ['another coding', `${head}transfer-encoding: gzip\r\n\r\n`],
    ['a continued header', `${head}x: a\r\n b: c\r\n`],
    ['a space before the colon', `${head}x : a\r\n`],
    ['a head without end', `${head}x: ${'y'.repeat(headerBytesMax)}`],
    ['many headers without end', head + Array.from({ length: 2_000 }, (_, at) => `x${at}: y\r\n`).join('')],
    ['a chunk of no length', `${head}transfer-encoding: chunked\r\n\r\nxyz\r\n`],
    ['a chunk with an extension', `${head}transfer-encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n`],
    ['a chunk that goes on', `${head}transfer-encoding: chunked\r\n\r\n5\r\nhello, you\r\n`],
    ['trailers', `${head}transfer-encoding: chunked\r\n\r\n0\r\nx: y\r\n\r\n`],
    ['more than was announced', `${named}HTTP/1.1 200 OK\r\n`],
  ])('is %s', (_, text) => {
    expect(() => read([Buffer.from(text)])).toThrow(expect.objectContaining({ failure: 'unreachable', peer: 'anna' }));
  });

  test('is a hint that the answer will come', () => {
    const hint = 'HTTP/1.1 103 Early Hints\r\n';
    expect(() => read([Buffer.from(hint)])).toThrow(expect.objectContaining({ failure: 'lied' }));
  });
});

test('memory that is given back serves again, once', () => {
  const memory = createMemory();
  const first = memory.take();
  expect(first.byteLength).toBe(gatherBytes);
  memory.give(first.subarray(10, 20));
  memory.give(first);
  const [second, third] = [memory.take(), memory.take()];
  expect(second.buffer).toBe(first.buffer);
  expect(third.buffer).not.toBe(first.buffer);
  memory.give(new Uint8Array(gatherBytes));
  expect(memory.take().buffer).not.toBe(second.buffer);
});
