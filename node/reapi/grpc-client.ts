/**
 * The client side of gRPC: typed calls made from generated service descriptors.
 *
 * The one file that knows @grpc/grpc-js, which brings connection management (reconnects, back-off, name resolution).
 */
import {
  create,
  type DescMessage,
  type DescMethod,
  type DescService,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from '@bufbuild/protobuf';
import * as grpc from '@grpc/grpc-js';
import { StatusError, toStatusError } from '../../protos/status.ts';
import { fromCallStatus } from './grpc-status.ts';
import { limits } from './limits.ts';

export interface GrpcClientOptions {
  /** Present: TLS. `ca` defaults to the system's authorities; `cert` and `key` identify the client. All PEM. */
  readonly tls?: {
    readonly ca?: Buffer;
    readonly cert?: Buffer;
    readonly key?: Buffer;
    /** The name the server's certificate is checked against, when it is not the address's host. */
    readonly serverName?: string;
  };
  readonly bearerToken?: string;
  /** Sent with every call; values of names that end in `-bin` are bytes. */
  readonly headers?: GrpcHeaders;
}

export type GrpcHeaders = Readonly<Record<string, string | Uint8Array>>;

export interface GrpcCallOptions {
  readonly signal?: AbortSignal;
  /** How long to wait for the end of the call; no limit by default. */
  readonly timeoutMs?: number;
  readonly headers?: GrpcHeaders;
}

type In<M extends { input: DescMessage }> = MessageInitShape<M['input']>;
type Out<M extends { output: DescMessage }> = MessageShape<M['output']>;
type CallOf<M extends Pick<DescMethod, 'methodKind'> & { input: DescMessage; output: DescMessage }> = {
  unary: (request: In<M>, options?: GrpcCallOptions) => Promise<Out<M>>;
  server_streaming: (request: In<M>, options?: GrpcCallOptions) => AsyncIterable<Out<M>>;
  client_streaming: (requests: AsyncIterable<In<M>>, options?: GrpcCallOptions) => Promise<Out<M>>;
  bidi_streaming: (requests: AsyncIterable<In<M>>, options?: GrpcCallOptions) => AsyncIterable<Out<M>>;
}[M['methodKind']];

/**
 * The methods of service `S`. Every failure is a StatusError with the server's code, text and details. A stream of
 * requests is pulled as fast as the server takes it, and returned when the server answers before its end.
 */
export type GrpcClient<S extends DescService> = { readonly [K in keyof S['method']]: CallOf<S['method'][K]> };

export interface GrpcConnection {
  client<S extends DescService>(service: S): GrpcClient<S>;
  /** Ends the connection; calls under way fail with CANCELLED. */
  close(): void;
}

/**
 * A connection to one server, made lazily at the first call and made anew when it breaks.
 *
 * @param address - `host:port`, `grpc://host:port`, `grpcs://host:port` (TLS) or `unix:/path`
 */
export function connectGrpc(address: string, options: GrpcClientOptions = {}): GrpcConnection {
  const { target, secure } = parseTarget(address, options);
  const { tls } = options;
  const credentials = secure
    ? grpc.credentials.createSsl(tls?.ca ?? null, tls?.key ?? null, tls?.cert ?? null)
    : grpc.credentials.createInsecure();
  const client = new grpc.Client(target, credentials, {
    'grpc.max_receive_message_length': limits.clientMessageBytesMax,
    'grpc.max_send_message_length': limits.clientMessageBytesMax,
    'grpc-node.flow_control_window': limits.streamWindowBytes,
    'grpc.enable_http_proxy': 0,
    'grpc.service_config_disable_resolution': 1,
    ...(tls?.serverName === undefined
      ? {}
      : { 'grpc.ssl_target_name_override': tls.serverName, 'grpc.default_authority': tls.serverName }),
  });
  return {
    client: (service) => makeClient(client, service, options),
    close: () => client.close(),
  };
}

function parseTarget(address: string, options: GrpcClientOptions): { target: string; secure: boolean } {
  const match = /^(?:(grpcs?):\/\/)?(.+)$/.exec(address);
  if (!match) throw new StatusError('INVALID_ARGUMENT', `"${address}" is not an address; use host:port or unix:/path`);
  const target = match[2] as string;
  const secure = match[1] === 'grpcs' || options.tls !== undefined;
  return { target: target.startsWith('unix:') ? target : `dns:${target}`, secure: secure && match[1] !== 'grpc' };
}

function makeClient<S extends DescService>(
  client: grpc.Client,
  service: S,
  connection: GrpcClientOptions,
): GrpcClient<S> {
  const calls: Record<string, unknown> = {};
  for (const method of service.methods) {
    const wire = {
      path: `/${service.typeName}/${method.name}`,
      serialize: (message: MessageInitShape<DescMessage>) => {
        const bytes = toBinary(method.input, create(method.input, message));
        return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
      },
      deserialize: (bytes: Buffer) => fromBinary(method.output, bytes),
    };
    calls[method.localName] = makeCall(client, method.methodKind, wire, connection);
  }
  return calls as GrpcClient<S>;
}

interface WireMethod {
  readonly path: string;
  readonly serialize: (message: MessageInitShape<DescMessage>) => Buffer;
  readonly deserialize: (bytes: Buffer) => MessageShape<DescMessage>;
}
type AnyMessage = MessageInitShape<DescMessage>;

function makeCall(
  client: grpc.Client,
  kind: DescMethod['methodKind'],
  wire: WireMethod,
  connection: GrpcClientOptions,
) {
  const { path, serialize, deserialize } = wire;
  const metadata = (options: GrpcCallOptions) => toMetadata(connection, options);
  switch (kind) {
    case 'unary':
      return (request: AnyMessage, options: GrpcCallOptions = {}) =>
        single(options, (done) =>
          client.makeUnaryRequest(path, serialize, deserialize, request, metadata(options), deadline(options), done),
        );
    case 'client_streaming':
      return (requests: AsyncIterable<AnyMessage>, options: GrpcCallOptions = {}) =>
        single(options, (done) => {
          const source: RequestSource = { requests };
          const headers = metadata(options);
          const call = client.makeClientStreamRequest(
            path,
            serialize,
            deserialize,
            headers,
            deadline(options),
            (error, value) => done(error, value, source),
          );
          void feed(call, source);
          return call;
        });
    case 'server_streaming':
      return (request: AnyMessage, options: GrpcCallOptions = {}) =>
        many(options, () =>
          client.makeServerStreamRequest(path, serialize, deserialize, request, metadata(options), deadline(options)),
        );
    case 'bidi_streaming':
      return (requests: AsyncIterable<AnyMessage>, options: GrpcCallOptions = {}) =>
        many(options, (source) => {
          source.requests = requests;
          const call = client.makeBidiStreamRequest(path, serialize, deserialize, metadata(options), deadline(options));
          void feed(call, source);
          return call;
        });
  }
}

/** The requests of a call, and why they ended early: then that is why the call failed. */
interface RequestSource {
  requests?: AsyncIterable<AnyMessage>;
  failure?: unknown;
}

type Done = (error: grpc.ServiceError | null, value?: MessageShape<DescMessage>, source?: RequestSource) => void;

/** A call with one response. */
function single(options: GrpcCallOptions, start: (done: Done) => { cancel(): void }) {
  const { signal } = options;
  return new Promise<MessageShape<DescMessage>>((resolve, reject) => {
    if (signal?.aborted) return reject(cancelled(signal));
    const cancel = () => call.cancel();
    const call = start((error, value, source) => {
      signal?.removeEventListener('abort', cancel);
      if (error) reject(toCallError(error, signal, source));
      else resolve(value as MessageShape<DescMessage>);
    });
    signal?.addEventListener('abort', cancel, { once: true });
  });
}

/** A call with a stream of responses; leaving the loop early cancels the call. */
async function* many(
  options: GrpcCallOptions,
  start: (source: RequestSource) => AsyncIterable<MessageShape<DescMessage>> & { cancel(): void },
) {
  const { signal } = options;
  if (signal?.aborted) throw cancelled(signal);
  const source: RequestSource = {};
  const call = start(source);
  const cancel = () => call.cancel();
  signal?.addEventListener('abort', cancel, { once: true });
  try {
    yield* call;
  } catch (error) {
    throw toCallError(error as grpc.ServiceError, signal, source);
  } finally {
    signal?.removeEventListener('abort', cancel);
    cancel();
  }
}

interface RequestSink {
  write(message: AnyMessage): boolean;
  end(): void;
  cancel(): void;
  once(event: string, listener: () => void): unknown;
  off(event: string, listener: () => void): unknown;
}

/** Writes requests with backpressure until they or the call end. A request stream that throws cancels the call. */
async function feed(call: RequestSink, source: RequestSource): Promise<void> {
  let ended = false;
  let wake = () => {};
  const onStatus = () => {
    ended = true;
    wake();
  };
  call.once('status', onStatus);
  call.once('close', onStatus);
  try {
    for await (const message of source.requests ?? []) {
      if (ended) return;
      if (call.write(message)) continue;
      await new Promise<void>((resolve) => {
        wake = resolve;
        call.once('drain', resolve);
      });
      if (ended) return;
    }
    call.end();
  } catch (error) {
    source.failure = error;
    call.cancel();
  }
}

function deadline(options: GrpcCallOptions): grpc.CallOptions {
  return options.timeoutMs === undefined ? {} : { deadline: Date.now() + options.timeoutMs };
}

function toMetadata(connection: GrpcClientOptions, options: GrpcCallOptions): grpc.Metadata {
  const metadata = new grpc.Metadata();
  if (connection.bearerToken !== undefined) metadata.set('authorization', `Bearer ${connection.bearerToken}`);
  for (const headers of [connection.headers, options.headers]) {
    for (const [name, value] of Object.entries(headers ?? {})) {
      metadata.set(name, typeof value === 'string' ? value : Buffer.from(value));
    }
  }
  return metadata;
}

function cancelled(signal: AbortSignal): StatusError {
  return new StatusError('CANCELLED', 'the call was cancelled', { cause: signal.reason });
}

function toCallError(error: grpc.ServiceError, signal: AbortSignal | undefined, source: RequestSource = {}): Error {
  if (signal?.aborted) return cancelled(signal);
  if ('failure' in source) return toStatusError(source.failure, 'requests');
  const details = error.metadata?.get('grpc-status-details-bin')[0];
  return fromCallStatus(error.code, error.details ?? error.message, Buffer.isBuffer(details) ? details : undefined);
}
