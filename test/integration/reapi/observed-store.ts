/** A real store in a directory of its own, with what tests need beside: blobs that get lost, and counts of what is open. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ActionCache } from '../../../node/storage/action-cache.ts';
import type { BlobStore, LocalBlobStore } from '../../../node/storage/blob-store.ts';
import { openStore } from '../../../node/storage/open-store.ts';
import { type Digest, digestKey } from '../../../protos/digest.ts';

export interface ObservedStore extends AsyncDisposable {
  readonly blobs: BlobStore & Pick<LocalBlobStore, 'putFile' | 'putChunked'>;
  readonly actions: ActionCache;
  /** From now on the blob is not held, until it is stored again. */
  lose(digest: Digest): void;
  /** Blobs whose `put` has begun and not ended. */
  puts(): number;
  /** Readers that are open. */
  readers(): number;
}

export async function openObservedStore(): Promise<ObservedStore> {
  const dataDir = await mkdtemp(join(tmpdir(), 'potluck-reapi-'));
  const store = await openStore({ dataDir, sizeLimitBytes: 2 * 1024 ** 3, durability: 'fast' });
  const { blobs, actions } = store;
  const lost = new Set<string>();
  const isLost = (digest: Digest) => lost.has(digestKey(digest));
  let puts = 0;
  let readers = 0;
  return {
    actions,
    blobs: {
      putFile: (fn, path, options) => blobs.putFile(fn, path, options),
      async putChunked(digest, chunks, options) {
        await blobs.putChunked(digest, chunks, options);
        lost.delete(digestKey(digest));
      },
      async missing(digests, options) {
        const missing = new Set((await blobs.missing(digests, options)).map(digestKey));
        const seen = new Set<string>();
        return digests.filter((digest) => {
          const key = digestKey(digest);
          if (seen.has(key) || !(lost.has(key) || missing.has(key))) return false;
          seen.add(key);
          return true;
        });
      },
      async open(digest, options) {
        const reader = isLost(digest) ? undefined : await blobs.open(digest, options);
        if (!reader) return undefined;
        readers += 1;
        return {
          digest,
          read: (range, options) => reader.read(range, options),
          async [Symbol.asyncDispose]() {
            readers -= 1;
            await reader[Symbol.asyncDispose]();
          },
        };
      },
      get: async (digest, options) => (isLost(digest) ? undefined : blobs.get(digest, options)),
      async put(digest, content, options) {
        puts += 1;
        try {
          await blobs.put(digest, content, options);
          lost.delete(digestKey(digest));
        } finally {
          puts -= 1;
        }
      },
      async putMany(entries, options) {
        const outcomes = await blobs.putMany(entries, options);
        for (const [index, { digest }] of entries.entries()) if (!outcomes[index]) lost.delete(digestKey(digest));
        return outcomes;
      },
    },
    lose: (digest) => void lost.add(digestKey(digest)),
    puts: () => puts,
    readers: () => readers,
    async [Symbol.asyncDispose]() {
      await store.close();
      await rm(dataDir, { recursive: true });
    },
  };
}
