/**
 * The HTTP server of a node: Bazel's HTTP cache protocol, metrics, health and status.
 *
 * It stands on node:http. The rules of access are those of the gRPC server; web pages are kept out as well.
 */
import type { IncomingMessage, RequestListener, Server, ServerResponse } from 'node:http';
import { StatusError } from '../../protos/status.ts';
import { type Access, bearerCheck, refuseUnguarded } from '../reapi/access.ts';
import type { InstanceCheck } from '../reapi/instances.ts';
import { type ListenAddress, listenOn, parseListenAddress } from '../reapi/listen-address.ts';
import type { ActionCache } from '../storage/action-cache.ts';
import type { LocalBlobStore } from '../storage/blob-store.ts';
import { createAcHandler } from './ac-handler.ts';
import { type ApiSources, findApi } from './api.ts';
import { createBodyReader } from './body-reader.ts';
import { parseCachePath } from './cache-path.ts';
import { createCasHandler } from './cas-handler.ts';
import { type Exchange, HttpError, sendError, sendText } from './exchange.ts';
import { createPageGuard } from './guard.ts';
import * as limits from './limits.ts';

export interface HttpServerOptions extends Access {
  /** `host:port`, port 0 picking a free one, or `unix:/path`. */
  readonly listen: string;
  readonly blobs: Pick<LocalBlobStore, 'findByHash' | 'open' | 'get' | 'put' | 'putMany'>;
  readonly actions: ActionCache;
  readonly checkInstance: InstanceCheck;
  /** Whether bodies under `/ac/` must be ActionResults whose blobs are held. */
  readonly validateActionResults: boolean;
  readonly maxBlobBytes: number;
  /** The text of `/metrics`. */
  readonly metrics: () => string;
  /** The object of `/api/status`. */
  readonly status: () => object;
  /** The rest of `/api/`. */
  readonly api: ApiSources;
  readonly onRequest?: (report: HttpReport) => void;
}

/** Told once about each request, when it has ended. */
export interface HttpReport {
  readonly kind: 'ac' | 'cas' | 'other';
  readonly method: 'GET' | 'HEAD' | 'PUT' | 'other';
  /** 0 when the client went away before there was one. */
  readonly status: number;
  readonly seconds: number;
  readonly requestBytes: number;
  readonly responseBytes: number;
}

export interface HttpServer {
  /** With the port that was picked. */
  readonly address: string;
  /** Takes no new connections; resolves when the requests under way have ended. */
  drain(): Promise<void>;
  /** Ends everything at once. */
  close(): Promise<void>;
}

/** Throws FAILED_PRECONDITION for an address that others could reach unguarded, or that is taken. */
export async function serveHttp(options: HttpServerOptions): Promise<HttpServer> {
  const address = parseListenAddress(options.listen);
  refuseUnguarded(address, options);
  const handle = createRouter(options, address);
  let draining = false;
  const closing = new AbortController();

  const server = await createHttpServer(address, options, (request, response) => {
    const startedMs = performance.now();
    const gone = new AbortController();
    const onClosing = (): void => gone.abort();
    closing.signal.addEventListener('abort', onClosing, { once: true });
    const [path = ''] = (request.url ?? '').split('?');
    const exchange = { method: request.method ?? '', path, request, response, signal: gone.signal };
    const socket = request.socket;
    const readBefore = socket.bytesRead;
    const writtenBefore = socket.bytesWritten;
    // A body that was refused midway is still being sent: unread, it would block the connection and its client.
    response.once('finish', () => request.resume());
    response.once('close', () => {
      closing.signal.removeEventListener('abort', onClosing);
      gone.abort();
      // The connection of a request that began before the drain would otherwise idle until it times out.
      if (draining) setImmediate(() => server.closeIdleConnections());
      options.onRequest?.({
        kind: kindOf(path),
        method: methodOf(exchange.method),
        status: response.headersSent ? response.statusCode : 0,
        seconds: (performance.now() - startedMs) / 1000,
        requestBytes: socket.bytesRead - readBefore,
        responseBytes: socket.bytesWritten - writtenBefore,
      });
    });
    // A connection that is to end soon should not be used for another request.
    if (draining) response.setHeader('connection', 'close');
    handle(exchange, draining).catch((error: unknown) => sendError(exchange, error));
  });
  const bound = await listenOn(server, address);

  const closed = new Promise<void>((resolve) => server.once('close', resolve));
  const stop = (): void => {
    if (draining) return;
    draining = true;
    server.close();
    server.closeIdleConnections();
  };
  return {
    address: bound,
    async drain() {
      stop();
      await closed;
    },
    async close() {
      stop();
      closing.abort();
      server.closeAllConnections();
      await closed;
    },
  };
}

