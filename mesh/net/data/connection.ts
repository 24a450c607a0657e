/** One authenticated connection to a member, asked one thing at a time in HTTP/1.1. */
import type { TLSSocket } from 'node:tls';
import { createAnswerReader } from './answer-reader.ts';
import { PeerError } from './errors.ts';
import type { Inbox } from './inbox.ts';
import * as limits from './limits.ts';
import type { Memory } from './memory.ts';

export interface Question {
  readonly method: string;
  readonly path: string;
  readonly headers: Readonly<Record<string, string | number>>;
  readonly body?: Uint8Array | AsyncIterable<Uint8Array> | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface Answer {
  readonly status: number;
  readonly headers: ReadonlyMap<string, string>;
  /**
   * The body, to be read once, in parts of `gatherBytes` but the last; throws a `PeerError` when it breaks off. While one
   * part is used the next comes in. Their memory may be given back.
   */
  readonly bytes: AsyncIterable<Uint8Array>;
  /** Ends the connection unless the whole answer has come. */
  leave(): void;
}

export interface Connection {
  /**
   * Resolves with the head of the answer. `onOver` is called once: when the whole answer has come and the next question may
   * be asked, or, with false, when the connection is of no use any more. Throws a `PeerError`, `StaleConnection`, or the
   * reason of the signal.
   */
  ask(question: Question, onOver: (isReusable: boolean) => void): Promise<Answer>;
  /** Nothing is asked for the moment; it ends when that lasts too long. */
  rest(): void;
  isOpen(): boolean;
  destroy(): void;
}

/** The member closed a connection that was kept, before it answered anything: it may be asked again. */
export class StaleConnection extends Error {}

interface Exchange {
  readonly take: (bytes: Uint8Array) => void;
  /** What has come waits to be used. */
  isFull(): boolean;
  fail(cause: unknown): void;
}

export function createConnection(peer: string, socket: TLSSocket, inbox: Inbox, memory: Memory): Connection {
  let current: Exchange | undefined;
  let isPaused = false;
  let asked = 0;
  let failure: unknown;

  inbox.listen((bytes) => {
    // Nobody asked for it.
    if (!current) {
      socket.destroy();
      return false;
    }
    try {
      current.take(bytes);
    } catch (error) {
      fail(error);
      return false;
    }
    isPaused = current?.isFull() === true;
    return !isPaused;
  });
  socket.on('error', (error) => (failure ??= error));
  socket.on('close', () => fail(failure));
  socket.on('timeout', () => {
    // While it is paused, it is this node that does not move.
    if (!current) socket.destroy();
    else if (!isPaused) fail(new PeerError('stalled', peer, 'it does not move'));
  });

  function fail(cause: unknown): void {
    const failed = current;
    current = undefined;
    socket.destroy();
    failed?.fail(cause);
  }

  function resume(): void {
    if (!isPaused) return;
    isPaused = false;
    socket.setTimeout(limits.stallMs);
    socket.resume();
  }

  return {
    isOpen: () => !socket.destroyed,
    destroy: () => void socket.destroy(),
    rest() {
      socket.setTimeout(limits.clientIdleMs);
      socket.unref();
    },
    ask(question, onOver) {
      const { body, signal } = question;
      const head = Promise.withResolvers<Answer>();
      const isFirst = asked++ === 0;
      const full: Uint8Array[] = [];
      let filling: Uint8Array | undefined;
      let filledBytes = 0;
      let hasBegun = false;
      let isSent = !isStream(body);
      let end: 'whole' | { readonly cause: unknown } | undefined;
      let change = Promise.withResolvers<void>();
      const onAbort = (): void => fail(signal?.reason);

      function over(how: NonNullable<typeof end>): void {
        end = how;
        current = undefined;
        signal?.removeEventListener('abort', onAbort);
        // The end may come after a pause was asked for.
        resume();
        const isReusable = how === 'whole' && isSent;
        if (!isReusable) socket.destroy();
        change.resolve();
        onOver(isReusable);
      }

      function gather(bytes: Uint8Array): void {
        for (let at = 0; at < bytes.byteLength; ) {
          filling ??= memory.take();
          const part = bytes.subarray(at, at + filling.byteLength - filledBytes);
          filling.set(part, filledBytes);
          filledBytes += part.byteLength;
          at += part.byteLength;
          if (filledBytes === filling.byteLength) close();
        }
      }

      function close(): void {
        if (filling && filledBytes > 0) full.push(filling.subarray(0, filledBytes));
        filling = undefined;
        filledBytes = 0;
        change.resolve();
      }

      async function* bytesOf(): AsyncGenerator<Uint8Array, void, undefined> {
        for (;;) {
          while (full.length === 0 && end === undefined) {
            change = Promise.withResolvers();
            await change.promise;
          }
          const bytes = full.shift();
          if (full.length === 0 && end === undefined) resume();
          if (!bytes) break;
          yield bytes;
        }
        if (end !== undefined && end !== 'whole') throw reasonOf(end.cause);
      }

      function reasonOf(cause: unknown): unknown {
        if (cause instanceof PeerError || (signal?.aborted && cause === signal.reason)) return cause;
        return new PeerError('unreachable', peer, cause instanceof Error ? cause.message : 'the connection broke', {
          cause,
        });
      }

      const read = createAnswerReader(peer, {
        onHead(status, headers) {
          head.resolve({
            status,
            headers,
            bytes: bytesOf(),
            leave() {
              if (end === undefined) fail(undefined);
            },
          });
        },
        onBody: gather,
        onEnd() {
          close();
          over('whole');
        },
      });
      current = {
        take(bytes) {
          hasBegun = true;
          read(bytes);
        },
        isFull: () => full.length > 0,
        fail(cause) {
          // What came before is still of use.
          close();
          over({ cause });
          const isStale = !isFirst && !hasBegun && !isStream(body) && !(cause instanceof PeerError) && !signal?.aborted;
          head.reject(isStale ? new StaleConnection('', { cause }) : reasonOf(cause));
        },
      };
      if (socket.destroyed) fail(failure);
      else if (signal?.aborted) fail(signal.reason);
      else {
        signal?.addEventListener('abort', onAbort, { once: true });
        socket.ref();
        socket.setTimeout(limits.stallMs);
        // One record and one packet for a short question.
        socket.cork();
        socket.write(headOf(question));
        if (body && !isStream(body) && body.byteLength > 0) socket.write(body);
        socket.uncork();
        if (isStream(body)) void sendBody(body).then(() => (isSent = true), fail);
      }
      return head.promise;
    },
  };

  async function sendBody(body: AsyncIterable<Uint8Array>): Promise<void> {
    for await (const chunk of body) {
      if (socket.destroyed) return;
      if (socket.write(chunk)) continue;
      const { promise, resolve } = Promise.withResolvers<void>();
      socket.once('drain', resolve);
      socket.once('close', resolve);
      await promise;
      socket.off('drain', resolve);
      socket.off('close', resolve);
    }
  }
}

function isStream(body: Question['body']): body is AsyncIterable<Uint8Array> {
  return body !== undefined && !(body instanceof Uint8Array);
}

function headOf({ method, path, headers, body }: Question): string {
  const fields = Object.entries({
    host: 'potluck',
    ...headers,
    ...(body instanceof Uint8Array && { 'content-length': body.byteLength }),
  });
  return `${method} ${path} HTTP/1.1\r\n${fields.map(([name, value]) => `${name}: ${value}\r\n`).join('')}\r\n`;
}
