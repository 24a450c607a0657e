/**
 * Serves blobs to members of the mesh: HTTP/1.1 over mutual TLS 1.3 (wire.ts), each connection bound to a member before
 * the HTTP parser sees it (hello.ts).
 */
import { constants } from 'node:crypto';
import { createServer as createHttpServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { type AddressInfo, createServer as createTcpServer, type Socket } from 'node:net';
import { createServer as createTlsServer, type TLSSocket } from 'node:tls';
import { type Digest, digestKey } from '../../../protos/digest.ts';
import { type Code, StatusError, toStatusError } from '../../../protos/status.ts';
import type { Part } from '../../core/fetch/types.ts';
import type { Credentials } from './credentials.ts';
import { type HelloOptions, welcome } from './hello.ts';
import * as limits from './limits.ts';
import { createMemory, type Memory } from './memory.ts';
import type { TlsIdentity } from './tls-identity.ts';
import { createUploads, type UploadLimits, type Upload, type Urgency, urgencies } from './uploads.ts';
import * as wire from './wire.ts';

export interface CallOptions {
  readonly signal: AbortSignal;
}

export interface ServedBlob extends AsyncDisposable {
  /** Still being received: its bytes are not verified yet. */
  readonly isArriving: boolean;
  /** Whether all of the range can be read now. */
  has(range: wire.Range): boolean;
  /** Chunks in `memory` where that is possible: each is sent before its memory is used again. */
  read(range: wire.Range, options: CallOptions & { readonly memory: Memory }): AsyncIterable<Uint8Array>;
}

/** What this node offers to members. Every call names the member that asks. */
export interface DataSource {
  open(digest: Digest, options: CallOptions): Promise<ServedBlob | undefined>;
  /** A small blob, whole. */
  get(digest: Digest, options: CallOptions): Promise<Uint8Array | undefined>;
  /** Takes a blob that a member hands over. Throws when it is not wanted or not what it should be. */
  readonly put: (
    peer: string,
    digest: Digest,
    content: AsyncIterable<Uint8Array>,
    options: CallOptions,
  ) => Promise<void>;
  /** Answers to `POST /calls/{name}`, by name. */
  readonly calls: ReadonlyMap<string, (peer: string, body: Uint8Array, options: CallOptions) => Promise<Uint8Array>>;
}

/** Decides which requests are served now (mesh/core/fetch/uploads.ts). */
export interface UploadGate {
  ask(peer: string, parts: readonly Part[]): Promise<Passed | Refused>;
}

export interface Passed {
  readonly refused?: false;
  /** To be told once, when it is over. */
  sent(bytes: number): void;
}

export interface Refused {
  readonly refused: true;
  /** Who may have the blob too. */
  readonly tryPeers: readonly string[];
  readonly retryAfterMs: number;
}

/** One request for blobs that was served. */
export interface ServedReport {
  readonly peer: string;
  readonly blobs: number;
  readonly bytes: number;
  readonly outcome: 'sent' | 'missing' | 'busy' | 'broken';
}

export interface DataServerOptions {
  readonly host: string;
  /** 0 picks a free one. */
  readonly port: number;
  readonly credentials: Credentials;
  readonly identity: TlsIdentity;
  readonly source: DataSource;
  readonly uploadLimits?: () => UploadLimits;
  /** Without one, whatever the limits allow is served. */
  readonly gate?: UploadGate;
  readonly onServed?: (report: ServedReport) => void;
  /** Somebody was not believed; a sentence. */
  readonly onRefused?: (address: string, reason: string) => void;
}

export interface DataServer {
  readonly port: number;
  /** Members that are connected, and connections that have not proven anything yet. */
  connections(): { readonly members: number; readonly strangers: number };
  close(): Promise<void>;
}

const statuses: Partial<Record<Code, number>> = {
  INVALID_ARGUMENT: 400,
  PERMISSION_DENIED: 403,
  NOT_FOUND: 404,
  FAILED_PRECONDITION: 412,
  OUT_OF_RANGE: 416,
  RESOURCE_EXHAUSTED: 507,
  UNAVAILABLE: 503,
};

const unlimited: UploadLimits = {
  uploadsMax: limits.uploadsDefault,
  uploadsPerPeerMax: limits.uploadsPerPeerDefault,
  bytesPerSecond: undefined,
};

export async function serveData(options: DataServerOptions): Promise<DataServer> {
  const { credentials, identity, onRefused = () => {} } = options;
  const hello: HelloOptions = { credentials, identity };
  const members = new Map<TLSSocket, string>();
  /** Connections whose other end has not proven anything yet, from the first packet on: endpoint and address. */
  const strangers = new Map<string, string>();
  const handle = createRouter(options);

  // It never listens: connections are handed to it once both ends have proven who they are.
  const http = createHttpServer({
    maxHeaderSize: limits.headerBytesMax,
    keepAlive: true,
    noDelay: true,
    connectionsCheckingInterval: limits.lateCheckMs,
  });
  http.timeout = limits.serverIdleMs;
  http.keepAliveTimeout = limits.serverIdleMs;
  http.headersTimeout = limits.headersMs;
  // Bodies have limits of their own, by what they are.
  http.requestTimeout = 0;
  // From here on Node looks for heads that are late.
  http.emit('listening');
  const answering = new WeakSet<Socket>();
  http.on('request', (request: IncomingMessage, response: ServerResponse) => {
    const { socket } = request;
    const peer = members.get(socket as TLSSocket);
    // One after the other on each connection: what a member has under way is bounded by its connections.
    if (peer === undefined || !credentials.isMember(peer) || answering.has(socket)) {
      socket.destroy();
      return;
    }
    answering.add(socket);
    response.once('finish', () => answering.delete(socket));
    void handle(peer, request, response);
  });

  async function admit(socket: TLSSocket): Promise<void> {
    const address = socket.remoteAddress ?? '';
    const endpoint = endpointOf(socket);
    socket.on('close', () => members.delete(socket));
    const timer = setTimeout(() => socket.destroy(), limits.handshakeMs);
    try {
      const peer = await welcome(socket, hello);
      const ofPeer = [...members.values()].filter((other) => other === peer).length;
      if (socket.destroyed || members.size >= limits.connectionsMax || ofPeer >= limits.connectionsPerPeerMax) {
        socket.destroy();
        return;
      }
      members.set(socket, peer);
      strangers.delete(endpoint);
      http.emit('connection', socket);
    } catch (error) {
      socket.destroy();
      onRefused(address, toStatusError(error).reason);
    } finally {
      clearTimeout(timer);
    }
  }

  const tls = createTlsServer({
    key: identity.key,
    cert: identity.cert,
    minVersion: 'TLSv1.3',
    requestCert: true,
    // Certificates are self-signed; the hello says whose they are.
    rejectUnauthorized: false,
    secureOptions: constants.SSL_OP_NO_TICKET,
    handshakeTimeout: limits.handshakeMs,
    noDelay: true,
  });
  tls.on('secureConnection', (socket) => {
    socket.on('error', () => socket.destroy());
    void admit(socket);
  });
  // Said by those that are no TLS clients, or none that shows a certificate.
  tls.on('tlsClientError', (error, socket) => {
    onRefused(socket.remoteAddress ?? '', error.message);
    socket.destroy();
  });
  const sockets = new Set<Socket>();
  // TLS sees nobody from an address that has too many at it already.
  const tcp = createTcpServer({ noDelay: true }, (socket) => {
    const [address, endpoint] = [socket.remoteAddress ?? '', endpointOf(socket)];
    const fromThere = [...strangers.values()].filter((other) => other === address).length;
    if (strangers.size >= limits.strangersMax || fromThere >= limits.strangersPerAddressMax) {
      socket.destroy();
      return;
    }
    strangers.set(endpoint, address);
    sockets.add(socket);
    socket.once('close', () => {
      strangers.delete(endpoint);
      sockets.delete(socket);
    });
    tls.emit('connection', socket);
  });
  tcp.maxConnections = limits.connectionsMax + limits.strangersMax;
  const stopListening = credentials.onRevoked((peer) => {
    for (const [socket, whose] of members) if (whose === peer) socket.destroy();
  });
  await new Promise<void>((resolve, reject) => {
    tcp.once('error', reject);
    tcp.listen({ port: options.port, host: options.host }, () => {
      tcp.off('error', reject);
      // Such as too many open files; there will be fewer.
      tcp.on('error', (error) => onRefused('', error.message));
      resolve();
    });
  });

  return {
    port: (tcp.address() as AddressInfo).port,
    connections: () => ({ members: members.size, strangers: strangers.size }),
    async close() {
      stopListening();
      const closed = new Promise((resolve) => tcp.close(resolve));
      for (const socket of [...members.keys(), ...sockets]) socket.destroy();
      http.close();
      await closed;
    },
  };
}

function endpointOf({ remoteAddress, remotePort }: Socket): string {
  return `${remoteAddress} ${remotePort}`;
}

const open: UploadGate = { ask: async () => ({ sent() {} }) };

function createRouter(options: DataServerOptions) {
  const { source, uploadLimits = () => unlimited, gate = open, onServed = () => {} } = options;
  const uploads = createUploads(uploadLimits);
  const memory = createMemory();
  /** Bytes reserved for the bodies of calls, by member. */
  const heldCallBytes = new Map<string, number>();

  /** `undefined`: it was refused, and told so. */
  async function enter({ peer, request, response, signal }: Served, parts: readonly Part[]): Promise<Turn | undefined> {
    const upload = await uploads.enter(peer, urgencyOf(request), signal);
    const passed = upload && (await gate.ask(peer, parts));
    if (upload && passed && !passed.refused) return turnOf(upload, passed);
    upload?.[Symbol.dispose]();
    const { tryPeers, retryAfterMs } = passed?.refused ? passed : { tryPeers: [], retryAfterMs: limits.uploadWaitMs };
    response.setHeader(wire.retryAfterHeader, retryAfterMs);
    if (tryPeers.length > 0) response.setHeader(wire.tryHeader, tryPeers.join(','));
    onServed({ peer, blobs: 0, bytes: 0, outcome: 'busy' });
    answer(response, 503);
    return undefined;
  }

  async function serveBlob(served: Served, digest: Digest): Promise<void> {
    const { peer, request, response, signal } = served;
    const range = wire.parseRangeHeader(request.headers.range, digest);
    const isWhole = range.length === digest.sizeBytes;
    const blobKey = digestKey(digest);
    const part = { blob: blobKey, offset: range.offset, lengthBytes: range.length, whole: isWhole };
    using upload = await enter(served, [part]);
    if (!upload) return;
    await using blob = await source.open(digest, { signal });
    // What has not come here yet is missing: two that wait for each other would wait for good.
    if (!blob?.has(range)) {
      onServed({ peer, blobs: 0, bytes: 0, outcome: 'missing' });
      return answer(response, 404);
    }
    const content = blob.read(range, { signal, memory })[Symbol.asyncIterator]();
    try {
      // What is bad on disk turns out before the first byte, where it can still be told as missing.
      let step = await content.next();
      response.setHeader('content-length', range.length);
      if (blob.isArriving) response.setHeader(wire.arrivingHeader, '1');
      response.writeHead(isWhole ? 200 : 206);
      let bytes = 0;
      for (; !step.done; step = await content.next()) {
        await upload.pace(step.value.byteLength, signal);
        bytes += step.value.byteLength;
        await write(response, step.value, signal);
        memory.give(step.value);
      }
      if (bytes !== range.length) throw new StatusError('DATA_LOSS', `${blobKey} is shorter than its size`);
      response.end();
      onServed({ peer, blobs: 1, bytes, outcome: 'sent' });
    } finally {
      await content.return?.();
    }
  }

  async function serveBatch(served: Served): Promise<void> {
    const { peer, request, response, signal } = served;
    const digests = wire.parseBatch((await bodyOf(request, limits.batchRequestBytesMax)).toString('latin1'));
    const parts = digests.map((digest) => ({
      blob: digestKey(digest),
      offset: 0,
      lengthBytes: digest.sizeBytes,
      whole: true,
    }));
    using upload = await enter(served, parts);
    if (!upload) return;
    response.writeHead(200);
    let frames: Uint8Array[] = [];
    let framesBytes = 0;
    let bytes = 0;
    let blobs = 0;
    const flush = async (): Promise<void> => {
      const gathered = Buffer.concat(frames, framesBytes);
      frames = [];
      framesBytes = 0;
      await upload.pace(gathered.byteLength, signal);
      await write(response, gathered, signal);
    };
    // Files are opened and read one step after another; several at once keep the disk busy.
    const ahead: Promise<Uint8Array | undefined>[] = [];
    for (const at of digests.keys()) {
      while (ahead.length < limits.batchReadsAhead && at + ahead.length < digests.length) {
        const reading = source.get(digests[at + ahead.length] as Digest, { signal });
        reading.catch(() => {});
        ahead.push(reading);
      }
      const content = await ahead.shift();
      frames.push(wire.frameHead(content !== undefined));
      framesBytes += 1;
      if (content) {
        frames.push(content);
        framesBytes += content.byteLength;
        bytes += content.byteLength;
        blobs += 1;
      }
      if (framesBytes >= limits.batchWriteBytes) await flush();
    }
    if (framesBytes > 0) await flush();
    response.end();
    onServed({ peer, blobs, bytes, outcome: blobs > 0 ? 'sent' : 'missing' });
  }

  async function takeBlob({ peer, request, response, signal }: Served, digest: Digest): Promise<void> {
    if (Number(request.headers['content-length']) !== digest.sizeBytes) {
      throw new StatusError('INVALID_ARGUMENT', `${digestKey(digest)} comes without its length`);
    }
    const longestMs = limits.bodyMs + digest.sizeBytes / limits.takenBytesPerMs;
    const timer = setTimeout(() => request.destroy(), Math.min(longestMs, limits.timerMsMax));
    try {
      await source.put(peer, digest, request.iterator({ destroyOnReturn: false }), { signal });
    } finally {
      clearTimeout(timer);
    }
    answer(response, 200);
  }

  async function answerCall({ peer, request, response, signal }: Served, name: string): Promise<void> {
    const call = name.length <= limits.callNameMax ? source.calls.get(name) : undefined;
    if (!call) throw new StatusError('NOT_FOUND', 'this node answers no such call');
    const reservedBytes = Number(request.headers['content-length'] ?? limits.callBytesMax);
    if (reservedBytes > limits.callBytesMax) throw tooLarge(limits.callBytesMax);
    const heldBytes = heldCallBytes.get(peer) ?? 0;
    const heldByAll = [...heldCallBytes.values()].reduce((sum, bytes) => sum + bytes, 0);
    const isFull =
      heldBytes + reservedBytes > limits.heldCallBytesPerPeerMax || heldByAll + reservedBytes > limits.heldCallBytesMax;
    if (isFull) return answer(response, 503);
    heldCallBytes.set(peer, heldBytes + reservedBytes);
    try {
      const body = await bodyOf(request, reservedBytes);
      answer(response, 200, await call(peer, body, { signal }));
    } finally {
      const leftBytes = (heldCallBytes.get(peer) ?? 0) - reservedBytes;
      if (leftBytes > 0) heldCallBytes.set(peer, leftBytes);
      else heldCallBytes.delete(peer);
    }
  }

  async function route(served: Served): Promise<void> {
    const { method, url = '' } = served.request;
    const blob = url.startsWith(`${wire.blobsPath}/`) ? url.slice(wire.blobsPath.length + 1) : undefined;
    if (method === 'GET' && blob !== undefined) return serveBlob(served, wire.parseDigestKey(blob));
    if (method === 'PUT' && blob !== undefined) return takeBlob(served, wire.parseDigestKey(blob));
    if (method === 'POST' && url === wire.blobsPath) return serveBatch(served);
    if (method === 'POST' && url.startsWith(wire.callsPath)) {
      return answerCall(served, url.slice(wire.callsPath.length));
    }
    throw new StatusError('NOT_FOUND', 'nothing is there');
  }

  return async (peer: string, request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const gone = new AbortController();
    response.once('close', () => gone.abort());
    // A body that is not read to its end would block the connection.
    response.once('finish', () => request.resume());
    try {
      await route({ peer, request, response, signal: gone.signal });
    } catch (error) {
      if (response.headersSent) {
        // Nobody may take it for whole.
        response.destroy();
        if (request.method === 'GET') onServed({ peer, blobs: 0, bytes: 0, outcome: 'broken' });
        return;
      }
      const { code, reason } = toStatusError(error);
      answer(response, statuses[code] ?? 500, Buffer.from(reason));
    }
  };
}

/** An upload that both the limits and the gate let through. */
interface Turn extends Disposable {
  pace(bytes: number, signal: AbortSignal): Promise<void>;
}

function turnOf(upload: Upload, passed: Passed): Turn {
  let bytes = 0;
  return {
    pace(more, signal) {
      bytes += more;
      return upload.pace(more, signal);
    },
    [Symbol.dispose]() {
      upload[Symbol.dispose]();
      passed.sent(bytes);
    },
  };
}

interface Served {
  readonly peer: string;
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  /** Aborted when the response has ended or its client is gone. */
  readonly signal: AbortSignal;
}

function urgencyOf({ headers }: IncomingMessage): Urgency {
  const named = headers[wire.urgencyHeader];
  return urgencies.find((urgency) => urgency === named) ?? 'ahead';
}

function answer(response: ServerResponse, status: number, body: Uint8Array = new Uint8Array()): void {
  response.writeHead(status, { 'content-length': body.byteLength });
  response.end(body);
}

async function bodyOf(request: IncomingMessage, maxBytes: number): Promise<Buffer> {
  const timer = setTimeout(() => request.destroy(), limits.bodyMs);
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  try {
    for await (const chunk of request.iterator({ destroyOnReturn: false })) {
      bytes += (chunk as Uint8Array).byteLength;
      if (bytes > maxBytes) throw tooLarge(maxBytes);
      chunks.push(chunk as Uint8Array);
    }
  } finally {
    clearTimeout(timer);
  }
  return Buffer.concat(chunks, bytes);
}

function tooLarge(maxBytes: number): StatusError {
  return new StatusError('INVALID_ARGUMENT', `the body is larger than ${maxBytes} bytes`);
}

/** Resolves when the bytes are on their way. Throws when the client is gone, or took nothing for too long. */
async function write(response: ServerResponse, bytes: Uint8Array, signal: AbortSignal): Promise<void> {
  signal.throwIfAborted();
  await new Promise<void>((resolve, reject) => {
    const timer = setTimeout(() => response.destroy(), limits.drainMs);
    const onAbort = (): void => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    signal.addEventListener('abort', onAbort, { once: true });
    response.write(bytes, (error) => {
      clearTimeout(timer);
      signal.removeEventListener('abort', onAbort);
      if (error) reject(error);
      else resolve();
    });
  });
}
