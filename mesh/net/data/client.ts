/**
 * Asks members for blobs: a pool of authenticated connections per member (dial.ts), HTTP/1.1 over them (wire.ts).
 *
 * What comes is not verified here, but it is never more than was asked for. Every failure is a `PeerError` that names the
 * member, so that the caller knows whom to blame for what.
 */
import { Agent, type IncomingMessage, request as httpRequest } from 'node:http';
import type { Duplex } from 'node:stream';
import { type Digest, digestKey } from '../../../protos/digest.ts';
import { StatusError } from '../../../protos/status.ts';
import type { Credentials } from './credentials.ts';
import { dial, type PeerAddress } from './dial.ts';
import { PeerError } from './errors.ts';
import type { HelloOptions } from './hello.ts';
import * as limits from './limits.ts';
import type { TlsIdentity } from './tls-identity.ts';
import type { Urgency } from './uploads.ts';
import * as wire from './wire.ts';

export interface AskOptions {
  readonly signal?: AbortSignal;
  readonly urgency?: Urgency;
}

export interface RemoteBlob extends AsyncDisposable {
  /** The holder has not verified the blob itself yet. */
  readonly isArriving: boolean;
  /**
   * Exactly the bytes of the range, in groups of about `gatherBytes`, to be read once; throws a `PeerError` when they do
   * not come. While one group is used the next comes in.
   */
  readonly bytes: AsyncIterable<readonly Uint8Array[]>;
}

export interface DataClient {
  /** A part of a blob, or the whole. Throws a `PeerError`. */
  read(peer: string, digest: Digest, range: wire.Range | undefined, options?: AskOptions): Promise<RemoteBlob>;
  /** Small blobs in the order of `digests`, as they come. Throws a `PeerError`, maybe after some. */
  readMany(peer: string, digests: readonly Digest[], options?: AskOptions): AsyncIterable<wire.BatchBlob>;
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
  readonly agent: Agent;
  readonly gone: AbortController;
  /** Requests under way; each has a connection of its own. */
  busy: number;
  readonly queue: (() => void)[];
}

interface Ask extends AskOptions {
  readonly method: string;
  readonly path: string;
  readonly headers?: Readonly<Record<string, string | number>>;
  readonly body?: Uint8Array | AsyncIterable<Uint8Array>;
}

