/**
 * One gRPC call on one HTTP/2 stream: request messages in, handler, response messages and status out.
 *
 * Backpressure both ways: a stream of requests is read as fast as the handler pulls, responses are produced as fast as
 * the client takes them. A call ends exactly once: with a status, or by the client going away.
 */
import type { IncomingHttpHeaders, ServerHttp2Stream, ServerStreamResponseOptions } from 'node:http2';
import { constants } from 'node:http2';
import { type DescMethod, fromBinary, type Message, toBinary } from '@bufbuild/protobuf';
import { type Code, codes, StatusError, toStatusError } from '../../protos/status.ts';
import { frameMessage } from './grpc-framing.ts';
import {
  decodeBinaryHeader,
  decodeRequestMetadata,
  encodeBinaryHeader,
  encodeStatusText,
  parseTimeoutMs,
  requestMetadataHeader,
} from './grpc-metadata.ts';
import { type BufferedBytes, createRequestReader } from './grpc-requests.ts';
import { encodeStatusDetails } from './grpc-status.ts';
import type { CallContext, PartsDecoder, Reply } from './handler.ts';
import { limits } from './limits.ts';

/** A method with its handler, found by path. */
export interface Route {
  readonly service: string;
  readonly method: DescMethod;
  // The descriptor and the handler were matched by type in `bindService`; here they meet again without types.
  readonly handler: (request: unknown, context: CallContext) => unknown;
  readonly decodeParts: PartsDecoder<Message> | undefined;
}

/** What happened in a call, for metrics. */
export interface CallReport {
  readonly service: string;
  readonly method: string;
  readonly code: Code;
  readonly seconds: number;
  readonly requestBytes: number;
  readonly responseBytes: number;
}

/** Node adds a date to responses unless told otherwise; its types do not know the option. */
const noDate: ServerStreamResponseOptions & { sendDate: boolean } = { sendDate: false };
const responseHeaders = { ':status': 200, 'content-type': 'application/grpc' };

/** What all calls of a server share. */
export interface CallsShared extends BufferedBytes {
  /** Response bytes that wait for clients. */
  unsentBytes: number;
  readonly onEnd: (report: CallReport) => void;
}

