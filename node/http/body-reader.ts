/** Reads bodies into memory, within bounds for each and for all together. */
import { promisify } from 'node:util';
import { zstdDecompress } from 'node:zlib';
import { StatusError } from '../../protos/status.ts';
import { decompressParams } from '../reapi/zstd.ts';
import { bodyOf, encodingOf, type Exchange, lengthOf, tooLarge } from './exchange.ts';
import * as limits from './limits.ts';

/** The whole body, decoded. Throws 411, 413, 415, 503 when too much is held already, 400 for bad zstd. */
export type BodyReader = (exchange: Exchange, maxBytes: number) => Promise<Uint8Array>;

const decompress = promisify(zstdDecompress);

export function createBodyReader(): BodyReader {
  let heldBytes = 0;
  return async (exchange, maxBytes) => {
    const encoding = encodingOf(exchange);
    const length = lengthOf(exchange, maxBytes);
    // A compressed body may grow to the bound.
    const reservedBytes = encoding === 'zstd' ? maxBytes : length;
    if (heldBytes + reservedBytes > limits.bufferedBytesMax) {
      throw new StatusError('UNAVAILABLE', 'too many bodies are held in memory; try again');
    }
    heldBytes += reservedBytes;
    try {
      const chunks: Uint8Array[] = [];
      for await (const chunk of bodyOf(exchange)) chunks.push(chunk);
      const bytes = Buffer.concat(chunks);
      return encoding === 'zstd' ? await decode(bytes, maxBytes) : bytes;
    } finally {
      heldBytes -= reservedBytes;
    }
  };
}

async function decode(bytes: Buffer, maxBytes: number): Promise<Uint8Array> {
  try {
    return await decompress(bytes, { maxOutputLength: maxBytes, params: decompressParams });
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ERR_BUFFER_TOO_LARGE') throw tooLarge(maxBytes);
    throw new StatusError('INVALID_ARGUMENT', 'the body is not valid zstd', { cause });
  }
}
