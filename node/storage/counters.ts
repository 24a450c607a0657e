/** Counts since the store was opened. */
import type { StoreCounters } from './store.ts';

export type Counters = { -readonly [K in keyof StoreCounters]: number };

export function createCounters(): Counters {
  return {
    evictedBlobs: 0,
    evictedBytes: 0,
    evictedResults: 0,
    badBlobs: 0,
    storedBlobs: 0,
    storedBytes: 0,
    blobHits: 0,
    blobMisses: 0,
    resultHits: 0,
    resultMisses: 0,
    resultIncomplete: 0,
  };
}
