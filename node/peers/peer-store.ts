/**
 * The store tier "peers": what is not here is got from the mesh, verified, kept, and then served like everything else.
 *
 * "Present" stays a promise: `missing` looks at this disk alone (rule 2; what GetActionResult promises is brought here
 * first). A large blob is handed to its client while it comes; its last bytes follow only when the whole is verified.
 */
import type { Digest } from '../../protos/digest.ts';
import type { BlobReader, CallOptions, LocalBlobStore } from '../storage/blob-store.ts';
import type { ArrivingBlob } from './arriving.ts';
import type { Fetches } from './fetches.ts';
import * as limits from './limits.ts';
import type { Transfers } from './transfers.ts';

export interface PeerStoreOptions {
  readonly local: LocalBlobStore;
  readonly fetches: Pick<Fetches, 'fetch'>;
  readonly arriving: Transfers['arriving'];
}

export function peerStore({ local, fetches, arriving }: PeerStoreOptions): LocalBlobStore {
  /** Asks the mesh and then again here. */
  async function orFetched<T>(digest: Digest, signal: AbortSignal | undefined, here: () => Promise<T | undefined>) {
    const found = await here();
    if (found !== undefined) return found;
    return (await fetches.fetch(digest, signal && { signal })) ? await here() : undefined;
  }

  async function openLarge(digest: Digest, options: CallOptions): Promise<BlobReader | undefined> {
    const { signal } = options;
    // Its reader may want it for longer than this call lasts.
    const leaving = new AbortController();
    const fetched = fetches.fetch(digest, { signal: leaving.signal }).catch(() => false);
    const isHere = await firstBytes(digest, fetched, signal).catch((error: unknown) => {
      leaving.abort();
      throw error;
    });
    if (isHere === 'missing') return undefined;
    if (isHere === 'stored') return await local.open(digest, options);
    return {
      digest,
      read: (range = { offset: 0, length: digest.sizeBytes }, readOptions) => isHere.read(range, readOptions),
      async [Symbol.asyncDispose]() {
        // Of a blob that came wrong the fetch goes on, from one holder alone: a new one would mix the same holders again.
        if (isHere.state() !== 'dropped') leaving.abort();
      },
    };
  }

  /** Waits until the blob is here, can be read while it comes, or cannot be had. */
  async function firstBytes(
    digest: Digest,
    fetched: Promise<boolean>,
    signal: AbortSignal | undefined,
  ): Promise<ArrivingBlob | 'stored' | 'missing'> {
    let isOver: boolean | undefined;
    void fetched.then((isStored) => (isOver = isStored));
    const left = Promise.withResolvers<never>();
    left.promise.catch(() => {});
    const onAbort = (): void => left.reject(signal?.reason);
    signal?.addEventListener('abort', onAbort, { once: true });
    try {
      for (;;) {
        signal?.throwIfAborted();
        if (isOver !== undefined) return isOver ? 'stored' : 'missing';
        const blob = arriving(digest);
        if (blob?.hasBegun({ offset: 0, length: digest.sizeBytes })) return blob;
        await Promise.race([fetched, blob ? blob.changed() : pause(), left.promise]);
      }
    } finally {
      signal?.removeEventListener('abort', onAbort);
    }
  }

  return {
    ...local,
    get: (digest, options = {}) => orFetched(digest, options.signal, () => local.get(digest, options)),
    async open(digest, options = {}) {
      if (digest.sizeBytes < limits.streamedBytesMin) {
        return await orFetched(digest, options.signal, () => local.open(digest, options));
      }
      return (await local.open(digest, options)) ?? (await openLarge(digest, options));
    },
    copyTo: async (digest, path, options) =>
      (await local.copyTo(digest, path, options)) ||
      ((await fetches.fetch(digest)) && (await local.copyTo(digest, path, options))),
    linkTo: async (digest, path, options) =>
      (await local.linkTo(digest, path, options)) ||
      ((await fetches.fetch(digest)) && (await local.linkTo(digest, path, options))),
  };
}

/** `other` while there is one, `local` otherwise; asked at every call. */
export function switchedStore(local: LocalBlobStore, other: () => LocalBlobStore | undefined): LocalBlobStore {
  return {
    ...local,
    get: (digest, options) => (other() ?? local).get(digest, options),
    open: (digest, options) => (other() ?? local).open(digest, options),
    copyTo: (digest, path, options) => (other() ?? local).copyTo(digest, path, options),
    linkTo: (digest, path, options) => (other() ?? local).linkTo(digest, path, options),
  };
}

/** Until the first bytes come there is nothing that could tell of them. */
function pause(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, limits.arrivalPollMs));
}
