/** Takes the longest unused entries out: from the index first, their files after, so that nothing claims what is gone. */
import type { BlobFiles } from './blob-files.ts';
import type { Committer } from './committer.ts';
import type { Counters } from './counters.ts';
import { digestOfKey, diskBytes, isResultKey, keySizeBytes, keyText } from './entry-key.ts';
import type { LinkCopies } from './link-copies.ts';
import * as limits from './limits.ts';
import type { Recency } from './recency.ts';
import type { Residency } from './residency.ts';
import type { EvictBatch } from './space.ts';
import type { IndexChange, IndexEntry, StoreIndex } from './store-index.ts';

export interface EvictorOptions {
  readonly index: StoreIndex;
  readonly committer: Committer;
  readonly recency: Recency;
  readonly residency: Residency;
  readonly files: BlobFiles;
  readonly linkCopies: LinkCopies;
  readonly counters: Counters;
  readonly batchEntries: number;
  readonly addLoose: (bytes: number) => void;
}

export function createEvictor(options: EvictorOptions): EvictBatch {
  const { index, committer, recency, residency, files, linkCopies, counters } = options;
  let last: Promise<unknown> = Promise.resolve();

  // One at a time: two would take each other's victims for blobs in use.
  return (place, excessBytes) => {
    const batch = last.then(() => evictBatch(place, excessBytes));
    last = batch.catch(() => {});
    return batch;
  };

  async function evictBatch(place: IndexEntry['place'], excessBytes: () => number): Promise<number> {
    if (excessBytes() <= 0) return 0;
    const dropped = place === 'file' ? await linkCopies.dropOldest(() => excessBytes() <= 0) : 0;
    if (dropped > 0) return dropped;
    for (let spared = 0; ; ) {
      // On a full disk it may fail, and evicting is the way out of that; then the order is only less exact.
      await recency.flush().catch(() => {});
      // From here to `removeEntries` nothing is awaited: what is used meanwhile is either seen here or not held any more.
      const oldest = index.oldest(place, options.batchEntries);
      const victims = chooseVictims(oldest, place, excessBytes());
      if (victims.length > 0) {
        await removeEntries(victims, place);
        return victims.length;
      }
      // All of them are in use, so they are the young end of the order.
      spared += oldest.length;
      const { fileBlobs, smallBlobs, chunkedBlobs, results } = index.totals();
      const all = place === 'file' ? fileBlobs : smallBlobs + chunkedBlobs + results;
      if (oldest.length === 0 || spared >= all) return 0;
      await committer.commit(oldest.map((key) => ({ kind: 'touch', key })));
    }
  }

  function chooseVictims(oldest: readonly Buffer[], place: IndexEntry['place'], excessBytes: number): Buffer[] {
    const victims: Buffer[] = [];
    let freedBytes = 0;
    for (const key of oldest) {
      const text = keyText(key);
      if (!residency.canLeave(text) || recency.isTouched(text)) continue;
      victims.push(key);
      freedBytes += place === 'file' ? diskBytes(keySizeBytes(key)) : valueBytes(key) + limits.indexBytesPerChange;
      if (freedBytes >= excessBytes) break;
    }
    return victims;
  }

  function valueBytes(key: Buffer): number {
    if (!isResultKey(key) && keySizeBytes(key) <= limits.smallBlobBytesMax) return keySizeBytes(key);
    // What a result or a list of chunks takes is not in its key.
    const entry = index.find(key);
    return (entry && index.value(entry)?.byteLength) ?? 0;
  }

  async function removeEntries(keys: readonly Buffer[], place: IndexEntry['place']): Promise<void> {
    const removal = (async () => {
      const blobKeys = keys.filter((key) => !isResultKey(key));
      const bytesOf = (key: Buffer): number => (place === 'file' ? diskBytes(keySizeBytes(key)) : 0);
      const fileBytes = blobKeys.reduce((sum, key) => sum + bytesOf(key), 0);
      // Between the commit and the unlinks the files are nobody's, but still on the disk.
      const changes = keys.map((key): IndexChange => ({ kind: 'remove', key }));
      await committer.commit(changes, () => options.addLoose(fileBytes));
      counters.evictedResults += keys.length - blobKeys.length;
      const failures: unknown[] = [];
      for (const key of blobKeys) {
        const digest = digestOfKey(key);
        counters.evictedBlobs++;
        counters.evictedBytes += ownBytes(key, place);
        await linkCopies.drop(digest);
        try {
          if (place === 'file') await files.remove(digest);
          options.addLoose(-bytesOf(key));
        } catch (error) {
          // It stays on the disk, and counts.
          failures.push(error);
        }
      }
      if (failures.length > 0) throw failures[0];
    })();
    for (const key of keys) residency.leave(keyText(key), removal);
    await removal;
  }
}

/** Bytes that are kept for this blob alone: none for a list of chunks. */
function ownBytes(key: Buffer, place: IndexEntry['place']): number {
  const sizeBytes = keySizeBytes(key);
  return place === 'inline' && sizeBytes > limits.smallBlobBytesMax ? 0 : sizeBytes;
}
