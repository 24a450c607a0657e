/**
 * ByteStream: blobs of any size, plain or as zstd, and the live output of actions.
 *
 * @see google.bytestream.ByteStream, and REAPI v2.12, service ContentAddressableStorage, for the names
 */
import { create } from '@bufbuild/protobuf';
import type { Digest } from '../../protos/digest.ts';
import {
  type ByteStream,
  QueryWriteStatusResponseSchema,
  type WriteRequest,
  type WriteResponse,
  WriteResponseSchema,
} from '../../protos/gen/google/bytestream/bytestream_pb.ts';
import { StatusError } from '../../protos/status.ts';
import type { BlobStore } from '../storage/blob-store.ts';
import { resourceNameHeader } from './grpc-metadata.ts';
import type { CallContext, EncodedMessage, LogStreams, ServiceHandlers } from './handler.ts';
import type { InstanceCheck } from './instances.ts';
import { limits } from './limits.ts';
import { parseReadName, parseWriteName, type UploadName } from './resource-name.ts';
import { createUploads, type Upload, type Uploads } from './uploads.ts';
import { compressBlob, compressStream, decompressStream } from './zstd.ts';

export interface ByteStreamConfig {
  readonly maxBlobBytes: number;
  readonly logStreams?: LogStreams;
}

export function createByteStream(
  blobs: BlobStore,
  checkInstance: InstanceCheck,
  config: ByteStreamConfig,
): ServiceHandlers<typeof ByteStream> {
  const uploads = createUploads(blobs);
  const unpack = createUnpacker();
  return {
    async *read(request, context) {
      const { resourceName } = request;
      checkNameHeader(resourceName, context);
      const offset = Number(request.readOffset);
      const limit = Number(request.readLimit);
      if (offset < 0) throw new StatusError('OUT_OF_RANGE', `read_offset ${offset} is negative`);
      if (limit < 0) throw new StatusError('INVALID_ARGUMENT', `read_limit ${limit} is negative`);
      const name = parseReadName(resourceName);
      if (!name) {
        yield* readLog(config.logStreams, resourceName, offset, limit, context.signal);
        return;
      }
      checkInstance(name.instance);
      if (name.compressor === 'zstd' && limit !== 0) {
        throw new StatusError('INVALID_ARGUMENT', 'read_limit must be 0 when reading compressed');
      }
      if (offset > name.digest.sizeBytes) {
        throw new StatusError(
          'OUT_OF_RANGE',
          `read_offset ${offset} is beyond the blob's ${name.digest.sizeBytes} bytes`,
        );
      }
      const rest = name.digest.sizeBytes - offset;
      const range = { offset, length: limit === 0 ? rest : Math.min(limit, rest) };
      yield* readBlob(blobs, name.digest, range, name.compressor === 'zstd', context.signal);
    },

    async write(requests, context) {
      const iterator = requests[Symbol.asyncIterator]();
      const { value: first, done } = await iterator.next();
      if (done) throw new StatusError('INVALID_ARGUMENT', 'Write without a request');
      checkNameHeader(first.resourceName, context);
      const name = parseWriteName(first.resourceName);
      checkInstance(name.instance);
      const { digest } = name;
      if (digest.sizeBytes > config.maxBlobBytes) {
        const reason = `blob of ${digest.sizeBytes} bytes; the limit is ${config.maxBlobBytes}`;
        throw new StatusError('INVALID_ARGUMENT', reason);
      }
      if (isWholeSmallBlob(first, name) && uploads.committedBytes(first.resourceName) === undefined) {
        return writeSmall(blobs, digest, first.data, iterator);
      }
      if ((await blobs.missing([digest], { signal: context.signal })).length === 0) return earlySuccess(name);
      return writeStream({ uploads, unpack }, name, first, iterator, context);
    },

    async queryWriteStatus({ resourceName }, context) {
      checkNameHeader(resourceName, context);
      const { digest, instance } = parseWriteName(resourceName);
      checkInstance(instance);
      if ((await blobs.missing([digest], { signal: context.signal })).length === 0) {
        return create(QueryWriteStatusResponseSchema, { committedSize: BigInt(digest.sizeBytes), complete: true });
      }
      const committedBytes = uploads.committedBytes(resourceName);
      if (committedBytes === undefined) throw new StatusError('NOT_FOUND', `no upload named ${resourceName}`);
      return create(QueryWriteStatusResponseSchema, { committedSize: BigInt(committedBytes), complete: false });
    },
  };
}

/** A proxy may route by the header; a header that says something else than the message would fool it. */
function checkNameHeader(resourceName: string, context: CallContext): void {
  const header = context.header(resourceNameHeader);
  if (header !== undefined && header !== resourceName) {
    throw new StatusError(
      'INVALID_ARGUMENT',
      `header ${resourceNameHeader} says "${header}", the message "${resourceName}"`,
    );
  }
}