export function createDataClient({ credentials, identity, addressesOf }: DataClientOptions): DataClient {
  const hello: HelloOptions = { credentials, identity };
  const pools = new Map<string, Pool>();
  const stopListening = credentials.onRevoked((peer) => drop(peer));

  function poolOf(peer: string): Pool {
    let pool = pools.get(peer);
    if (!pool) {
      const gone = new AbortController();
      const agent = new PeerAgent((signal) => dial(peer, addressesOf(peer), hello, signal), gone.signal);
      pool = { agent, gone, busy: 0, queue: [] };
      pools.set(peer, pool);
    }
    return pool;
  }

  function drop(peer: string): void {
    const pool = pools.get(peer);
    if (!pool) return;
    pools.delete(peer);
    pool.gone.abort();
    pool.agent.destroy();
    const sockets = [pool.agent.sockets, pool.agent.freeSockets].flatMap((all) => Object.values(all).flat());
    for (const socket of sockets) socket?.destroy();
  }

  /** Sends a request and waits for the head of the answer; once more when a kept connection was closed meanwhile. */
  async function ask(peer: string, what: Ask): Promise<IncomingMessage> {
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
      try {
        return await send(peer, pool.agent, what, onOver);
      } catch (error) {
        if (!(error instanceof StaleConnection)) throw error;
        return await send(peer, pool.agent, what, onOver);
      }
    } catch (error) {
      onOver();
      if (error instanceof PeerError) {
        const isUsed = pool.busy > 0 || Object.keys({ ...pool.agent.sockets, ...pool.agent.freeSockets }).length > 0;
        // Liars name peers that do not exist; nothing is kept of whoever cannot be reached.
        if (!isUsed && pools.get(peer) === pool) drop(peer);
        throw error;
      }
      const cause = error instanceof StaleConnection ? error.cause : error;
      what.signal?.throwIfAborted();
      const reason = cause instanceof Error ? cause.message : String(cause);
      throw new PeerError('unreachable', peer, reason, { cause });
    }
  }

  /** Node's agent counts a connection only once it is made, so it would open far too many at once. */
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

  async function expectOk(peer: string, response: IncomingMessage): Promise<void> {
    const { statusCode = 0, headers } = response;
    if (statusCode === 200 || statusCode === 206) return;
    const text = (await collect(peer, response, limits.callBytesMax)).toString().slice(0, 500);
    if (statusCode === 404) throw new PeerError('missing', peer, 'it does not have that');
    if (statusCode === 503) {
      const tryPeers = String(headers[wire.tryHeader] ?? '')
        .split(',')
        .filter((other) => other !== '')
        .slice(0, limits.tryPeersMax);
      const asked = Number(headers[wire.retryAfterHeader]);
      const retryAfterMs = asked >= 0 && asked <= limits.retryAfterMsMax ? asked : limits.uploadWaitMs;
      throw new PeerError('busy', peer, 'it is busy', { tryPeers, retryAfterMs });
    }
    throw new PeerError(statusCode === 507 ? 'busy' : 'unreachable', peer, `it answered ${statusCode} ${text}`);
  }

  return {
    async read(peer, digest, range, options = {}) {
      const wanted = range ?? { offset: 0, length: digest.sizeBytes };
      const response = await ask(peer, {
        ...options,
        method: 'GET',
        path: wire.blobPath(digest),
        headers: range ? { range: wire.rangeHeader(range) } : {},
      });
      await expectOk(peer, response);
      if (Number(response.headers['content-length']) !== wanted.length) {
        response.destroy();
        throw new PeerError('lied', peer, `it sends another length of ${digestKey(digest)}`);
      }
      return {
        isArriving: response.headers[wire.arrivingHeader] !== undefined,
        bytes: bytesOf(peer, response),
        async [Symbol.asyncDispose]() {
          // What was read to its end leaves its connection for others.
          if (!response.readableEnded) response.destroy();
        },
      };
    },

    async *readMany(peer, digests, options = {}) {
      wire.checkBatch(digests);
      const response = await ask(peer, {
        ...options,
        method: 'POST',
        path: wire.blobsPath,
        body: Buffer.from(digests.map(digestKey).join('\n'), 'latin1'),
      });
      try {
        await expectOk(peer, response);
        yield* wire.readFrames(digests, bytesOf(peer, response));
      } catch (error) {
        if (error instanceof PeerError || !(error instanceof StatusError)) throw error;
        throw new PeerError('lied', peer, error.reason, { cause: error });
      } finally {
        if (!response.readableEnded) response.destroy();
      }
    },

    async write(peer, digest, content, options = {}) {
      const response = await ask(peer, {
        ...options,
        method: 'PUT',
        path: wire.blobPath(digest),
        headers: { 'content-length': digest.sizeBytes },
        body: content,
      });
      await expectOk(peer, response);
      await collect(peer, response, limits.callBytesMax);
    },

    async call(peer, name, body, options = {}) {
      const response = await ask(peer, { ...options, method: 'POST', path: wire.callsPath + name, body });
      await expectOk(peer, response);
      return await collect(peer, response, limits.callBytesMax);
    },

    drop,
    close() {
      stopListening();
      for (const peer of [...pools.keys()]) drop(peer);
    },
  };
}

/** Node's pool of kept connections, over sockets that are handed out only once they are authenticated. */
class PeerAgent extends Agent {
  readonly #connect: (signal: AbortSignal) => Promise<Duplex>;
  readonly #signal: AbortSignal;

  constructor(connect: (signal: AbortSignal) => Promise<Duplex>, signal: AbortSignal) {
    super({
      keepAlive: true,
      maxFreeSockets: limits.pooledIdlePerPeerMax,
      timeout: limits.clientIdleMs,
    });
    this.#connect = connect;
    this.#signal = signal;
  }

  override createConnection(_: object, callback: (error: Error | null, socket: Duplex) => void): undefined {
    this.#connect(this.#signal).then(
      (socket) => callback(null, socket),
      (error: Error) => callback(error, undefined as unknown as Duplex),
    );
    return undefined;
  }
}

class StaleConnection extends Error {}

