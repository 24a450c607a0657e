/** Storage in memory, for tests of what stands on it; it keeps the contract of node/storage/blob-store.ts. */
import { type Digest, digestKey, isEmptyDigest } from '../../../protos/digest.ts';
import type { ActionResult } from '../../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { hashBytes } from '../../../protos/hasher.ts';
import { StatusError } from '../../../protos/status.ts';
import type { ActionCache, ActionKey } from '../../../node/storage/action-cache.ts';
import type { BlobStore } from '../../../node/storage/blob-store.ts';

export interface MemoryStore {
  readonly blobs: BlobStore;
  readonly actions: ActionCache;
  delete(digest: Digest): void;
  /** Blobs whose `put` has begun and not ended. */
  puts(): number;
  /** Readers that are open. */
  readers(): number;
}

const chunkBytes = 128 * 1024;

export function createMemoryStore(): MemoryStore {
  const held = new Map<string, Uint8Array>();
  const results = new Map<string, ActionResult>();
  let puts = 0;
  let readers = 0;
  const find = (digest: Digest) => (isEmptyDigest(digest) ? new Uint8Array() : held.get(digestKey(digest)));
  const keep = (digest: Digest, bytes: Uint8Array) => {
    if (bytes.byteLength !== digest.sizeBytes || hashBytes(digest.fn, bytes) !== digest.hash) {
      throw new StatusError('INVALID_ARGUMENT', `the bytes are not blob ${digest.hash}/${digest.sizeBytes}`);
    }
    held.set(digestKey(digest), bytes.slice());
  };
  const blobs: BlobStore = {
    async missing(digests) {
      const absent = new Map(digests.filter((digest) => !find(digest)).map((digest) => [digestKey(digest), digest]));
      return [...absent.values()];
    },
    async open(digest) {
      const bytes = find(digest);
      if (!bytes) return undefined;
      readers += 1;
      return {
        digest,
        async *read({ offset, length } = { offset: 0, length: bytes.byteLength }) {
          for (let at = offset; at < offset + length; at += chunkBytes) {
            yield bytes.subarray(at, Math.min(at + chunkBytes, offset + length));
          }
        },
        async [Symbol.asyncDispose]() {
          readers -= 1;
        },
      };
    },
    async get(digest) {
      return find(digest);
    },
    async put(digest, content) {
      if (find(digest)) return;
      puts += 1;
      try {
        const chunks: Uint8Array[] = [];
        for await (const chunk of content) chunks.push(chunk.slice());
        keep(digest, Buffer.concat(chunks));
      } finally {
        puts -= 1;
      }
    },
    async putMany(entries) {
      return entries.map(({ digest, bytes }) => {
        try {
          if (!find(digest)) keep(digest, bytes);
          return undefined;
        } catch (error) {
          return error as Error;
        }
      });
    },
  };
  const keyOf = ({ instance, action }: ActionKey) => `${instance}|${digestKey(action)}`;
  return {
    blobs,
    actions: {
      async get(key) {
        return results.get(keyOf(key));
      },
      async put(key, result) {
        results.set(keyOf(key), result);
      },
    },
    delete: (digest) => void held.delete(digestKey(digest)),
    puts: () => puts,
    readers: () => readers,
  };
}
