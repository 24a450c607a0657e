/**
 * Group commit: changes that arrive while a transaction is being made durable go into the next one together, so that many
 * writers at once share the price of a sync.
 */
import { constants } from 'node:os';
import { StatusError, toStatusError } from '../../protos/status.ts';
import * as limits from './limits.ts';
import type { IndexChange, IndexTotals, StoreIndex } from './store-index.ts';

const { errno } = constants;

export interface Committer {
  /**
   * All of `changes` in one transaction; resolves when durable and visible. At most `batchChanges` of them. `onApplied` is
   * called in the same instant in which `totals` counts them.
   */
  commit(changes: readonly IndexChange[], onApplied?: () => void): Promise<void>;
  /** Resolves when nothing is queued or under way. */
  idle(): Promise<void>;
  /** As of the last commit. */
  totals(): IndexTotals;
  size(): { readonly fileBytes: number; readonly usedBytes: number };
}

export interface CommitterOptions {
  /** Free space of the disk the index is on. */
  readonly freeBytes: () => Promise<number>;
  readonly batchChanges: number;
}

interface Request {
  readonly changes: readonly IndexChange[];
  readonly bytes: number;
  readonly onApplied: (() => void) | undefined;
  readonly outcome: PromiseWithResolvers<void>;
}

export function createCommitter(index: StoreIndex, options: CommitterOptions): Committer {
  let queue: Request[] = [];
  let running: Promise<void> | undefined;
  let size = index.size();
  let totals = index.totals();

  async function run(): Promise<void> {
    // What the present turn still has to say goes into the same transaction.
    await new Promise(setImmediate);
    while (queue.length > 0) {
      const batch = takeBatch();
      try {
        await checkDisk(batch);
        await index.commit(batch.flatMap((request) => request.changes));
        size = index.size();
        totals = index.totals();
        for (const { onApplied, outcome } of batch) {
          onApplied?.();
          outcome.resolve();
        }
      } catch (error) {
        const status = await explain(error);
        for (const request of batch) request.outcome.reject(status);
      }
    }
    running = undefined;
  }

  function takeBatch(): Request[] {
    let changes = 0;
    let bytes = 0;
    let end = 0;
    for (const request of queue) {
      changes += request.changes.length;
      bytes += request.bytes;
      if (end > 0 && (changes > options.batchChanges || bytes > limits.commitBatchBytes)) break;
      end++;
    }
    const batch = queue.slice(0, end);
    queue = queue.slice(end);
    return batch;
  }

  /** A commit that runs out of disk half-way is undone, but loudly and slowly; removals are let through to the end. */
  async function checkDisk(batch: readonly Request[]): Promise<void> {
    const growing = batch.some(({ changes }) => changes.some(({ kind }) => kind === 'file' || kind === 'inline'));
    if (!growing) return;
    const needed = batch.reduce((sum, { bytes }) => sum + bytes, limits.diskReserveBytes);
    const free = await options.freeBytes();
    if (free < needed) throw diskFull(free);
  }

  async function explain(error: unknown): Promise<StatusError> {
    if (error instanceof StatusError) return error;
    const free = await options.freeBytes().catch(() => Number.POSITIVE_INFINITY);
    // LMDB reports the number of the system's error, and a write cut short by a full disk as an input/output error.
    const { code } = error as { code?: unknown };
    const isFull = code === errno.ENOSPC || code === errno.EDQUOT || free < limits.diskReserveBytes;
    return isFull ? diskFull(free, error) : toStatusError(error, 'committing to the index');
  }

  return {
    commit(changes, onApplied) {
      const bytes = changes.reduce((sum, change) => sum + changeBytes(change), 0);
      const outcome = Promise.withResolvers<void>();
      queue.push({ changes, bytes, onApplied, outcome });
      running ??= run();
      return outcome.promise;
    },
    async idle() {
      while (running) await running;
    },
    totals: () => totals,
    size: () => size,
  };
}

/** What a change takes in the index, pages written anew included. */
export function changeBytes(change: IndexChange): number {
  return limits.indexBytesPerChange + (change.kind === 'inline' ? inlineBytes(change.value.byteLength) : 0);
}

/** A value either shares a page with others or takes whole pages. */
function inlineBytes(valueBytes: number): number {
  return valueBytes < 1_500 ? Math.ceil(valueBytes * 1.5) : Math.ceil((valueBytes + 96) / 4096) * 4096;
}

function diskFull(freeBytes: number, cause?: unknown): StatusError {
  const free = Number.isFinite(freeBytes) ? ` (${freeBytes} bytes free)` : '';
  return new StatusError('RESOURCE_EXHAUSTED', `the disk of the cache is full${free}; free some space`, { cause });
}
