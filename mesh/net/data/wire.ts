/**
 * What is asked for over the data plane, in HTTP/1.1:
 *
 * - `GET /blobs/{function}/{hash}/{size}`, with `range`: one blob or a part of it. Headers of the answer: `potluck-arriving`
 *   when the holder is itself still receiving the blob, so that what it sends is not verified by it yet.
 * - `POST /blobs`: many small blobs; the body has a digest per line, the answer a frame per digest in the same order.
 * - `PUT /blobs/{function}/{hash}/{size}`: hands one blob over.
 * - `POST /calls/{name}`: a short question with a short answer.
 *
 * 404: not held. 503 with `retry-after-ms` and `potluck-try`: too busy, those may have it.
 */
import { type Digest, type DigestFunction, digestFunctions, digestKey, makeDigest } from '../../../protos/digest.ts';
import { StatusError } from '../../../protos/status.ts';
import * as limits from './limits.ts';

export const urgencyHeader = 'potluck-urgency';
export const arrivingHeader = 'potluck-arriving';
export const tryHeader = 'potluck-try';
export const retryAfterHeader = 'retry-after-ms';
export const blobsPath = '/blobs';
export const callsPath = '/calls/';

export interface Range {
  readonly offset: number;
  readonly length: number;
}

export function blobPath(digest: Digest): string {
  return `${blobsPath}/${digestKey(digest)}`;
}

/** Throws INVALID_ARGUMENT. */
export function parseDigestKey(text: string): Digest {
  const [fn = '', hash = '', size = '', ...rest] = text.split('/');
  if (!Object.hasOwn(digestFunctions, fn) || !/^\d{1,16}$/.test(size) || rest.length > 0) {
    throw new StatusError('INVALID_ARGUMENT', `"${text.slice(0, 200)}" is no digest`);
  }
  return makeDigest(fn as DigestFunction, hash, Number(size));
}

export function rangeHeader({ offset, length }: Range): string {
  return `bytes=${offset}-${offset + length - 1}`;
}

/** Only what `rangeHeader` writes. Throws OUT_OF_RANGE; the whole blob when there is no header. */
export function parseRangeHeader(header: string | undefined, { sizeBytes }: Digest): Range {
  if (header === undefined) return { offset: 0, length: sizeBytes };
  const [, first, last] = /^bytes=(\d{1,16})-(\d{1,16})$/.exec(header) ?? [];
  const offset = Number(first);
  const length = Number(last) + 1 - offset;
  if (Number.isNaN(length) || length < 1 || offset + length > sizeBytes) {
    throw new StatusError('OUT_OF_RANGE', `"${header}" is no part of a blob of ${sizeBytes} bytes`);
  }
  return { offset, length };
}

/** Throws INVALID_ARGUMENT, also for more blobs or bytes than a batch may have. */
export function parseBatch(body: string): Digest[] {
  const digests = body.split('\n').map(parseDigestKey);
  checkBatch(digests);
  return digests;
}

export function checkBatch(digests: readonly Digest[]): void {
  const totalBytes = digests.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  const isTooLarge = digests.some(({ sizeBytes }) => sizeBytes > limits.batchBlobBytesMax);
  if (digests.length > limits.batchBlobsMax || totalBytes > limits.batchBytesMax || isTooLarge) {
    throw new StatusError(
      'INVALID_ARGUMENT',
      `a batch of ${digests.length} blobs and ${totalBytes} bytes is too large`,
    );
  }
}

const frameHeadBytes = 1;
const held = 1;
const notHeld = 0;

/** Before the bytes of a blob, or in their place. The reader knows how many come. */
export function frameHead(isHeld: boolean): Uint8Array {
  return Uint8Array.of(isHeld ? held : notHeld);
}

export interface BatchBlob {
  readonly digest: Digest;
  /** `undefined`: not held. */
  readonly bytes: Uint8Array | undefined;
}

/**
 * Reads the frames for `digests` from chunks, each of which is `done` with before the next is asked for. Throws
 * INVALID_ARGUMENT for anything else, and for a stream that goes on or ends early.
 *
 * @param allocate - memory for the bytes of one blob
 */
export async function* readFrames(
  digests: readonly Digest[],
  chunks: AsyncIterable<Uint8Array>,
  done: (chunk: Uint8Array) => void = () => {},
  allocate: (sizeBytes: number) => Uint8Array = (sizeBytes) => Buffer.allocUnsafeSlow(sizeBytes),
): AsyncGenerator<BatchBlob, void, undefined> {
  const iterator = chunks[Symbol.asyncIterator]();
  let chunk: Uint8Array = new Uint8Array();
  let at = 0;
  /** Makes `chunk` one with bytes left. */
  const fill = async (): Promise<boolean> => {
    while (at === chunk.byteLength) {
      done(chunk);
      const step = await iterator.next();
      if (step.done) return false;
      chunk = step.value;
      at = 0;
    }
    return true;
  };
  try {
    for (const digest of digests) {
      if (!(at < chunk.byteLength || (await fill()))) throw broken('it ends early');
      const head = chunk[at];
      at += frameHeadBytes;
      if (head === notHeld) {
        yield { digest, bytes: undefined };
        continue;
      }
      if (head !== held) throw broken('a frame is of no known kind');
      const bytes = allocate(digest.sizeBytes);
      for (let filled = 0; filled < bytes.byteLength; ) {
        if (!(at < chunk.byteLength || (await fill()))) throw broken('it ends within a blob');
        const part = chunk.subarray(at, at + bytes.byteLength - filled);
        bytes.set(part, filled);
        filled += part.byteLength;
        at += part.byteLength;
      }
      yield { digest, bytes };
    }
    if (await fill()) throw broken('it does not end');
  } finally {
    await iterator.return?.();
  }
}

function broken(what: string): StatusError {
  return new StatusError('INVALID_ARGUMENT', `the answer to a batch is broken: ${what}`);
}