async function* readBlob(
  blobs: BlobStore,
  digest: Digest,
  range: { offset: number; length: number },
  zstd: boolean,
  signal: AbortSignal,
): AsyncGenerator<EncodedMessage> {
  const missing = () => new StatusError('NOT_FOUND', `blob ${digest.hash}/${digest.sizeBytes} is not held here`);
  if (digest.sizeBytes <= limits.smallBlobBytes) {
    const bytes = await blobs.get(digest, { signal });
    if (!bytes) throw missing();
    const part = bytes.subarray(range.offset, range.offset + range.length);
    if (zstd) yield encodeReadResponse(compressBlob(part));
    else if (part.byteLength > 0) yield encodeReadResponse(part);
    return;
  }
  await using reader = await blobs.open(digest, { signal });
  if (!reader) throw missing();
  const content = reader.read(range, { signal });
  for await (const chunk of zstd ? compressStream(content, range.length) : content) yield encodeReadResponse(chunk);
}

async function* readLog(
  logStreams: LogStreams | undefined,
  name: string,
  offset: number,
  limit: number,
  signal: AbortSignal,
): AsyncGenerator<EncodedMessage> {
  const content = logStreams?.read(name, offset, { signal });
  if (!content) throw new StatusError('NOT_FOUND', `there is nothing to read named "${name.slice(0, 300)}"`);
  let room = limit === 0 ? Number.POSITIVE_INFINITY : limit;
  for await (const chunk of content) {
    const part = chunk.byteLength > room ? chunk.subarray(0, room) : chunk;
    room -= part.byteLength;
    if (part.byteLength > 0) yield encodeReadResponse(part);
    if (room === 0) return;
  }
}

/** A ReadResponse around `data`, which is not copied: tag of field 10, length, bytes. */
function encodeReadResponse(data: Uint8Array): EncodedMessage {
  const prefix = [0x52];
  let length = data.byteLength;
  while (length > 0x7f) {
    prefix.push((length & 0x7f) | 0x80);
    length >>>= 7;
  }
  prefix.push(length);
  return { wire: [Uint8Array.from(prefix), data] };
}

function isWholeSmallBlob(first: WriteRequest, { digest, compressor }: UploadName): boolean {
  return (
    compressor === 'identity' &&
    first.finishWrite &&
    first.writeOffset === 0n &&
    first.data.byteLength === digest.sizeBytes &&
    digest.sizeBytes <= limits.smallBlobBytes
  );
}

/** Most blobs arrive whole in one message: they share the store's batch path. */
async function writeSmall(
  blobs: BlobStore,
  digest: Digest,
  bytes: Uint8Array,
  rest: AsyncIterator<WriteRequest>,
): Promise<WriteResponse> {
  const [failure] = await blobs.putMany([{ digest, bytes }]);
  if (failure) throw failure;
  await nothingFollows(rest);
  return create(WriteResponseSchema, { committedSize: BigInt(digest.sizeBytes) });
}

/** How far a call got with sending, shared between its reader and its writer. */
interface Progress {
  /** The client said `finish_write`. */
  finished: boolean;
  /** Why the data ended before; it says nothing against the bytes so far, which are kept for another call. */
  interruption: unknown;
  /** Data of this call as it travelled. */
  receivedBytes: number;
}

interface UploadTools {
  readonly uploads: Uploads;
  readonly unpack: typeof decompressStream;
}

/** `decompressStream` for so many uploads at once as there is memory for. */
function createUnpacker(): typeof decompressStream {
  let unpacking = 0;
  return async function* unpack(content, sizeBytes, isPartial) {
    if (unpacking >= limits.zstdUploadsMax) {
      throw new StatusError('RESOURCE_EXHAUSTED', `${unpacking} compressed uploads are under way; try again`);
    }
    unpacking += 1;
    try {
      yield* decompressStream(content, sizeBytes, isPartial);
    } finally {
      unpacking -= 1;
    }
  };
}

