/** The empty blob of every digest function is always present and never stored (REAPI v2.12, ContentAddressableStorage). */
import { type Digest, emptyDigest, isEmptyDigest } from '../../protos/digest.ts';
import { dismiss } from './blob-content.ts';
import type { BlobReader, LocalBlobStore } from './blob-store.ts';

/** `inner` makes files of the empty blob by itself (local-files.ts). */
export function alwaysEmpty(inner: LocalBlobStore): LocalBlobStore {
  const stored = (digests: readonly Digest[]): readonly Digest[] =>
    digests.some(isEmptyDigest) ? digests.filter((digest) => !isEmptyDigest(digest)) : digests;

  return {
    missing: (digests, options) => inner.missing(stored(digests), options),
    open: async (digest, options) => (isEmptyDigest(digest) ? emptyReader(digest) : inner.open(digest, options)),
    get: async (digest, options) => (isEmptyDigest(digest) ? new Uint8Array() : inner.get(digest, options)),
    async put(digest, content, options) {
      if (!isEmptyDigest(digest)) return inner.put(digest, content, options);
      dismiss(content[Symbol.asyncIterator]());
    },
    async putMany(blobs, options) {
      const isHeld = blobs.map(({ digest, bytes }) => isEmptyDigest(digest) && bytes.byteLength === 0);
      if (!isHeld.includes(true)) return inner.putMany(blobs, options);
      const outcomes = (
        await inner.putMany(
          blobs.filter((_, at) => !isHeld[at]),
          options,
        )
      ).values();
      return isHeld.map((held) => (held ? undefined : outcomes.next().value));
    },
    findByHash: async (fn, hash) => (hash === emptyDigest(fn).hash ? emptyDigest(fn) : inner.findByHash(fn, hash)),
    async putChunked(digest, chunks, options) {
      if (!isEmptyDigest(digest)) await inner.putChunked(digest, stored(chunks), options);
    },
    pin: (digests) => inner.pin(stored(digests)),
    arrive: (digest, options) => inner.arrive(digest, options),
    copyTo: (digest, path, options) => inner.copyTo(digest, path, options),
    linkTo: (digest, path, options) => inner.linkTo(digest, path, options),
    putFile: (fn, path, options) => inner.putFile(fn, path, options),
  };
}

function emptyReader(digest: Digest): BlobReader {
  return { digest, async *read() {}, async [Symbol.asyncDispose]() {} };
}
