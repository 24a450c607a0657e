/** Blobs that are being received, readable as far as they are there. */
import { type Digest, digestKey } from '../../protos/digest.ts';
import { StatusError } from '../../protos/status.ts';
import type { Arrival, BlobStore, ByteRange, ReadOptions } from '../storage/blob-store.ts';
import { createIntervals } from '../storage/intervals.ts';
import * as limits from './limits.ts';

export interface ArrivingBlob {
  readonly digest: Digest;
  /** See `Arrival.write`. */
  write(offset: number, bytes: Uint8Array): Promise<void>;
  /** See `Arrival.finish`. */
  finish(): Promise<void>;
  /** It will not become whole; readers are told. Does nothing once it is stored. */
  drop(): Promise<void>;
  /** Some bytes of the range are there. */
  hasBegun(range: ByteRange): boolean;
  /** All bytes of the range can be read now. */
  has(range: ByteRange): boolean;
  /** Resolves at the next change: more bytes, stored, or dropped. */
  changed(): Promise<void>;
  state(): 'arriving' | 'stored' | 'dropped';
  /**
   * Bytes of a range as they come; the end of the blob only once the whole is verified. Throws DATA_LOSS when it was
   * dropped.
   */
  read(range: ByteRange, options?: ReadOptions): AsyncGenerator<Uint8Array, void, undefined>;
}

/** @param store - where the blob is read from once it is there */
export function createArriving(arrival: Arrival, store: Pick<BlobStore, 'open'>): ArrivingBlob {
  const { digest } = arrival;
  const written = createIntervals();
  let state: 'arriving' | 'stored' | 'dropped' = 'arriving';
  let change = Promise.withResolvers<void>();

  function tell(): void {
    change.resolve();
    change = Promise.withResolvers();
  }

  /** Where the bytes end that may be handed out now from `from` on. */
  function readableTo(from: number, to: number): number {
    const end = written.gaps(from, to)[0]?.[0] ?? to;
    return Math.max(from, Math.min(end, digest.sizeBytes - limits.heldBackBytes));
  }

  return {
    digest,
    async write(offset, bytes) {
      const end = offset + bytes.byteLength;
      await arrival.write(offset, [bytes]);
      written.add(offset, end);
      tell();
    },
    async finish() {
      try {
        await arrival.finish();
        state = 'stored';
      } catch (error) {
        state = 'dropped';
        throw error;
      } finally {
        tell();
      }
    },
    async drop() {
      if (state !== 'arriving') return;
      state = 'dropped';
      tell();
      await arrival[Symbol.asyncDispose]();
    },
    hasBegun: ({ offset, length }) => readableTo(offset, offset + length) > offset,
    has: ({ offset, length }) => readableTo(offset, offset + length) >= offset + length,
    changed: () => change.promise,
    state: () => state,
    async *read({ offset, length }, options = {}) {
      const { signal } = options;
      const end = Math.min(offset + length, digest.sizeBytes);
      let at = offset;
      while (at < end && state === 'arriving') {
        signal?.throwIfAborted();
        const changed = change.promise;
        const to = Math.min(readableTo(at, end), at + limits.readChunkBytes);
        // It cannot be read while it is being stored or dropped.
        const chunk = to > at ? await arrival.read(at, to - at, options).catch(() => undefined) : undefined;
        if (!chunk || chunk.byteLength === 0) {
          await untilChange(changed, signal);
          continue;
        }
        at += chunk.byteLength;
        yield chunk;
      }
      if (at >= end) return;
      if (state === 'dropped') {
        throw new StatusError(
          'DATA_LOSS',
          `blob ${digestKey(digest)}: what members sent is not the blob; read it again`,
        );
      }
      await using reader = await store.open(digest, signal && { signal });
      if (!reader) throw new StatusError('NOT_FOUND', `blob ${digestKey(digest)} is gone again`);
      yield* reader.read({ offset: at, length: end - at }, options);
    },
  };
}

async function untilChange(change: Promise<void>, signal: AbortSignal | undefined): Promise<void> {
  if (!signal) return change;
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const onAbort = (): void => reject(signal.reason);
  signal.addEventListener('abort', onAbort, { once: true });
  change.then(resolve, reject);
  await promise.finally(() => signal.removeEventListener('abort', onAbort));
}