function send(peer: string, agent: Agent, what: Ask, onOver: () => void): Promise<IncomingMessage> {
  const { method, path, headers, body, signal, urgency = 'ahead' } = what;
  return new Promise((resolve, reject) => {
    const request = httpRequest({
      agent,
      method,
      path,
      host: peer,
      setHost: false,
      headers: {
        host: 'potluck',
        [wire.urgencyHeader]: urgency,
        ...headers,
        ...(body instanceof Uint8Array && { 'content-length': body.byteLength }),
      },
      ...(signal && { signal }),
    });
    request.setTimeout(limits.stallMs, () => request.destroy(new PeerError('stalled', peer, 'it does not answer')));
    request.once('information', () => request.destroy(new PeerError('lied', peer, 'it answers what was not asked')));
    request.once('response', (response) => {
      request.once('close', onOver);
      resolve(response);
    });
    request.once('error', (error: NodeJS.ErrnoException) => {
      const isStale = request.reusedSocket && error.code === 'ECONNRESET' && isRepeatable(body);
      reject(isStale ? new StaleConnection('', { cause: error }) : error);
    });
    if (body === undefined || body instanceof Uint8Array) request.end(body);
    else void sendBody(request, body);
  });
}

function isRepeatable(body: Ask['body']): boolean {
  return body === undefined || body instanceof Uint8Array;
}

async function sendBody(request: ReturnType<typeof httpRequest>, body: AsyncIterable<Uint8Array>): Promise<void> {
  try {
    for await (const chunk of body) {
      if (request.destroyed) return;
      if (!request.write(chunk)) {
        await new Promise<void>((resolve) => {
          const onMove = (): void => {
            request.off('drain', onMove);
            request.off('close', onMove);
            resolve();
          };
          request.on('drain', onMove);
          request.on('close', onMove);
        });
      }
    }
    request.end();
  } catch (error) {
    request.destroy(error as Error);
  }
}

/**
 * The body in groups of chunks: TLS brings 16 KiB at a time, and a turn of the event loop for each would cost more than
 * its decryption. What breaks it is the member's failure.
 */
async function* bytesOf(peer: string, response: IncomingMessage): AsyncGenerator<Uint8Array[], void, undefined> {
  let group: Uint8Array[] = [];
  let bytes = 0;
  let state: 'open' | 'ended' | { readonly broken: unknown } = 'open';
  let change = Promise.withResolvers<void>();
  const onData = (chunk: Uint8Array): void => {
    group.push(chunk);
    bytes += chunk.byteLength;
    if (bytes < limits.gatherBytes) return;
    response.pause();
    change.resolve();
  };
  const onEnd = (): void => {
    state = 'ended';
    change.resolve();
  };
  const onBroken = (error?: unknown): void => {
    if (state === 'open') state = { broken: error };
    change.resolve();
  };
  response.setTimeout(limits.stallMs, () => {
    response.destroy(new PeerError('stalled', peer, 'it stopped sending'));
  });
  response.on('data', onData);
  response.once('end', onEnd);
  response.once('error', onBroken);
  response.once('close', onBroken);
  try {
    for (;;) {
      if (bytes < limits.gatherBytes && state === 'open') await change.promise;
      change = Promise.withResolvers();
      const full = group;
      group = [];
      bytes = 0;
      if (state === 'open') response.resume();
      if (full.length > 0) yield full;
      else if (state !== 'open') break;
    }
  } finally {
    response.off('data', onData);
    response.off('end', onEnd);
    response.off('close', onBroken);
  }
  const end = state as 'ended' | { readonly broken: unknown };
  if (end === 'ended' && response.complete) return;
  const cause = end === 'ended' ? undefined : end.broken;
  if (cause instanceof PeerError) throw cause;
  if (cause instanceof Error && cause.name === 'AbortError') throw cause;
  throw new PeerError('unreachable', peer, 'the connection broke', { cause });
}

async function collect(peer: string, response: IncomingMessage, maxBytes: number): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const group of bytesOf(peer, response)) {
    for (const chunk of group) bytes += chunk.byteLength;
    if (bytes > maxBytes) {
      response.destroy();
      throw new PeerError('lied', peer, 'its answer does not end');
    }
    chunks.push(...group);
  }
  return Buffer.concat(chunks, bytes);
}
