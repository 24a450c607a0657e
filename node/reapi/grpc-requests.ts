/** The requests of one gRPC call: framed, inflated, decoded, read as fast as the handler pulls them. */
import type { ServerHttp2Stream } from 'node:http2';
import type { Message } from '@bufbuild/protobuf';
import { StatusError, toStatusError } from '../../protos/status.ts';
import { createFrameDecoder, decompressMessage, type FramedMessage, joinParts } from './grpc-framing.ts';
import type { PartsDecoder } from './handler.ts';
import { limits } from './limits.ts';

export interface BufferedBytes {
  /** Request bytes that wait to be complete or to be pulled, or that are worked on, of all calls together. */
  bufferedBytes: number;
}

export interface RequestReader {
  /** The one request of a method that takes one; waits for the client's half-close. */
  only(): Promise<Message>;
  /** Requests as the handler pulls them. Throws what `fail` was given. */
  readonly all: AsyncIterable<Message>;
  /** Throws away what is queued and arrives from now on. */
  stop(): void;
  fail(error: StatusError): void;
}

export function createRequestReader(
  stream: ServerHttp2Stream,
  shared: BufferedBytes,
  options: {
    readonly streaming: boolean;
    readonly encoding: string | undefined;
    readonly decode: (bytes: Uint8Array) => Message;
    readonly decodeParts: PartsDecoder<Message> | undefined;
    readonly onBytes: (bytes: number) => void;
    /** A request that is waited for did not come within `limits.stalledMs`. */
    readonly onStalled: () => void;
  },
): RequestReader {
  const decoder = createFrameDecoder(limits.messageBytesMax);
  const queue: FramedMessage[] = [];
  /** Requests that one message was divided into, and that were not pulled yet. */
  const divided: Message[] = [];
  let queuedBytes = 0;
  /** Of the request that was pulled last. */
  let takenBytes = 0;
  let halfClosed = false;
  let stopped = false;
  let failure: StatusError | undefined;
  let wake = () => {};
  /** This call's share of `shared.bufferedBytes`. */
  let countedBytes = 0;
  const count = (bytes: number) => {
    shared.bufferedBytes += bytes - countedBytes;
    countedBytes = bytes;
  };
  const countAll = () => {
    count(takenBytes + queuedBytes + decoder.heldBytes);
    if (shared.bufferedBytes > limits.bufferedRequestBytesMax) {
      throw new StatusError('RESOURCE_EXHAUSTED', 'the server holds too many unfinished requests; try again later');
    }
  };
  const costOf = ({ sizeBytes }: FramedMessage) => sizeBytes + limits.requestOverheadBytes;

  stream.on('data', (chunk: Buffer) => {
    if (stopped || failure) return;
    options.onBytes(chunk.byteLength);
    try {
      for (const message of decoder.push(chunk)) {
        queue.push(message);
        queuedBytes += costOf(message);
      }
      if (!options.streaming && queue.length > 1) throw notOne(queue.length);
      countAll();
    } catch (error) {
      failure = toStatusError(error);
    }
    if (options.streaming && queuedBytes > limits.queuedRequestBytesMax) stream.pause();
    if (queue.length > 0 || failure) wake();
  });
  stream.on('end', () => {
    halfClosed = true;
    if (decoder.heldBytes > 0 && !failure) failure = new StatusError('INVALID_ARGUMENT', 'the last message is cut off');
    wake();
  });

  const changed = () =>
    new Promise<void>((resolve) => {
      const timer = setTimeout(options.onStalled, limits.stalledMs);
      timer.unref();
      wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  const inflate = async ({ parts }: FramedMessage) => {
    const bytes = await decompressMessage(joinParts(parts), options.encoding, limits.messageBytesMax);
    takenBytes = bytes.byteLength;
    if (!stopped && !failure) countAll();
    return options.decode(bytes);
  };
  const open = (message: FramedMessage): Message | Promise<Message> => {
    if (message.compressed) return inflate(message);
    const requests = message.parts.length > 1 ? options.decodeParts?.(message.parts) : undefined;
    if (!requests) return options.decode(joinParts(message.parts));
    divided.push(...requests);
    return divided.shift() as Message;
  };

  return {
    async only() {
      while (!halfClosed && !failure) await changed();
      if (failure) throw failure;
      if (queue.length !== 1) throw notOne(queue.length);
      return open(queue.pop() as FramedMessage);
    },
    all: {
      [Symbol.asyncIterator]() {
        return {
          async next() {
            const part = divided.shift();
            if (part) return { done: false, value: part };
            while (queue.length === 0 && !halfClosed && !failure && !stopped) await changed();
            const message = queue.shift();
            if (message) {
              queuedBytes -= costOf(message);
              takenBytes = message.sizeBytes;
              countAll();
              if (queuedBytes <= limits.queuedRequestBytesMax && stream.isPaused()) stream.resume();
              return { done: false, value: await open(message) };
            }
            if (failure) throw failure;
            return { done: true, value: undefined };
          },
          async return() {
            return { done: true, value: undefined };
          },
        };
      },
    },
    stop() {
      stopped = true;
      queue.length = 0;
      divided.length = 0;
      count(0);
      wake();
    },
    fail(error) {
      failure ??= error;
      queue.length = 0;
      divided.length = 0;
      count(0);
      wake();
    },
  };
}

function notOne(count: number): StatusError {
  return new StatusError('INVALID_ARGUMENT', `the method takes one request message, not ${count}`);
}