/** Runs one call to its end. Never throws or rejects. */
export function serveCall(
  stream: ServerHttp2Stream,
  headers: IncomingHttpHeaders,
  route: Route,
  shared: CallsShared,
): void {
  const startedMs = performance.now();
  let ended = false;
  let headersSent = false;
  let requestBytes = 0;
  let responseBytes = 0;
  let trailers: Record<string, string> | undefined;
  let deadlineTimer: NodeJS.Timeout | undefined;
  let controller: AbortController | undefined;
  let endedBy: StatusError | undefined;
  let onInterrupt: (() => void) | undefined;
  let unsentBytes = 0;
  let onRoom: (() => void) | undefined;

  const context: { -readonly [K in keyof CallContext]: CallContext[K] } = {
    get signal() {
      if (!controller) {
        controller = new AbortController();
        if (endedBy) controller.abort(endedBy);
      }
      return controller.signal;
    },
    deadlineMs: undefined,
    get peer() {
      const socket = stream.session?.socket;
      return socket?.remoteAddress === undefined ? 'unix' : `${socket.remoteAddress}:${socket.remotePort}`;
    },
    header: (name) => {
      const value = headers[name];
      return Array.isArray(value) ? value[0] : value;
    },
    binaryHeader: (name) => {
      const value = headers[name];
      const first = Array.isArray(value) ? value[0] : value;
      return first === undefined ? undefined : decodeBinaryHeader(first);
    },
    get requestMetadata() {
      return decodeRequestMetadata(context.binaryHeader(requestMetadataHeader));
    },
    setTrailer: (name, value) => {
      trailers ??= {};
      trailers[name] = typeof value === 'string' ? value : encodeBinaryHeader(value);
    },
  };

  const finish = (code: Code) => {
    ended = true;
    onRoom?.();
    clearTimeout(deadlineTimer);
    requests.stop();
    shared.onEnd({
      service: route.service,
      method: route.method.name,
      code,
      seconds: (performance.now() - startedMs) / 1000,
      requestBytes,
      responseBytes,
    });
  };
  /** The call is over for the handler although it did not end it. */
  const interrupt = (error: StatusError) => {
    endedBy = error;
    requests.fail(error);
    controller?.abort(error);
    onInterrupt?.();
  };

  const sendStatus = (error: StatusError | undefined) => {
    if (ended) return;
    finish(error?.code ?? 'OK');
    if (stream.destroyed || stream.closed) return;
    const status = statusHeaders(error, trailers);
    if (headersSent) {
      stream.once('wantTrailers', () => {
        stream.sendTrailers(status);
        discardRest(stream);
      });
      stream.end();
      // A client that does not read on cannot hold an ended call open.
      resetLater(stream, error ? limits.discardMs : limits.stalledMs);
    } else {
      stream.respond({ ...responseHeaders, ...status }, { ...noDate, endStream: true });
      discardRest(stream);
    }
  };
  const fail = (error: unknown) => sendStatus(toStatusError(error));

  /** The client neither sends nor reads what it is waited for. */
  const endStalled = () => {
    const reason = `the client did nothing for ${limits.stalledMs / 1000} s; call again`;
    const error = new StatusError('UNAVAILABLE', reason);
    interrupt(error);
    sendStatus(error);
  };

  const countUnsent = (bytes: number) => {
    unsentBytes += bytes;
    shared.unsentBytes += bytes;
  };
  /** Writes one message; resolves when the next one may be written. Throws RESOURCE_EXHAUSTED when too much waits. */
  const send = (reply: Reply<Message>): Promise<void> | undefined => {
    if (stream.destroyed || stream.closed) return undefined;
    const parts = 'wire' in reply ? reply.wire : [toBinary(route.method.output, reply)];
    const buffers = frameMessage(parts);
    let bytes = 0;
    for (const buffer of buffers) bytes += buffer.byteLength;
    if (shared.unsentBytes + bytes > limits.unsentBytesOfAllMax) {
      throw new StatusError('RESOURCE_EXHAUSTED', 'the server holds too many responses that wait for their clients');
    }
    if (!headersSent) {
      headersSent = true;
      stream.respond(responseHeaders, { ...noDate, waitForTrailers: true });
    }
    responseBytes += bytes;
    countUnsent(bytes);
    if (buffers.length > 1) stream.cork();
    buffers.forEach((buffer, index) => {
      if (index < buffers.length - 1) {
        stream.write(buffer);
        return;
      }
      stream.write(buffer, () => {
        // What was unsent at the close has been counted down.
        if (!stream.destroyed) countUnsent(-bytes);
        onRoom?.();
      });
    });
    if (buffers.length > 1) stream.uncork();
    if (unsentBytes <= limits.unsentBytesMax) return undefined;
    return new Promise((resolve) => {
      const timer = setTimeout(endStalled, limits.stalledMs);
      timer.unref();
      onRoom = () => {
        if (unsentBytes > limits.unsentBytesMax && !ended) return;
        clearTimeout(timer);
        resolve();
      };
    });
  };

  const requests = createRequestReader(stream, shared, {
    streaming: route.method.methodKind === 'client_streaming' || route.method.methodKind === 'bidi_streaming',
    encoding: context.header('grpc-encoding'),
    decodeParts: route.decodeParts,
    decode: (bytes) => {
      try {
        return fromBinary(route.method.input, bytes);
      } catch (error) {
        const reason = `request does not parse as ${route.method.input.typeName}: ${toStatusError(error).reason}`;
        throw new StatusError('INVALID_ARGUMENT', reason);
      }
    },
    onBytes: (bytes) => {
      requestBytes += bytes;
    },
    onStalled: endStalled,
  });

  const timeout = context.header('grpc-timeout');
  if (timeout !== undefined) {
    const timeoutMs = parseTimeoutMs(timeout);
    if (timeoutMs === null) return fail(new StatusError('INVALID_ARGUMENT', `grpc-timeout "${timeout}" is malformed`));
    context.deadlineMs = Date.now() + timeoutMs;
    deadlineTimer = setTimeout(
      () => {
        const error = new StatusError('DEADLINE_EXCEEDED', `the call took longer than its ${timeoutMs} ms`);
        interrupt(error);
        sendStatus(error);
      },
      Math.min(timeoutMs, limits.timerMsMax),
    );
  }
  stream.once('close', () => {
    if (!ended) {
      finish('CANCELLED');
      interrupt(new StatusError('CANCELLED', 'the client went away'));
    }
    countUnsent(-unsentBytes);
  });

  const streamReplies = async (replies: AsyncIterable<Reply<Message>>) => {
    const iterator = replies[Symbol.asyncIterator]();
    try {
      while (!ended) {
        const next = await new Promise<IteratorResult<Reply<Message>> | undefined>((resolve, reject) => {
          onInterrupt = () => resolve(undefined);
          iterator.next().then(resolve, reject);
        });
        if (ended || next === undefined || next.done) return;
        await send(next.value);
      }
    } finally {
      // Not awaited: a generator that waits for something else runs its `finally` when that is over.
      iterator.return?.()?.catch(() => {});
    }
  };

  const run = async () => {
    const { handler, method } = route;
    const single = method.methodKind === 'unary' || method.methodKind === 'server_streaming';
    const request = single ? await requests.only() : requests.all;
    if (ended) return;
    if (method.methodKind === 'unary' || method.methodKind === 'client_streaming') {
      const reply = (await handler(request, context)) as Reply<Message>;
      if (!ended) void send(reply);
    } else {
      await streamReplies(handler(request, context) as AsyncIterable<Reply<Message>>);
    }
    sendStatus(undefined);
  };
  run().catch(fail);
}

function statusHeaders(error: StatusError | undefined, trailers: Record<string, string> | undefined) {
  const status: Record<string, string | number> = { ...trailers, 'grpc-status': error ? codes[error.code] : 0 };
  if (error) {
    status['grpc-message'] = encodeStatusText(error.reason);
    const details = encodeStatusDetails(error);
    if (details) status['grpc-status-details-bin'] = encodeBinaryHeader(details);
  }
  return status;
}

/**
 * After the status, bytes that the client still sends are thrown away as they come: resetting the stream at once would
 * show as CANCELLED at clients that have not read the status yet. One that does not stop is reset after a while.
 */
export function discardRest(stream: ServerHttp2Stream): void {
  stream.resume();
  if (!stream.readableEnded) resetLater(stream, limits.discardMs);
}

function resetLater(stream: ServerHttp2Stream, delayMs: number): void {
  const timer = setTimeout(() => stream.close(constants.NGHTTP2_NO_ERROR), delayMs);
  timer.unref();
  stream.once('close', () => clearTimeout(timer));
}
