/** Blobs compressed with zstd: bounded, checked for trailing bytes, any number of frames. */
import { pipeline, Readable } from 'node:stream';
import { constants, createZstdCompress, createZstdDecompress, zstdCompressSync, zstdDecompressSync } from 'node:zlib';
import { StatusError } from '../../protos/status.ts';
import { limits } from './limits.ts';
import { createFrameSplitter } from './zstd-frames.ts';

/** Level 1: on a fast network, what a higher level saves in bytes it costs several times over in time. */
const compressParams = { [constants.ZSTD_c_compressionLevel]: 1 };

/** A frame that wants a larger window is refused: a decompressor holds all of it. */
export const decompressParams = { [constants.ZSTD_d_windowLogMax]: limits.zstdWindowLogMax };

/** One frame with all of `bytes`. For what fits in a message; it blocks for a millisecond per MiB. */
export function compressBlob(bytes: Uint8Array): Uint8Array {
  return zstdCompressSync(bytes, { params: compressParams });
}

/** The content of a compressed message field, which must have `sizeBytes`. Throws INVALID_ARGUMENT. */
export function decompressBlob(bytes: Uint8Array, sizeBytes: number): Uint8Array {
  const splitter = createFrameSplitter();
  const frames = splitter.push(bytes);
  splitter.end();
  if (splitter.frames > limits.zstdFramesMax) {
    throw new StatusError('INVALID_ARGUMENT', `zstd: ${splitter.frames} frames in one message field`);
  }
  const parts: Uint8Array[] = [];
  let total = 0;
  for (const frame of frames) {
    // One byte more than allowed shows that it is too long; Node takes no bound of zero.
    const part = decompressFrame(frame, sizeBytes - total + 1);
    parts.push(part);
    total += part.byteLength;
    if (total > sizeBytes) throw tooLong(sizeBytes);
  }
  if (total < sizeBytes) throw new StatusError('INVALID_ARGUMENT', `zstd: ${total} bytes instead of ${sizeBytes}`);
  return parts.length === 1 ? (parts[0] as Uint8Array) : Buffer.concat(parts);
}

function decompressFrame(frame: Uint8Array, lengthMax: number): Uint8Array {
  try {
    return zstdDecompressSync(frame, { maxOutputLength: lengthMax, params: decompressParams });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ERR_BUFFER_TOO_LARGE') throw tooLong(lengthMax - 1);
    throw badZstd(error);
  }
}

/** Compresses a stream into one frame. */
export function compressStream(content: AsyncIterable<Uint8Array>, sizeBytes: number): AsyncIterable<Uint8Array> {
  const compressor = createZstdCompress({
    params: compressParams,
    pledgedSrcSize: sizeBytes,
    chunkSize: limits.zstdChunkBytes,
  });
  return through(content, compressor);
}

/**
 * Decompresses a stream of at most `sizeBytes`. Throws INVALID_ARGUMENT for what is no zstd, is cut off, is followed by
 * other bytes or grows beyond `sizeBytes`: not more than one chunk beyond is ever held.
 *
 * @param isPartial - asked at the end of `content`: whether it broke off, so that its end may be anywhere
 */
export async function* decompressStream(
  content: AsyncIterable<Uint8Array>,
  sizeBytes: number,
  isPartial: () => boolean = () => false,
): AsyncGenerator<Uint8Array> {
  // The splitter knows where a frame ends; the decompressor just gives what it can.
  const finishFlush = constants.ZSTD_e_flush;
  const decompressor = createZstdDecompress({
    params: decompressParams,
    chunkSize: limits.zstdChunkBytes,
    finishFlush,
  });
  let total = 0;
  try {
    for await (const chunk of through(splitFrames(content, isPartial), decompressor)) {
      total += chunk.byteLength;
      if (total > sizeBytes) throw tooLong(sizeBytes);
      yield chunk;
    }
  } catch (error) {
    throw isZlibError(error) ? badZstd(error) : error;
  }
}

async function* splitFrames(content: AsyncIterable<Uint8Array>, isPartial: () => boolean): AsyncGenerator<Uint8Array> {
  const splitter = createFrameSplitter();
  for await (const chunk of content) yield* splitter.push(chunk);
  if (!isPartial()) splitter.end();
}

/** The output of `transform`; an error of either side ends both and is thrown here. */
function through(
  content: AsyncIterable<Uint8Array>,
  transform: ReturnType<typeof createZstdCompress>,
): AsyncIterable<Uint8Array> {
  return pipeline(Readable.from(content, { objectMode: false }), transform, () => {});
}

function isZlibError(error: unknown): boolean {
  const code = (error as NodeJS.ErrnoException)?.code;
  return code?.startsWith('ZSTD_') === true || code === 'Z_BUF_ERROR' || code === 'Z_DATA_ERROR';
}

function badZstd(error: unknown): StatusError {
  return new StatusError('INVALID_ARGUMENT', `not zstd: ${(error as Error).message}`);
}

function tooLong(sizeBytes: number): StatusError {
  return new StatusError('INVALID_ARGUMENT', `zstd: the content is longer than its ${sizeBytes} bytes`);
}
