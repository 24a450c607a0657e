/** Counts hits and misses of blobs and results around any store. */
import type { Digest } from '../../protos/digest.ts';
import type { LocalBlobStore } from './blob-store.ts';
import type { Counters } from './counters.ts';

/** Asking for presence and for bytes both count, one each per digest. */
export function counted(inner: LocalBlobStore, counters: Counters): LocalBlobStore {
  const count = (hits: number, misses: number): void => {
    counters.blobHits += hits;
    counters.blobMisses += misses;
  };
  const seen = <T>(found: T | undefined): T | undefined => {
    count(found === undefined ? 0 : 1, found === undefined ? 1 : 0);
    return found;
  };
  return {
    ...inner,
    async missing(digests: readonly Digest[], options) {
      const missing = await inner.missing(digests, options);
      count(digests.length - missing.length, missing.length);
      return missing;
    },
    open: async (digest, options) => seen(await inner.open(digest, options)),
    get: async (digest, options) => seen(await inner.get(digest, options)),
  };
}
