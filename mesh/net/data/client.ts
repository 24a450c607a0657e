/**
 * Asks members for blobs: a pool of authenticated connections per member (dial.ts), HTTP/1.1 over them (wire.ts).
 *
 * What comes is not verified here, but it is never more than was asked for. Every failure is a `PeerError` that names the
 * member, so that the caller knows whom to blame for what.
 */
import { type Digest, digestKey } from '../../../protos/digest.ts';
import { StatusError } from '../../../protos/status.ts';
import { type Answer, type Connection, createConnection, type Question, StaleConnection } from './connection.ts';
import type { Credentials } from './credentials.ts';
import { dial, type PeerAddress } from './dial.ts';
import { PeerError } from './errors.ts';
import type { HelloOptions } from './hello.ts';
import * as limits from './limits.ts';
import { createMemory } from './memory.ts';
import type { TlsIdentity } from './tls-identity.ts';
import type { Urgency } from './uploads.ts';
import * as wire from './wire.ts';

export interface AskOptions {
  readonly signal?: AbortSignal;
  readonly urgency?: Urgency;
}

export interface ReadManyOptions extends AskOptions {
  readonly allocate?: (sizeBytes: number) => Uint8Array;
}

export interface RemoteBlob extends AsyncDisposable {
  /** The holder has not verified the blob itself yet. */
  readonly isArriving: boolean;
  /**
   * Exactly the bytes of the range, in parts of `gatherBytes` but the last, to be read once; throws a `PeerError` when they
   * do not come. While one part is used the next comes in.
   */
  readonly bytes: AsyncIterable<Uint8Array>;
  /** A part is needed no more; its memory serves others. Nobody need say so. */
  done(part: Uint8Array): void;
}

export interface DataClient {
  /** A part of a blob, or the whole. Throws a `PeerError`. */
  read(peer: string, digest: Digest, range: wire.Range | undefined, options?: AskOptions): Promise<RemoteBlob>;
  /**
   * Small blobs in the order of `digests`, as they come, each in memory that `allocate` gives for it when the one before was
   * used. Throws a `PeerError`, maybe after some.
   */
  readMany(peer: string, digests: readonly Digest[], options?: ReadManyOptions): AsyncIterable<wire.BatchBlob>;
  /** Hands a blob over; resolves when the member has it for good. Throws a `PeerError`. */
  write(peer: string, digest: Digest, content: AsyncIterable<Uint8Array>, options?: AskOptions): Promise<void>;
  /** Asks a short question. Throws a `PeerError`. */
  call(peer: string, name: string, body: Uint8Array, options?: AskOptions): Promise<Uint8Array>;
  /** Ends all connections to a member: it is gone, or no member any more. */
  drop(peer: string): void;
  close(): void;
}

export interface DataClientOptions {
  readonly credentials: Credentials;
  readonly identity: TlsIdentity;
  /** Where a member serves its data plane, most likely first. */
  readonly addressesOf: (peer: string) => readonly PeerAddress[];
}

interface Pool {
  readonly open: Set<Connection>;
  /** Kept for later, the last used one last. */
  readonly free: Connection[];
  readonly gone: AbortController;
  /** Requests under way; each has a connection of its own. */
  busy: number;
  readonly queue: (() => void)[];
}

type Ask = AskOptions & Omit<Question, 'headers' | 'signal'> & { readonly headers?: Question['headers'] };

