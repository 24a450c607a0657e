/** Bytes of a blob's file on their way out, and checked bytes of a stream on their way in. */
import { type Digest, digestKey } from '../../protos/digest.ts';
import { createHasher, hashBytes } from '../../protos/hasher.ts';
import { StatusError } from '../../protos/status.ts';
import type { ReadOptions } from './blob-store.ts';
import type { FsFile } from './fs-port.ts';
import * as limits from './limits.ts';

/** What is wrong with a file whose bytes are not the blob's. */
export class BadBlobError extends Error {
  override readonly name = 'BadBlobError';
}

/** Chunks of `file` from `start` to `end`, one read ahead. Throws `BadBlobError` when they cannot be had. */
export async function* readChunks(
  file: FsFile,
  start: number,
  end: number,
  { signal, memory }: ReadOptions = {},
): AsyncGenerator<Uint8Array, void, undefined> {
  const readAt = (position: number): Promise<Uint8Array> | undefined => {
    if (position >= end) return undefined;
    const into = memory?.take() ?? Buffer.allocUnsafeSlow(Math.min(limits.readChunkBytes, end - position));
    const chunk = into.subarray(0, end - position);
    const reading = file.read(chunk, position).then(
      (count) => {
        if (count < chunk.byteLength) throw new BadBlobError(`the file ends after ${position + count} bytes`);
        return chunk;
      },
      (error: NodeJS.ErrnoException) => {
        throw error.code === 'EIO' ? new BadBlobError('the disk cannot read it any more') : error;
      },
    );
    reading.catch(() => {});
    return reading;
  };
  let position = start;
  let ahead = readAt(position);
  try {
    while (ahead) {
      signal?.throwIfAborted();
      const chunk = await ahead;
      position += chunk.byteLength;
      ahead = readAt(position);
      yield chunk;
    }
  } finally {
    // The handle may be closed once we return.
    await ahead?.catch(() => {});
  }
}

/** Like `readChunks` for the whole blob, but hands the last chunk out only when all bytes hash to the digest. */
export async function* readHashing(
  file: FsFile,
  digest: Digest,
  options: ReadOptions = {},
): AsyncGenerator<Uint8Array, void, undefined> {
  const hasher = await createHasher(digest.fn);
  let last: Uint8Array | undefined;
  for await (const chunk of readChunks(file, 0, digest.sizeBytes, options)) {
    hasher.update(chunk);
    if (last) yield last;
    last = chunk;
  }
  checkHash(digest, hasher.hex());
  if (last) yield last;
}

function checkHash(digest: Digest, hex: string): void {
  if (hex !== digest.hash) throw new BadBlobError(`its bytes hash to ${hex}`);
}

export function isIntact(digest: Digest, bytes: Uint8Array): boolean {
  return bytes.byteLength === digest.sizeBytes && hashBytes(digest.fn, bytes) === digest.hash;
}

/** The whole stream as one buffer. Throws INVALID_ARGUMENT when size or hash differ. */
export async function collect(digest: Digest, chunks: AsyncIterable<Uint8Array>): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  let sizeBytes = 0;
  for await (const chunk of chunks) {
    sizeBytes += chunk.byteLength;
    if (sizeBytes > digest.sizeBytes) throw tooLong(digest);
    parts.push(chunk);
  }
  const [first] = parts;
  const bytes = parts.length === 1 && first ? first : Buffer.concat(parts, sizeBytes);
  checkArrived(digest, sizeBytes, () => hashBytes(digest.fn, bytes));
  return bytes;
}

/** Appends the stream to `file`, hashing while the previous part is written. Throws INVALID_ARGUMENT like `collect`. */
export async function appendChecked(digest: Digest, chunks: AsyncIterable<Uint8Array>, file: FsFile): Promise<void> {
  const hasher = await createHasher(digest.fn);
  let parts: Uint8Array[] = [];
  let partsBytes = 0;
  let sizeBytes = 0;
  let writing: Promise<void> = Promise.resolve();
  const writeOut = async (): Promise<void> => {
    const full = parts;
    parts = [];
    partsBytes = 0;
    await writing;
    writing = file.append(full);
    writing.catch(() => {});
  };
  try {
    for await (const chunk of chunks) {
      sizeBytes += chunk.byteLength;
      if (sizeBytes > digest.sizeBytes) throw tooLong(digest);
      hasher.update(chunk);
      parts.push(chunk);
      partsBytes += chunk.byteLength;
      if (partsBytes >= limits.writeGatherBytes) await writeOut();
    }
    if (partsBytes > 0) await writeOut();
    await writing;
  } finally {
    await writing.catch(() => {});
  }
  checkArrived(digest, sizeBytes, () => hasher.hex());
}

/** Throws INVALID_ARGUMENT like `collect`; keeps nothing. */
export async function checkContent(digest: Digest, chunks: AsyncIterable<Uint8Array>): Promise<void> {
  const hasher = await createHasher(digest.fn);
  let sizeBytes = 0;
  for await (const chunk of chunks) {
    sizeBytes += chunk.byteLength;
    hasher.update(chunk);
  }
  checkArrived(digest, sizeBytes, () => hasher.hex());
}

function checkArrived(digest: Digest, sizeBytes: number, hash: () => string): void {
  if (sizeBytes !== digest.sizeBytes) {
    throw new StatusError('INVALID_ARGUMENT', `blob ${digestKey(digest)}: only ${sizeBytes} bytes came`);
  }
  const hex = hash();
  if (hex !== digest.hash) {
    throw new StatusError('INVALID_ARGUMENT', `blob ${digestKey(digest)}: the bytes that came hash to ${hex}`);
  }
}

function tooLong(digest: Digest): StatusError {
  return new StatusError('INVALID_ARGUMENT', `blob ${digestKey(digest)}: more bytes came than its size`);
}

/** Ends when `interrupt` is resolved, throws when it is rejected, even while a chunk is being waited for. */
export async function* interruptible(
  source: AsyncIterator<Uint8Array>,
  interrupt: Promise<void>,
): AsyncGenerator<Uint8Array, void, undefined> {
  const stopped = interrupt.then(() => undefined);
  let isStopped = false;
  // A promise of its own for each turn: `stopped` in a race would keep every chunk that won against it.
  let turn = Promise.withResolvers<IteratorResult<Uint8Array> | undefined>();
  const stop = (): void => {
    isStopped = true;
    turn.resolve(stopped);
  };
  stopped.then(stop, stop);
  for (;;) {
    turn = Promise.withResolvers();
    if (isStopped) turn.resolve(stopped);
    else source.next().then(turn.resolve, turn.reject);
    const result = await turn.promise;
    if (!result || result.done) return;
    yield result.value;
  }
}

/** Lets a stream go. Not awaited: a generator that waits for its own source returns only when that moves. */
export function dismiss(iterator: AsyncIterator<unknown>): void {
  void iterator.return?.().then(undefined, () => {});
}
