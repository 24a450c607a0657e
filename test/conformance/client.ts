/**
 * A raw gRPC client: calls never throw, they answer with the status, the details and the trailers as they were sent.
 *
 * One connection per client. Messages are protobuf-es; anything on the wire that is not in the messages (metadata,
 * half-closes, messages that are not valid) can be reached too.
 */
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import type { DescMessage, DescMethod, MessageInitShape, MessageShape } from '@bufbuild/protobuf';
import type { Any } from '@bufbuild/protobuf/wkt';
import * as grpc from '@grpc/grpc-js';
import { StatusSchema } from '../../protos/gen/google/rpc/status_pb.ts';
import { type Code, codeName } from '../../protos/status.ts';

/** No call of the suite waits longer than this unless it says so. */
const callDeadlineMs = 30_000;
const maxMessageBytes = 256 * 1024 * 1024;

export interface Outcome {
  readonly code: Code;
  readonly message: string;
  /** The details of `grpc-status-details-bin`, empty when there was none. */
  readonly details: readonly Any[];
  readonly trailers: grpc.Metadata;
}

export interface Reply<T> extends Outcome {
  /** Set when the code is OK. */
  readonly response?: T;
}

export interface StreamReply<T> extends Outcome {
  readonly messages: readonly T[];
  /** When each message arrived, counted from the call. */
  readonly atMs: readonly number[];
}

export interface CallOptions {
  readonly metadata?: Readonly<Record<string, string | Uint8Array>>;
  readonly deadlineMs?: number;
  readonly signal?: AbortSignal;
}

/** A client-streaming call under way. */
export interface Upload<I, O> {
  /** Resolves when the transport took the message; false when the call is over already. */
  send(message: I): Promise<boolean>;
  halfClose(): void;
  cancel(): void;
  readonly reply: Promise<Reply<O>>;
}

/** A server-streaming call under way. */
export interface Download<O> {
  /** Ends with the stream, whatever its status. */
  readonly messages: AsyncIterable<O>;
  readonly outcome: Promise<Outcome>;
  cancel(): void;
}

export interface Client {
  unary<I extends DescMessage, O extends DescMessage>(
    method: Method<'unary', I, O>,
    request: MessageInitShape<I> | Uint8Array,
    options?: CallOptions,
  ): Promise<Reply<MessageShape<O>>>;
  collect<I extends DescMessage, O extends DescMessage>(
    method: Method<'server_streaming', I, O>,
    request: MessageInitShape<I> | Uint8Array,
    options?: CallOptions,
  ): Promise<StreamReply<MessageShape<O>>>;
  download<I extends DescMessage, O extends DescMessage>(
    method: Method<'server_streaming', I, O>,
    request: MessageInitShape<I>,
    options?: CallOptions,
  ): Download<MessageShape<O>>;
  upload<I extends DescMessage, O extends DescMessage>(
    method: Method<'client_streaming', I, O>,
    options?: CallOptions,
  ): Upload<MessageInitShape<I>, MessageShape<O>>;
  close(): void;
}

type Method<K extends DescMethod['methodKind'], I extends DescMessage, O extends DescMessage> = DescMethod & {
  methodKind: K;
  input: I;
  output: O;
};

