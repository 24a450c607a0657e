/** What a node's store is made with and offers; `openStore` makes it. */
import type { Digest } from '../../protos/digest.ts';
import type { ActionCache } from './action-cache.ts';
import type { CallOptions, LocalBlobStore } from './blob-store.ts';
import type { FsPort } from './fs-port.ts';
import type { openLmdbIndex } from './lmdb-index.ts';

export interface OpenStoreOptions {
  /** Created when absent; everything the store keeps is below it. */
  readonly dataDir: string;
  /** Hard limit of the disk space in use: blobs, temporary files and the index. At least `sizeLimitMinBytes`. */
  readonly sizeLimitBytes: number;
  /**
   * `full` (default): what was acknowledged survives a power cut. `fast`: no syncs; what was acknowledged survives the
   * death of the process, but a power cut or a kernel crash may lose it (never serve it wrong).
   */
  readonly durability?: 'full' | 'fast';
  /** The file system of the blobs; tests put one here that fails or forgets. */
  readonly fs?: FsPort;
  /** Opens the index; tests put one here that forgets. */
  readonly openIndex?: typeof openLmdbIndex;
  /** Told, in a sentence, what an operator should know: a bad blob was dropped, the index was rebuilt. */
  readonly onWarning?: (text: string) => void;
}

/** Counts and bytes for `/metrics`, `status` and `cache stats`. Counters start at zero when the store is opened. */
export interface StoreStats {
  readonly sizeLimitBytes: number;
  /** Disk space in use or reserved by writes under way; at most the limit. */
  readonly usedBytes: number;
  readonly blobs: number;
  /** Sum of the sizes of all blobs that have bytes of their own. */
  readonly blobBytes: number;
  /** Those of `blobs` that live inside the index instead of in a file each. */
  readonly smallBlobs: number;
  readonly smallBlobBytes: number;
  /** Those of `blobs` that are kept as lists of others; their bytes are in no other sum. */
  readonly chunkedBlobs: number;
  readonly chunkedBlobBytes: number;
  readonly indexBytes: number;
  readonly results: number;
  readonly pinnedBlobs: number;
  readonly counters: StoreCounters;
}

export interface StoreCounters {
  readonly evictedBlobs: number;
  readonly evictedBytes: number;
  readonly evictedResults: number;
  /** Blobs found bad on disk and dropped. */
  readonly badBlobs: number;
  readonly storedBlobs: number;
  readonly storedBytes: number;
  readonly blobHits: number;
  readonly blobMisses: number;
  readonly resultHits: number;
  /** No entry. */
  readonly resultMisses: number;
  /** An entry some of whose blobs are gone. */
  readonly resultIncomplete: number;
}

interface Progress {
  readonly doneBlobs: number;
  readonly totalBlobs: number;
  readonly doneBytes: number;
}

export interface LongOptions extends CallOptions {
  /** Called at most a few times a second. */
  readonly onProgress?: (progress: Progress) => void;
}

export interface VerifyReport {
  readonly blobs: number;
  readonly bytes: number;
  /** Digest keys of blobs that were bad or gone; they have been dropped. */
  readonly dropped: readonly string[];
  /** Files that belonged to no blob; they have been removed. */
  readonly strayFiles: number;
}

export interface Store {
  readonly blobs: LocalBlobStore;
  readonly actions: ActionCache;
  stats(): StoreStats;
  /** All blobs that are held, in no order. They may come and go meanwhile. */
  held(): Iterable<Digest>;
  /** Calls `listener` when a blob becomes held (also again) and when it goes; returns how to stop that. */
  watch(listener: (digest: Digest, isHeld: boolean) => void): () => void;
  /** Evicts, oldest first, until at most `targetBytes` are in use (default: the low watermark). Pinned blobs stay. */
  gc(
    options?: CallOptions & { readonly targetBytes?: number },
  ): Promise<{ evictedBlobs: number; evictedBytes: number }>;
  /** Reads and hashes every blob; drops the bad ones and removes stray files. */
  verify(options?: LongOptions): Promise<VerifyReport>;
  /** Waits for writes under way, flushes and gives the data directory free. */
  close(): Promise<void>;
}
