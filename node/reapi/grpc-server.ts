/**
 * The gRPC server: addresses, TLS, bearer token, connections, routing to handlers.
 *
 * It stands on node:http2 directly, which docs/adr/0005-grpc-server.md explains with figures.
 */
import { once } from 'node:events';
import {
  createSecureServer,
  createServer,
  type Http2Server,
  type IncomingHttpHeaders,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from 'node:http2';
import type { Socket } from 'node:net';
import { type Access, bearerCheck, refuseUnguarded } from './access.ts';
import { type CallReport, type CallsShared, discardRest, type Route, serveCall } from './grpc-call.ts';
import { encodeStatusText } from './grpc-metadata.ts';
import type { BoundService } from './handler.ts';
import { limits } from './limits.ts';
import { type ListenAddress, listenOn, parseListenAddress } from './listen-address.ts';

/** With `tls`, every TCP address speaks it. A Unix socket is guarded by its mode alone. */
export interface GrpcServerOptions extends Access {
  /** `host:port` (port 0 picks a free one) or `unix:/path`. */
  readonly listen: readonly string[];
  readonly services: readonly BoundService[];
  /** Told once about each call that reached a handler, when it has ended. */
  readonly onCall?: (report: CallReport) => void;
}

export interface GrpcServer {
  /** In the order of `listen`, with the ports that were picked. */
  readonly addresses: readonly string[];
  /** Takes no new connections and no new calls; resolves when the calls under way have ended. */
  drain(): Promise<void>;
  /** Ends everything at once; the signals of calls under way are aborted. */
  close(): Promise<void>;
}

/**
 * Serves on all addresses, or on none. Throws FAILED_PRECONDITION for an address that others could reach unguarded, and
 * when an address is taken.
 */
export async function serveGrpc(options: GrpcServerOptions): Promise<GrpcServer> {
  const addresses = options.listen.map(parseListenAddress);
  for (const address of addresses) refuseUnguarded(address, options);
  const routes = makeRoutes(options.services);
  const shared: CallsShared = { onEnd: options.onCall ?? (() => {}), bufferedBytes: 0, unsentBytes: 0 };
  const sessions = new Set<ServerHttp2Session>();
  const sockets = new Set<Socket>();
  const servers: { readonly server: Http2Server; readonly address: string }[] = [];
  try {
    for (const address of addresses) {
      const server = createHttp2Server(address, options);
      server.maxConnections = limits.connectionsMax;
      server.on('connection', (socket: Socket) => {
        socket.setKeepAlive(true, limits.keepaliveMs);
        sockets.add(socket);
        socket.once('close', () => sockets.delete(socket));
      });
      server.on('session', (session) => {
        sessions.add(session);
        closeWhenIdle(session);
        const hello = setTimeout(() => session.destroy(), limits.helloMs);
        session.once('remoteSettings', () => clearTimeout(hello));
        session.once('close', () => {
          clearTimeout(hello);
          sessions.delete(session);
        });
        session.on('error', () => {});
        // Without this, one connection could never be faster than 64 KiB per round trip.
        session.setLocalWindowSize(limits.connectionWindowBytes);
      });
      server.on('stream', createStreamListener(address, routes, shared, options.bearerToken));
      // A connection that breaks or speaks something else ends by itself; its calls see their streams close.
      server.on('sessionError', () => {});
      server.on('clientError', (_error, socket) => socket.destroy());
      servers.push({ server, address: await listenOn(server, address) });
    }
  } catch (error) {
    for (const { server } of servers) server.close();
    throw error;
  }

  const closed = Promise.all(servers.map(({ server }) => once(server, 'close')));
  let stopping = false;
  const stop = () => {
    if (stopping) return;
    stopping = true;
    for (const { server } of servers) server.close();
  };
  return {
    addresses: servers.map(({ address }) => address),
    async drain() {
      stop();
      for (const session of sessions) session.close();
      await closed;
    },
    async close() {
      stop();
      // Not by `once` of node:events, which fails when a session breaks meanwhile.
      const ended = [...sessions].map((session) => new Promise<void>((resolve) => session.once('close', resolve)));
      for (const session of sessions) session.destroy();
      // The sessions alone would wait for clients that do not read.
      for (const socket of sockets) socket.destroy();
      await Promise.all([closed, ...ended]);
    },
  };
}

function createHttp2Server(address: ListenAddress, { tls }: GrpcServerOptions): Http2Server {
  const common = {
    settings: {
      initialWindowSize: limits.streamWindowBytes,
      maxConcurrentStreams: limits.streamsMax,
      maxHeaderListSize: limits.headerBytesMax,
      maxFrameSize: limits.frameBytesMax,
      enablePush: false,
    },
    // In MB. Node would refuse streams when responses in flight add up to its default of 10; our own bounds are per stream.
    maxSessionMemory: 16_384,
  };
  if (!tls || address.path !== undefined) return createServer(common);
  return createSecureServer({
    ...common,
    cert: tls.cert,
    key: tls.key,
    minVersion: 'TLSv1.2',
    handshakeTimeout: limits.helloMs,
    ALPNProtocols: ['h2'],
    ...(tls.clientCa ? { ca: tls.clientCa, requestCert: true, rejectUnauthorized: true } : {}),
  });
}

function makeRoutes(services: readonly BoundService[]): ReadonlyMap<string, Route> {
  const routes = new Map<string, Route>();
  for (const { service, handlers, decoders } of services) {
    for (const method of service.methods) {
      const handler = handlers[method.localName] as Route['handler'];
      const decodeParts = decoders[method.localName];
      routes.set(`/${service.typeName}/${method.name}`, { service: service.typeName, method, handler, decodeParts });
    }
  }
  return routes;
}

/** Messages are protobuf. */
const contentType = /^application\/grpc(?:\+proto)?\s*(?:;|$)/i;

function createStreamListener(
  address: ListenAddress,
  routes: ReadonlyMap<string, Route>,
  shared: CallsShared,
  bearerToken: string | undefined,
) {
  const isBearer = address.path === undefined ? bearerCheck(bearerToken) : () => true;

  return (stream: ServerHttp2Stream, headers: IncomingHttpHeaders): void => {
    // Resets surface as errors; the call itself learns of them by the stream's close.
    stream.on('error', () => {});
    if (headers[':method'] !== 'POST' || !contentType.test(headers['content-type'] ?? '')) {
      stream.respond({ ':status': headers[':method'] === 'POST' ? 415 : 405 }, { endStream: true });
      discardRest(stream);
      return;
    }
    if (!isBearer(headers.authorization)) {
      return refuse(stream, 16, 'this server needs a bearer token: send the header "authorization: Bearer TOKEN"');
    }
    const path = headers[':path'] as string;
    const route = routes.get(path);
    if (!route) return refuse(stream, 12, `${path} is not served here`);
    serveCall(stream, headers, route, shared);
  };
}

/** Ends a call that reaches no handler. */
function refuse(stream: ServerHttp2Stream, code: number, reason: string): void {
  const headers = {
    ':status': 200,
    'content-type': 'application/grpc',
    'grpc-status': code,
    'grpc-message': encodeStatusText(reason),
  };
  stream.respond(headers, { endStream: true });
  discardRest(stream);
}

/** A connection on which no call has been under way for `idleConnectionMs` is closed in good order. */
function closeWhenIdle(session: ServerHttp2Session): void {
  let calls = 0;
  const arm = (): NodeJS.Timeout => setTimeout(() => session.close(), limits.idleConnectionMs).unref();
  let timer = arm();
  session.on('stream', (stream) => {
    calls += 1;
    clearTimeout(timer);
    stream.once('close', () => {
      calls -= 1;
      if (calls === 0 && !session.closed) timer = arm();
    });
  });
  session.once('close', () => clearTimeout(timer));
}
