/**
 * The space of a store: nothing is written before its place is reserved, so the hard limit holds at every instant.
 *
 * Two pools share the limit. The index (small blobs, results, and what it knows of files) grows up to a share of it and
 * never shrinks on disk, so it makes room within itself; files have all the rest.
 */
import { StatusError } from '../../protos/status.ts';
import type { CallOptions } from './blob-store.ts';
import type { Committer } from './committer.ts';
import * as limits from './limits.ts';
import type { IndexEntry } from './store-index.ts';

interface Need {
  readonly fileBytes: number;
  readonly indexBytes: number;
}

export interface Lease {
  /** Gives the reservation back: what was written is counted by the index from now on, or was removed. */
  readonly release: () => void;
}

/**
 * Takes entries of one place out, oldest first, one batch of them, until there is no excess; resolves to how many went, 0
 * when none can go.
 */
export type EvictBatch = (place: IndexEntry['place'], excessBytes: () => number) => Promise<number>;

export interface Space {
  /** Throws RESOURCE_EXHAUSTED when it cannot be had, evictions included. */
  reserve(need: Need, what: string, options?: CallOptions): Promise<Lease>;
  /** Reserves only what is free without evicting. */
  tryReserve(need: Need): Lease | undefined;
  /** Counts bytes on disk that no entry of the index stands for: link copies, files on their way out, directories. */
  addLoose(bytes: number): void;
  usedBytes(): number;
  /** Evicts until at most `targetBytes` are in use or nothing more can go. */
  shrink(targetBytes: number, options?: CallOptions): Promise<void>;
}

export interface SpaceOptions {
  readonly limitBytes: number;
  readonly committer: Committer;
  readonly evictBatch: EvictBatch;
}

/** Pages that a transaction writes anew before the old ones are free. */
function indexSlackBytes(limitBytes: number): number {
  return Math.min(limitBytes / 16, 64 * 1024 * 1024);
}

/** So few that their transaction stays within half of the slack: three pages a change. */
export function batchChangesFor(limitBytes: number): number {
  return Math.min(limits.commitBatchChanges, Math.floor(indexSlackBytes(limitBytes) / (2 * 3 * 4096)));
}

export function createSpace(options: SpaceOptions): Space {
  const { limitBytes, committer, evictBatch } = options;
  const slackBytes = indexSlackBytes(limitBytes);
  const indexMaxBytes = limitBytes * limits.indexShareMax;
  const lowWatermarkBytes = limitBytes * limits.lowWatermarkShare;
  let reservedFileBytes = 0;
  let reservedIndexBytes = 0;
  let reservedGrowthBytes = 0;
  let looseBytes = 0;
  let leases = 0;
  let released = Promise.withResolvers<void>();

  const usedIndexBytes = (more: number): number => committer.size().usedBytes + reservedIndexBytes + more;
  const growthOf = ({ indexBytes }: Need): number => (indexBytes > limits.indexRunBytesMax ? indexBytes : 0);
  const indexWith = (need: Need, slack: number): number =>
    Math.max(
      committer.size().fileBytes + reservedGrowthBytes + growthOf(need),
      usedIndexBytes(need.indexBytes) + slack,
    );
  const filesWith = (more: number): number => committer.totals().fileDiskBytes + looseBytes + reservedFileBytes + more;
  const usedWith = (need: Need): number => filesWith(need.fileBytes) + indexWith(need, slackBytes);
  const nothing: Need = { fileBytes: 0, indexBytes: 0 };
  const indexFits = (need: Need): boolean => usedIndexBytes(need.indexBytes) + slackBytes <= indexMaxBytes;
  const fits = (need: Need): boolean => indexFits(need) && usedWith(need) <= limitBytes;

  function take(need: Need): Lease {
    reservedFileBytes += need.fileBytes;
    reservedIndexBytes += need.indexBytes;
    reservedGrowthBytes += growthOf(need);
    leases++;
    let isReleased = false;
    return {
      release() {
        if (isReleased) return;
        isReleased = true;
        reservedFileBytes -= need.fileBytes;
        reservedIndexBytes -= need.indexBytes;
        reservedGrowthBytes -= growthOf(need);
        leases--;
        released.resolve();
        released = Promise.withResolvers<void>();
      },
    };
  }

  /** One batch, towards the low watermark rather than just to the need: the limit is then not hit again at once. */
  async function evictFor(need: Need): Promise<number> {
    if (!indexFits(need)) {
      const targetBytes = indexMaxBytes * limits.lowWatermarkShare;
      return evictBatch('inline', () => usedIndexBytes(need.indexBytes) + slackBytes - targetBytes);
    }
    return evictBatch('file', () => usedWith(need) - lowWatermarkBytes);
  }

  /** Each for itself: evictions free far more than one write needs, so a large write is not starved by small ones. */
  async function takeWhenFree(need: Need, what: string, signal: AbortSignal | undefined): Promise<Lease> {
    const deadlineMs = performance.now() + limits.reserveWaitMs;
    while (!fits(need)) {
      signal?.throwIfAborted();
      if ((await evictFor(need)) > 0 || fits(need)) continue;
      const leftMs = deadlineMs - performance.now();
      if (leases === 0 || leftMs <= 0) {
        throw exhausted(
          what,
          `no room in the cache: its limit of ${limitBytes} bytes is taken by blobs in use and writes under way`,
        );
      }
      // Pins may go meanwhile as well, unannounced.
      await orTimeout(released.promise, Math.min(leftMs, limits.reserveRetryMs), signal);
    }
    return take(need);
  }

  return {
    async reserve(need, what, { signal } = {}) {
      if (
        need.fileBytes + indexWith(nothing, slackBytes) > limitBytes ||
        need.indexBytes + slackBytes > indexMaxBytes
      ) {
        throw exhausted(what, `too large for a cache limited to ${limitBytes} bytes`);
      }
      return fits(need) ? take(need) : takeWhenFree(need, what, signal);
    },
    tryReserve: (need) => (fits(need) ? take(need) : undefined),
    addLoose(bytes) {
      looseBytes += bytes;
    },
    usedBytes: () => filesWith(0) + indexWith(nothing, 0),
    async shrink(targetBytes, { signal } = {}) {
      for (const place of ['file', 'inline'] as const) {
        while (usedWith(nothing) > targetBytes) {
          signal?.throwIfAborted();
          if ((await evictBatch(place, () => usedWith(nothing) - targetBytes)) === 0) break;
        }
      }
    },
  };
}

function exhausted(what: string, why: string): StatusError {
  return new StatusError('RESOURCE_EXHAUSTED', `${what}: ${why}; raise --cache-size`);
}

async function orTimeout(event: Promise<void>, timeoutMs: number, signal: AbortSignal | undefined): Promise<void> {
  const done = Promise.withResolvers<void>();
  const timer = setTimeout(done.resolve, timeoutMs);
  signal?.addEventListener('abort', done.resolve as () => void, { once: true });
  try {
    await Promise.race([event, done.promise]);
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener('abort', done.resolve as () => void);
  }
}