export function connect(target: string): Client {
  const client = new grpc.Client(target, grpc.credentials.createInsecure(), {
    'grpc.max_receive_message_length': maxMessageBytes,
    'grpc.max_send_message_length': maxMessageBytes,
    'grpc.enable_retries': 0,
    // Two clients of one process would otherwise share their connection.
    'grpc.use_local_subchannel_pool': 1,
    'grpc.initial_reconnect_backoff_ms': 100,
  });

  function download<I extends DescMessage, O extends DescMessage>(
    method: Method<'server_streaming', I, O>,
    request: MessageInitShape<I> | Uint8Array,
    options: CallOptions = {},
  ): Download<MessageShape<O>> {
    const { metadata, call: callOptions } = prepared(options);
    const call = client.makeServerStreamRequest(
      methodPath(method),
      (bytes: Uint8Array) => Buffer.from(bytes),
      decoder(method.output),
      encoded(method.input, request),
      metadata,
      callOptions,
    );
    const outcome = new Promise<Outcome>((resolve) => {
      call.on('status', (status: grpc.StatusObject) => resolve(outcomeOf(status)));
    });
    // The same status arrives as an error event as well.
    call.on('error', () => {});
    linkSignal(options.signal, call);
    return {
      messages: {
        async *[Symbol.asyncIterator]() {
          try {
            for await (const message of call) yield message as MessageShape<O>;
          } catch {
            // Told by `outcome`.
          }
        },
      },
      outcome,
      cancel: () => call.cancel(),
    };
  }

  return {
    download,
    unary: (method, request, options = {}) =>
      new Promise((resolve) => {
        const { metadata, call: callOptions } = prepared(options);
        let response: MessageShape<typeof method.output> | undefined;
        const call = client.makeUnaryRequest(
          methodPath(method),
          (bytes: Uint8Array) => Buffer.from(bytes),
          decoder(method.output),
          encoded(method.input, request),
          metadata,
          callOptions,
          (_error, value) => {
            response = value;
          },
        );
        call.on('status', (status: grpc.StatusObject) => setImmediate(() => resolve(replyOf(status, response))));
        linkSignal(options.signal, call);
      }),
    async collect(method, request, options) {
      const startMs = performance.now();
      const { messages, outcome } = download(method, request, options);
      const got: MessageShape<typeof method.output>[] = [];
      const atMs: number[] = [];
      for await (const message of messages) {
        got.push(message);
        atMs.push(performance.now() - startMs);
      }
      return { ...(await outcome), messages: got, atMs };
    },
    upload(method, options = {}) {
      const { metadata, call: callOptions } = prepared(options);
      let response: MessageShape<typeof method.output> | undefined;
      const call = client.makeClientStreamRequest(
        methodPath(method),
        (bytes: Uint8Array) => Buffer.from(bytes),
        decoder(method.output),
        metadata,
        callOptions,
        (_error, value) => {
          response = value;
        },
      );
      let over = false;
      const reply = new Promise<Reply<MessageShape<typeof method.output>>>((resolve) => {
        call.on('status', (status: grpc.StatusObject) => {
          over = true;
          setImmediate(() => resolve(replyOf(status, response)));
        });
      });
      call.on('error', () => {});
      linkSignal(options.signal, call);
      return {
        reply,
        async send(message) {
          if (over) return false;
          const taken = new Promise<boolean>((resolve) => {
            call.write(encoded(method.input, message), (error?: Error | null) => resolve(!error));
          });
          await Promise.race([taken, reply]);
          return !over;
        },
        halfClose: () => {
          if (!over) call.end();
        },
        cancel: () => call.cancel(),
      };
    },
    close: () => client.close(),
  };
}

export function methodPath(method: DescMethod): string {
  return `/${method.parent.typeName}/${method.name}`;
}

function encoded<D extends DescMessage>(schema: D, message: MessageInitShape<D> | Uint8Array): Uint8Array {
  return message instanceof Uint8Array ? message : toBinary(schema, create(schema, message));
}

function decoder<D extends DescMessage>(schema: D): (bytes: Buffer) => MessageShape<D> {
  return (bytes) => fromBinary(schema, bytes);
}

function prepared(options: CallOptions): { metadata: grpc.Metadata; call: grpc.CallOptions } {
  const metadata = new grpc.Metadata();
  for (const [key, value] of Object.entries(options.metadata ?? {})) {
    metadata.set(key, typeof value === 'string' ? value : Buffer.from(value));
  }
  return { metadata, call: { deadline: Date.now() + (options.deadlineMs ?? callDeadlineMs) } };
}

function linkSignal(signal: AbortSignal | undefined, call: { cancel(): void }): void {
  if (signal?.aborted) call.cancel();
  else signal?.addEventListener('abort', () => call.cancel(), { once: true });
}

function outcomeOf(status: grpc.StatusObject): Outcome {
  const [packed] = status.metadata.get('grpc-status-details-bin');
  let details: readonly Any[] = [];
  if (packed instanceof Uint8Array) {
    try {
      details = fromBinary(StatusSchema, packed).details;
    } catch {
      // Details that cannot be read count as none; the rules that need them will say so.
    }
  }
  return { code: codeName(status.code), message: status.details, details, trailers: status.metadata };
}

function replyOf<T>(status: grpc.StatusObject, response: T | undefined): Reply<T> {
  const outcome = outcomeOf(status);
  return outcome.code === 'OK' && response !== undefined ? { ...outcome, response } : outcome;
}