export function createDataClient({ credentials, identity, addressesOf }: DataClientOptions): DataClient {
  const hello: HelloOptions = { credentials, identity };
  const memory = createMemory();
  const pools = new Map<string, Pool>();
  const stopListening = credentials.onRevoked((peer) => drop(peer));

  function poolOf(peer: string): Pool {
    const pool = pools.get(peer) ?? { open: new Set(), free: [], gone: new AbortController(), busy: 0, queue: [] };
    pools.set(peer, pool);
    return pool;
  }

  function drop(peer: string): void {
    const pool = pools.get(peer);
    if (!pool) return;
    pools.delete(peer);
    pool.gone.abort();
    for (const connection of pool.open) connection.destroy();
  }

  async function connectionTo(peer: string, pool: Pool, signal: AbortSignal | undefined): Promise<Connection> {
    for (let kept = pool.free.pop(); kept; kept = pool.free.pop()) {
      if (kept.isOpen()) return kept;
      pool.open.delete(kept);
    }
    const until = signal ? AbortSignal.any([signal, pool.gone.signal]) : pool.gone.signal;
    const { socket, inbox } = await dial(peer, addressesOf(peer), hello, until);
    const connection = createConnection(peer, socket, inbox, memory);
    pool.open.add(connection);
    return connection;
  }

  async function send(peer: string, pool: Pool, what: Ask, onOver: () => void): Promise<Answer> {
    const { urgency = 'ahead', headers, ...question } = what;
    const connection = await connectionTo(peer, pool, what.signal);
    return await connection.ask(
      { ...question, headers: { [wire.urgencyHeader]: urgency, ...headers } },
      (isReusable) => {
        if (isReusable && !pool.gone.signal.aborted && pool.free.length < limits.pooledIdlePerPeerMax) {
          connection.rest();
          pool.free.push(connection);
        } else {
          connection.destroy();
          pool.open.delete(connection);
        }
        onOver();
      },
    );
  }

  /** Sends a request and waits for the head of the answer; once more when a kept connection was closed meanwhile. */
  async function ask(peer: string, what: Ask): Promise<Answer> {
    if (!credentials.isMember(peer)) throw new PeerError('refused', peer, 'it is no member of this mesh');
    const pool = poolOf(peer);
    await turn(peer, pool, what.signal);
    let isOver = false;
    const onOver = (): void => {
      if (isOver) return;
      isOver = true;
      pool.busy -= 1;
      pool.queue.shift()?.();
    };
    try {
      for (let isAgain = false; ; isAgain = true) {
        try {
          // A connection that is closed before it answered is not the end of the question.
          return await send(peer, pool, what, onOver);
        } catch (error) {
          if (!(error instanceof StaleConnection) || isAgain) throw error;
          isOver = false;
          pool.busy += 1;
        }
      }
    } catch (error) {
      onOver();
      if (error instanceof PeerError) {
        // Liars name peers that do not exist; nothing is kept of whoever cannot be reached.
        if (pool.busy === 0 && pool.open.size === 0 && pools.get(peer) === pool) drop(peer);
        throw error;
      }
      const cause = error instanceof StaleConnection ? error.cause : error;
      what.signal?.throwIfAborted();
      const reason = cause instanceof Error ? cause.message : String(cause);
      throw new PeerError('unreachable', peer, reason, { cause });
    }
  }

  async function turn(peer: string, pool: Pool, signal: AbortSignal | undefined): Promise<void> {
    signal?.throwIfAborted();
    if (pool.busy >= limits.pooledPerPeerMax) {
      if (pool.queue.length >= limits.queuedPerPeerMax) {
        throw new PeerError('busy', peer, 'too many requests wait for it');
      }
      const { promise, resolve, reject } = Promise.withResolvers<void>();
      const giveUp = (): void => {
        pool.queue.splice(pool.queue.indexOf(resolve), 1);
        reject(signal?.reason);
      };
      pool.queue.push(resolve);
      signal?.addEventListener('abort', giveUp, { once: true });
      await promise.finally(() => signal?.removeEventListener('abort', giveUp));
    }
    pool.busy += 1;
  }

  async function expectOk(peer: string, answer: Answer): Promise<void> {
    const { status, headers } = answer;
    if (status === 200 || status === 206) return;
    const text = (await collect(peer, answer, limits.callBytesMax)).toString().slice(0, 500);
    if (status === 404) throw new PeerError('missing', peer, 'it does not have that');
    if (status === 503) {
      const tryPeers = (headers.get(wire.tryHeader) ?? '')
        .split(',')
        .filter((other) => other !== '')
        .slice(0, limits.tryPeersMax);
      const asked = Number(headers.get(wire.retryAfterHeader));
      const retryAfterMs = asked >= 0 && asked <= limits.retryAfterMsMax ? asked : limits.uploadWaitMs;
      throw new PeerError('busy', peer, 'it is busy', { tryPeers, retryAfterMs });
    }
    throw new PeerError(status === 507 ? 'busy' : 'unreachable', peer, `it answered ${status} ${text}`);
  }

  async function collect(peer: string, answer: Answer, maxBytes: number): Promise<Buffer> {
    const parts: Uint8Array[] = [];
    let bytes = 0;
    for await (const part of answer.bytes) {
      bytes += part.byteLength;
      if (bytes > maxBytes) {
        answer.leave();
        throw new PeerError('lied', peer, 'its answer does not end');
      }
      parts.push(part);
    }
    const whole = Buffer.concat(parts, bytes);
    for (const part of parts) memory.give(part);
    return whole;
  }

  return {
    async read(peer, digest, range, options = {}) {
      const wanted = range ?? { offset: 0, length: digest.sizeBytes };
      const answer = await ask(peer, {
        ...options,
        method: 'GET',
        path: wire.blobPath(digest),
        headers: range ? { range: wire.rangeHeader(range) } : {},
      });
      await expectOk(peer, answer);
      if (Number(answer.headers.get('content-length')) !== wanted.length) {
        answer.leave();
        throw new PeerError('lied', peer, `it sends another length of ${digestKey(digest)}`);
      }
      return {
        isArriving: answer.headers.has(wire.arrivingHeader),
        bytes: answer.bytes,
        done: memory.give,
        async [Symbol.asyncDispose]() {
          answer.leave();
        },
      };
    },

    async *readMany(peer, digests, { allocate, ...options } = {}) {
      wire.checkBatch(digests);
      const answer = await ask(peer, {
        ...options,
        method: 'POST',
        path: wire.blobsPath,
        body: Buffer.from(digests.map(digestKey).join('\n'), 'latin1'),
      });
      try {
        await expectOk(peer, answer);
        yield* wire.readFrames(digests, answer.bytes, memory.give, allocate);
      } catch (error) {
        if (error instanceof PeerError || !(error instanceof StatusError)) throw error;
        throw new PeerError('lied', peer, error.reason, { cause: error });
      } finally {
        answer.leave();
      }
    },

    async write(peer, digest, content, options = {}) {
      const answer = await ask(peer, {
        ...options,
        method: 'PUT',
        path: wire.blobPath(digest),
        headers: { 'content-length': digest.sizeBytes },
        body: content,
      });
      await expectOk(peer, answer);
      await collect(peer, answer, limits.callBytesMax);
    },

    async call(peer, name, body, options = {}) {
      const answer = await ask(peer, { ...options, method: 'POST', path: wire.callsPath + name, body });
      await expectOk(peer, answer);
      return await collect(peer, answer, limits.callBytesMax);
    },

    drop,
    close() {
      stopListening();
      for (const peer of [...pools.keys()]) drop(peer);
    },
  };
}
