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

/** Evicts one batch of one place until `isEnough`; resolves to how many entries went, 0 when nothing more can go. */
export function createEvictor(options: EvictorOptions): EvictBatch {
  const { index, committer, recency, residency, files, linkCopies, counters } = options;
  let last: Promise<unknown> = Promise.resolve();

  // One at a time: two would take each other's victims for blobs in use.
  return (place, isEnough) => {
    const batch = last.then(() => evictBatch(place, isEnough));
    last = batch.catch(() => {});
    return batch;
  };

  async function evictBatch(place: IndexEntry['place'], isEnough: () => boolean): Promise<number> {
    if (isEnough()) return 0;
    if (place === 'file') {
      const dropped = await linkCopies.dropOldest(limits.evictBatchEntries, isEnough);
      if (dropped > 0) return dropped;
    }
    await recency.flush();
    for (let sparedAll = 0; ; ) {
      const oldest = index.oldest(place, options.batchEntries);
      const victims = oldest.filter((key) => residency.canLeave(keyText(key)));
      if (victims.length > 0) return remove(place, victims, isEnough);
      // All of them are in use, so they are the young end of the order.
      sparedAll += oldest.length;
      const { fileBlobs, smallBlobs, results } = index.totals();
      if (oldest.length === 0 || sparedAll >= (place === 'file' ? fileBlobs : smallBlobs + results)) return 0;
      await committer.commit(oldest.map((key) => ({ kind: 'touch', key })));
    }
  }

  /** In strides, so that no more go than are needed; the sizes are known only after a commit. */
  async function remove(
    place: IndexEntry['place'],
    victims: readonly Buffer[],
    isEnough: () => boolean,
  ): Promise<number> {
    const strideEntries = Math.ceil(victims.length / limits.evictStrides);
    let removed = 0;
    for (let start = 0; start < victims.length; start += strideEntries) {
      const stride = victims.slice(start, start + strideEntries).filter((key) => residency.canLeave(keyText(key)));
      await removeEntries(stride, place);
      removed += stride.length;
      if (isEnough()) break;
    }
    return removed;
  }

  async function removeEntries(keys: readonly Buffer[], place: IndexEntry['place']): Promise<void> {
    const removal = (async () => {
      const blobKeys = keys.filter((key) => !isResultKey(key));
      const fileBytes = place === 'file' ? blobKeys.reduce((sum, key) => sum + diskBytes(keySizeBytes(key)), 0) : 0;
      // Between the commit and the unlinks the files are nobody's, but still on the disk.
      options.addLoose(fileBytes);
      try {
        await committer.commit(keys.map((key): IndexChange => ({ kind: 'remove', key })));
        for (const key of blobKeys) {
          const digest = digestOfKey(key);
          if (place === 'file') await files.remove(digest);
          await linkCopies.drop(digest);
          counters.evictedBytes += digest.sizeBytes;
        }
        counters.evictedBlobs += blobKeys.length;
        counters.evictedResults += keys.length - blobKeys.length;
      } finally {
        options.addLoose(-fileBytes);
      }
    })();
    for (const key of keys) residency.leave(keyText(key), removal);
    await removal;
  }
}