async function writeStream(
  { uploads, unpack }: UploadTools,
  name: UploadName,
  first: WriteRequest,
  rest: AsyncIterator<WriteRequest>,
  context: CallContext,
): Promise<WriteResponse> {
  const { digest, compressor } = name;
  const { resourceName } = first;
  const firstOffset = Number(first.writeOffset);
  const knownBytes = uploads.committedBytes(resourceName) ?? 0;
  if (firstOffset !== 0 && firstOffset !== knownBytes) {
    const reason = `write_offset ${firstOffset}: this upload goes on at ${knownBytes}, or starts again at 0`;
    throw new StatusError('INVALID_ARGUMENT', reason);
  }
  const upload = uploads.attach(resourceName, digest);
  const progress: Progress = { finished: false, interruption: undefined, receivedBytes: 0 };

  const receive = async (): Promise<WriteResponse> => {
    const data = readData(first, rest, progress);
    const isPartial = () => progress.interruption !== undefined;
    try {
      const content = compressor === 'zstd' ? unpack(data, digest.sizeBytes - firstOffset, isPartial) : data;
      const position = await feed(upload, content, firstOffset);
      if (!isPartial() && position !== digest.sizeBytes) {
        const reason = `blob ${digest.hash}: finished after ${position} of ${digest.sizeBytes} bytes`;
        throw new StatusError('INVALID_ARGUMENT', reason);
      }
    } catch (error) {
      uploads.drop(resourceName, upload);
      throw error;
    }
    if (isPartial()) {
      uploads.pause(resourceName, upload);
      if (progress.interruption !== halfClosed) throw progress.interruption;
      return create(WriteResponseSchema, { committedSize: BigInt(upload.committedBytes) });
    }
    await upload.finish();
    await nothingFollows(rest);
    return create(WriteResponseSchema, { committedSize: BigInt(committedSize(name, firstOffset, progress, context)) });
  };
  return new Promise((resolve, reject) => {
    receive().then(resolve, reject);
    const endEarly = () => {
      if (!progress.finished) resolve(earlySuccess(name));
    };
    upload.stored.then(endEarly, () => {});
  });
}

/** The interruption that is none of the client's faults: it closed the stream without `finish_write`. */
const halfClosed = Symbol('half-closed');

/** The data of one call, until `finish_write` or an interruption. */
async function* readData(
  first: WriteRequest,
  rest: AsyncIterator<WriteRequest>,
  progress: Progress,
): AsyncGenerator<Uint8Array> {
  let request = first;
  for (;;) {
    progress.receivedBytes += request.data.byteLength;
    progress.finished = request.finishWrite;
    if (request.data.byteLength > 0) yield request.data;
    if (request.finishWrite) return;
    try {
      const next = await rest.next();
      if (next.done) {
        progress.interruption = halfClosed;
        return;
      }
      request = next.value;
      checkFollows(request, first, progress);
    } catch (error) {
      progress.interruption = error;
      return;
    }
  }
}

/** Throws INVALID_ARGUMENT for a request that is not the next one of its call. */
function checkFollows({ resourceName, writeOffset }: WriteRequest, first: WriteRequest, progress: Progress): void {
  if (resourceName !== '' && resourceName !== first.resourceName) {
    throw new StatusError('INVALID_ARGUMENT', `the resource name changed to "${resourceName.slice(0, 300)}"`);
  }
  const expected = first.writeOffset + BigInt(progress.receivedBytes);
  if (writeOffset !== expected) {
    throw new StatusError('INVALID_ARGUMENT', `write_offset ${writeOffset} instead of ${expected}`);
  }
}

/**
 * Hands the uncompressed bytes from `offset` on to an upload, leaving out those that it has, and returns where they end.
 * Throws INVALID_ARGUMENT when they go beyond the blob.
 */
async function feed(upload: Upload, content: AsyncIterable<Uint8Array>, offset: number): Promise<number> {
  const { hash, sizeBytes } = upload.digest;
  let position = offset;
  for await (const chunk of content) {
    const known = Math.max(0, upload.committedBytes - position);
    position += chunk.byteLength;
    if (position > sizeBytes)
      throw new StatusError('INVALID_ARGUMENT', `blob ${hash}: more than its ${sizeBytes} bytes`);
    if (known < chunk.byteLength) await upload.write(known === 0 ? chunk : chunk.subarray(known));
  }
  return position;
}

/**
 * Requests after `finish_write` are an error. Clients half-close with it, so this rarely waits; one that waits for the
 * answer first gets it after a moment.
 */
async function nothingFollows(rest: AsyncIterator<WriteRequest>): Promise<void> {
  const next = rest.next().catch(() => undefined);
  const timer = Promise.withResolvers<undefined>();
  const timeout = setTimeout(timer.resolve, limits.halfCloseMs, undefined);
  const more = await Promise.race([next, timer.promise]);
  clearTimeout(timeout);
  if (more && !more.done) throw new StatusError('INVALID_ARGUMENT', 'a request came after finish_write');
}

/** Somebody else stored the blob: what the client would still send is not needed. */
function earlySuccess({ compressor, digest }: UploadName): WriteResponse {
  return create(WriteResponseSchema, { committedSize: compressor === 'zstd' ? -1n : BigInt(digest.sizeBytes) });
}

/**
 * What a finished upload committed. For compressed ones REAPI leaves open what that is: most clients compare with the
 * bytes they sent, these few tools with the size of the blob.
 */
function committedSize(name: UploadName, firstOffset: number, progress: Progress, context: CallContext): number {
  if (name.compressor === 'identity') return name.digest.sizeBytes;
  const tool = context.requestMetadata?.toolDetails?.toolName ?? '';
  if (/siso|re-?client|reproxy|rewrapper|remotetool/i.test(tool)) return name.digest.sizeBytes;
  return firstOffset + progress.receivedBytes;
}
