/**
 * Reads one answer of HTTP/1.1 (RFC 9112) as it comes, as much of it as members say: a status, headers, and a body of a
 * length that was named, or in chunks. Anything else is no answer. Node's own client copies each part of a body into
 * memory of its own.
 */
import { PeerError } from './errors.ts';
import * as limits from './limits.ts';

export interface AnswerSink {
  onHead(status: number, headers: ReadonlyMap<string, string>): void;
  /** The bytes are good until this returns. */
  onBody(bytes: Uint8Array): void;
  onEnd(): void;
}

const lineFeed = 0x0a;

/** Takes what comes, cut anywhere. Throws a `PeerError` for what is no answer, and for what comes behind its end. */
export function createAnswerReader(peer: string, sink: AnswerSink): (bytes: Uint8Array) => void {
  let state: 'status' | 'header' | 'sized' | 'chunkSize' | 'chunk' | 'chunkEnd' | 'lastLine' | 'over' = 'status';
  const headers = new Map<string, string>();
  let status = 0;
  let line = '';
  let lineBytes = 0;
  let leftBytes = 0;

  function broken(what: string): PeerError {
    return new PeerError('unreachable', peer, `its answer is no HTTP: ${what}`);
  }

  function onHeader(text: string): void {
    const [, name = '', value = ''] = /^([\w!#$%&'*+.^`|~-]+):[ \t]*(.*?)[ \t]*$/.exec(text) ?? [];
    const key = name.toLowerCase();
    if (key === '' || headers.has(key)) throw broken('a header');
    headers.set(key, value);
  }

  function beginBody(): void {
    const length = headers.get('content-length');
    const coding = headers.get('transfer-encoding');
    if (coding === undefined ? !/^\d{1,16}$/.test(length ?? '') : coding !== 'chunked' || length !== undefined) {
      throw broken('the length of the body');
    }
    leftBytes = Number(length ?? 0);
    state = coding === undefined ? 'sized' : 'chunkSize';
    sink.onHead(status, headers);
    if (state === 'sized' && leftBytes === 0) end();
  }

  function end(): void {
    state = 'over';
    sink.onEnd();
  }

  function onLine(text: string): void {
    switch (state) {
      case 'status': {
        const [, code] = /^HTTP\/1\.1 (\d{3})(?: |$)/.exec(text) ?? [];
        if (code === undefined) throw broken('the status');
        if (code.startsWith('1')) throw new PeerError('lied', peer, 'it answers what was not asked');
        status = Number(code);
        state = 'header';
        return;
      }
      case 'header':
        if (text === '') beginBody();
        else onHeader(text);
        return;
      case 'chunkSize':
        if (!/^[0-9a-f]{1,8}$/i.test(text)) throw broken('the length of a chunk');
        leftBytes = Number.parseInt(text, 16);
        state = leftBytes === 0 ? 'lastLine' : 'chunk';
        return;
      default:
        if (text !== '') throw broken('the end of a chunk');
        if (state === 'lastLine') end();
        else state = 'chunkSize';
    }
  }

  return (bytes) => {
    for (let at = 0; at < bytes.byteLength; ) {
      if (state === 'over') throw broken('it goes on');
      if (state === 'sized' || state === 'chunk') {
        const part = bytes.subarray(at, at + leftBytes);
        at += part.byteLength;
        leftBytes -= part.byteLength;
        sink.onBody(part);
        if (leftBytes > 0) continue;
        if (state === 'sized') end();
        else state = 'chunkEnd';
        continue;
      }
      const found = bytes.indexOf(lineFeed, at);
      const to = found < 0 ? bytes.byteLength : found;
      lineBytes += to + 1 - at;
      if (lineBytes > limits.headerBytesMax) throw broken('a head too long');
      line += Buffer.from(bytes.buffer, bytes.byteOffset + at, to - at).toString('latin1');
      if (found < 0) return;
      at = found + 1;
      if (!line.endsWith('\r')) throw broken('the end of a line');
      const text = line.slice(0, -1);
      line = '';
      // All headers together are one head.
      if (state !== 'status' && state !== 'header') lineBytes = 0;
      onLine(text);
    }
  };
}
