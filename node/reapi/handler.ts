/**
 * What a gRPC handler is: a plain function over a request (or a stream of them) and a call context.
 *
 * Handlers know nothing of the transport. They throw StatusError; the server turns it into the call's status.
 * The types of a service's handlers come from its generated descriptor.
 */
import type { DescMessage, DescMethod, DescService, Message, MessageShape } from '@bufbuild/protobuf';
import type { RequestMetadata } from '../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';

/** What is known of a call besides its messages. */
export interface CallContext {
  /** Aborted when the client cancels or goes away, when the deadline passes, and when the server closes. */
  readonly signal: AbortSignal;
  /** When the client stops waiting, in ms since the epoch; `undefined` without a deadline. */
  readonly deadlineMs: number | undefined;
  /** Address and port of the other end, or `unix`. For logs, not for identity. */
  readonly peer: string;
  /** A text header by its lower-case name. */
  header(name: string): string | undefined;
  /** A header whose name ends in `-bin`, decoded; `undefined` when absent or not base64. */
  binaryHeader(name: string): Uint8Array | undefined;
  /** The client's RequestMetadata; `undefined` when absent or undecodable (never a reason to fail a call). */
  readonly requestMetadata: RequestMetadata | undefined;
  /** Sends a header after the response; bytes need a name that ends in `-bin`. */
  setTrailer(name: string, value: string | Uint8Array): void;
}

/** A response already in wire form: its parts are sent one after the other without being copied together. */
export interface EncodedMessage {
  readonly wire: readonly Uint8Array[];
}

export type Reply<O> = O | EncodedMessage;

export type UnaryHandler<I, O> = (request: I, context: CallContext) => Promise<Reply<O>>;
/** The iterable is pulled as fast as the client reads, and returned (`finally` runs) when the call ends early. */
export type ServerStreamingHandler<I, O> = (request: I, context: CallContext) => AsyncIterable<Reply<O>>;
/** Resolving before `requests` is exhausted ends the call with OK at once; what the client still sends is discarded. */
export type ClientStreamingHandler<I, O> = (requests: AsyncIterable<I>, context: CallContext) => Promise<Reply<O>>;
export type BidiStreamingHandler<I, O> = (requests: AsyncIterable<I>, context: CallContext) => AsyncIterable<Reply<O>>;

type HandlerOf<M extends Pick<DescMethod, 'methodKind'> & { input: DescMessage; output: DescMessage }> = {
  unary: UnaryHandler<MessageShape<M['input']>, MessageShape<M['output']>>;
  server_streaming: ServerStreamingHandler<MessageShape<M['input']>, MessageShape<M['output']>>;
  client_streaming: ClientStreamingHandler<MessageShape<M['input']>, MessageShape<M['output']>>;
  bidi_streaming: BidiStreamingHandler<MessageShape<M['input']>, MessageShape<M['output']>>;
}[M['methodKind']];

/** One handler for each method of service `S`, by its local name: `ServiceHandlers<typeof ActionCache>`. */
export type ServiceHandlers<S extends DescService> = { readonly [K in keyof S['method']]: HandlerOf<S['method'][K]> };

/**
 * Decodes a request that arrived in several parts without joining them, into requests that mean the same one after the
 * other; `undefined` leaves it to the ordinary decoder.
 */
export type PartsDecoder<I> = (parts: readonly Uint8Array[]) => I[] | undefined;

/** Decoders for the methods, by local name, whose large requests are not worth a copy. */
export type PartsDecoders<S extends DescService> = {
  readonly [K in keyof S['method']]?: PartsDecoder<MessageShape<S['method'][K]['input']>>;
};

/** A service with its handlers, as `serveGrpc` takes it; made by `bindService`, which checks that they fit. */
export interface BoundService {
  readonly service: DescService;
  readonly handlers: Readonly<Record<string, unknown>>;
  readonly decoders: Readonly<Record<string, PartsDecoder<Message> | undefined>>;
}

export function bindService<S extends DescService>(
  service: S,
  handlers: ServiceHandlers<S>,
  decoders: PartsDecoders<S> = {},
): BoundService {
  return {
    service,
    handlers: handlers as BoundService['handlers'],
    decoders: decoders as BoundService['decoders'],
  };
}

/**
 * Output of running actions, readable by ByteStream.Read under its stream name (`stdout_stream_name`).
 * A name holds none of the reserved words of blob names.
 */
export interface LogStreams {
  /**
   * The bytes from `offset` on; ends when the stream is finalised, until then waits for more. `undefined` when there is
   * no such stream.
   */
  read(name: string, offset: number, options: { readonly signal: AbortSignal }): AsyncIterable<Uint8Array> | undefined;
}