async function createHttpServer(address: ListenAddress, { tls }: Access, listener: RequestListener): Promise<Server> {
  const common = { maxHeaderSize: limits.headerBytesMax, keepAlive: true };
  let server: Server;
  if (!tls || address.path !== undefined) {
    // An import would read all that the module exports, and so load a client for WebSocket: a tenth of a start.
    server = process.getBuiltinModule('node:http').createServer(common, listener);
  } else {
    const https = await import('node:https');
    server = https.createServer(
      {
        ...common,
        cert: tls.cert,
        key: tls.key,
        minVersion: 'TLSv1.2',
        ...(tls.clientCa && { ca: tls.clientCa, requestCert: true, rejectUnauthorized: true }),
      },
      listener,
    );
  }
  server.maxConnections = limits.connectionsMax;
  server.headersTimeout = limits.headersMs;
  server.requestTimeout = limits.requestMs;
  server.keepAliveTimeout = limits.idleMs;
  server.timeout = limits.idleMs;
  return server;
}

function createRouter(options: HttpServerOptions, address: ListenAddress) {
  const { blobs, actions, checkInstance, maxBlobBytes } = options;
  const readBody = createBodyReader();
  const cas = createCasHandler({ blobs, readBody, maxBlobBytes });
  const ac = createAcHandler({ blobs, actions, readBody, validate: options.validateActionResults });
  const guard = createPageGuard(address);
  const isBearer = address.path === undefined ? bearerCheck(options.bearerToken) : () => true;

  return async (exchange: Exchange, draining: boolean): Promise<void> => {
    const { method, path, request, response } = exchange;
    guard(request.headers);
    if (path === '/healthz') {
      allow(exchange, ['GET', 'HEAD']);
      return sendText(response, draining ? 503 : 200, draining ? 'draining\n' : 'ok\n', method);
    }
    if (!isBearer(request.headers.authorization)) {
      throw new StatusError('UNAUTHENTICATED', 'send the header "authorization: Bearer TOKEN"');
    }
    if (path === '/metrics') {
      allow(exchange, ['GET', 'HEAD']);
      return sendText(response, 200, options.metrics(), method, 'text/plain; version=0.0.4; charset=utf-8');
    }
    if (path === '/api/status') {
      allow(exchange, ['GET', 'HEAD']);
      return sendText(response, 200, `${JSON.stringify(options.status())}\n`, method, 'application/json');
    }
    const api = findApi(options.api, path);
    if (api) {
      allow(exchange, api.methods);
      return sendText(response, 200, `${JSON.stringify(await api.answer(method))}\n`, method, 'application/json');
    }
    const cachePath = parseCachePath(path);
    if (!cachePath) {
      const known =
        '/ac/HASH, /cas/HASH (both after an optional instance name), /metrics, /healthz, /api/status, /api/builds and /api/top';
      throw new StatusError('NOT_FOUND', `nothing is at ${path}; there are ${known}`);
    }
    allow(exchange, ['GET', 'HEAD', 'PUT']);
    checkInstance(cachePath.instance);
    const handler = cachePath.kind === 'ac' ? ac : cas;
    await (method === 'PUT' ? handler.put(exchange, cachePath) : handler.get(exchange, cachePath));
  };
}

function allow(
  { method, response }: { method: string; response: ServerResponse<IncomingMessage> },
  methods: readonly string[],
): void {
  if (methods.includes(method)) return;
  response.setHeader('allow', methods.join(', '));
  throw new HttpError(405, 'UNIMPLEMENTED', `${method} is not possible here; ${methods.join(', ')} are`);
}

function kindOf(path: string): HttpReport['kind'] {
  const [, kind] = /\/(ac|cas)\/(?:blake3\/)?[^/]+$/.exec(path) ?? [];
  return (kind as 'ac' | 'cas' | undefined) ?? 'other';
}

function methodOf(method: string): HttpReport['method'] {
  return method === 'GET' || method === 'HEAD' || method === 'PUT' ? method : 'other';
}
