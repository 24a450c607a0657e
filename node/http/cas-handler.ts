/** `/cas/`: blobs by their hash. */
import { pipeline } from 'node:stream/promises';
import { constants, createZstdCompress } from 'node:zlib';
import { type Digest, emptyDigest } from '../../protos/digest.ts';
import { digestOf } from '../../protos/hasher.ts';
import { StatusError } from '../../protos/status.ts';
import type { LocalBlobStore } from '../storage/blob-store.ts';
import type { BodyReader } from './body-reader.ts';
import { parseRange } from './byte-range.ts';
import type { CachePath } from './cache-path.ts';
import { acceptsZstd, bodyOf, encodingOf, type Exchange, HttpError, lengthOf, sendText } from './exchange.ts';
import * as limits from './limits.ts';

export interface CasHandler {
  /** GET and HEAD. Throws NOT_FOUND. */
  get(exchange: Exchange, path: CachePath): Promise<void>;
  put(exchange: Exchange, path: CachePath): Promise<void>;
}

export interface CasHandlerOptions {
  readonly blobs: Pick<LocalBlobStore, 'findByHash' | 'open' | 'put' | 'putMany'>;
  readonly readBody: BodyReader;
  readonly maxBlobBytes: number;
}

/** Speed counts more than ratio on one machine. */
const zstdParams = { [constants.ZSTD_c_compressionLevel]: 1 };

export function createCasHandler({ blobs, readBody, maxBlobBytes }: CasHandlerOptions): CasHandler {
  const find = async ({ fn, hash }: CachePath): Promise<Digest | undefined> => {
    const empty = emptyDigest(fn);
    return hash === empty.hash ? empty : await blobs.findByHash(fn, hash);
  };

  return {
    async get(exchange, path) {
      const { request, response, method, signal } = exchange;
      const digest = await find(path);
      await using reader = digest && (await blobs.open(digest, { signal }));
      if (!digest || !reader) throw new StatusError('NOT_FOUND', `no blob ${path.hash} here`);
      // Range means something for GET alone.
      const range = method === 'GET' ? parseRange(request.headers.range, digest.sizeBytes) : undefined;
      if (range === 'unsatisfiable') {
        response.setHeader('content-range', `bytes */${digest.sizeBytes}`);
        throw new HttpError(416, 'OUT_OF_RANGE', `the blob has ${digest.sizeBytes} bytes`);
      }
      response.setHeader('content-type', 'application/octet-stream');
      response.setHeader('accept-ranges', 'bytes');
      response.setHeader('vary', 'accept-encoding');
      const compress = !range && digest.sizeBytes >= limits.compressedBytesMin && acceptsZstd(exchange);
      if (compress) {
        response.setHeader('content-encoding', 'zstd');
      } else {
        response.setHeader('content-length', range ? range.length : digest.sizeBytes);
      }
      if (range) {
        response.setHeader(
          'content-range',
          `bytes ${range.offset}-${range.offset + range.length - 1}/${digest.sizeBytes}`,
        );
      }
      if (method === 'HEAD') {
        response.writeHead(200).end();
        return;
      }
      // A blob that turns out bad on disk does so before its first byte, where it can still be told as missing.
      const content = await begun(reader.read(range, { signal }));
      response.writeHead(range ? 206 : 200);
      if (compress) await pipeline(content, createZstdCompress({ params: zstdParams }), response);
      else await pipeline(content, response);
    },

    async put(exchange, path) {
      const { response, method, signal } = exchange;
      if (encodingOf(exchange) === 'zstd') {
        // The key of a blob holds its size, which is not known before it is unpacked.
        const bytes = await readBody(exchange, Math.min(limits.bufferedBlobBytesMax, maxBlobBytes));
        const digest = digestOf(path.fn, bytes);
        if (digest.hash !== path.hash) throw mismatch(path.hash, digest.hash);
        const [failure] = await blobs.putMany([{ digest, bytes }], { signal });
        if (failure) throw failure;
      } else {
        const sizeBytes = lengthOf(exchange, maxBlobBytes);
        await blobs.put({ fn: path.fn, hash: path.hash, sizeBytes }, bodyOf(exchange), { signal });
      }
      sendText(response, 200, '', method);
    },
  };
}

/** The same bytes, the first of which have been read already. */
async function begun(bytes: AsyncIterable<Uint8Array>): Promise<AsyncIterable<Uint8Array>> {
  const iterator = bytes[Symbol.asyncIterator]();
  const first = await iterator.next();
  return (async function* () {
    try {
      for (let step = first; !step.done; step = await iterator.next()) yield step.value;
    } finally {
      await iterator.return?.();
    }
  })();
}

function mismatch(wanted: string, found: string): StatusError {
  return new StatusError('INVALID_ARGUMENT', `the body hashes to ${found}, not to ${wanted}`);
}
