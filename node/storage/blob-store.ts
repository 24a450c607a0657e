/**
 * Where blobs are kept: one small interface that the disk store and every decorator over it implement.
 *
 * The rules (docs/ARCHITECTURE.md): bytes handed out under a digest hash to it and have its size; a blob is visible only
 * when it is whole, verified and durable; the empty blob is always present. Every implementation passes
 * test/contract/blob-store.ts.
 */
import type { Digest } from '../../protos/digest.ts';

export interface CallOptions {
  readonly signal?: AbortSignal;
}

export interface ByteRange {
  /** First byte; at most `digest.sizeBytes`. */
  readonly offset: number;
  /** Number of bytes; cut at the end of the blob. */
  readonly length: number;
}

/** An open blob: pinned against eviction until disposed. */
export interface ReadOptions extends CallOptions {
  /** Where chunks are put as far as possible, instead of into memory of their own; whoever gives it decides for how long. */
  readonly memory?: { readonly take: () => Uint8Array };
}

export interface BlobReader extends AsyncDisposable {
  readonly digest: Digest;
  /**
   * Yields the bytes of `range` (default: all) in order, in chunks of at most a few hundred KiB, each valid for good.
   * Throws NOT_FOUND when the blob turned out bad on disk (it has been dropped by then).
   */
  read(range?: ByteRange, options?: ReadOptions): AsyncIterable<Uint8Array>;
}

export interface BlobStore {
  /** Those of `digests` that are not held, in order, duplicates once; what is held has its life lengthened. */
  missing(digests: readonly Digest[], options?: CallOptions): Promise<Digest[]>;

  /** Opens a blob for reading, or `undefined` when it is not held. */
  open(digest: Digest, options?: CallOptions): Promise<BlobReader | undefined>;

  /**
   * The whole blob in memory, verified, or `undefined` when it is not held. For messages and small files; the caller
   * bounds the size before it asks.
   */
  get(digest: Digest, options?: CallOptions): Promise<Uint8Array | undefined>;

  /**
   * Stores one blob from a stream of its bytes; resolves when it is durable and visible. Storing a held blob is a no-op
   * that may leave the stream unread. Throws INVALID_ARGUMENT when bytes and digest differ (nothing becomes visible),
   * RESOURCE_EXHAUSTED when the budget or the disk has no room.
   */
  put(digest: Digest, content: AsyncIterable<Uint8Array>, options?: CallOptions): Promise<void>;

  /** Stores many small blobs at the price of one sync; one outcome each, in order: `undefined`, or why not. */
  putMany(
    blobs: readonly { readonly digest: Digest; readonly bytes: Uint8Array }[],
    options?: CallOptions,
  ): Promise<(Error | undefined)[]>;
}

/** Keeps blobs from being evicted until it is disposed. */
export interface Pin extends Disposable {
  /** Those that were not held when the pin was taken. */
  readonly missing: readonly Digest[];
}

/**
 * A blob that comes piece by piece, in any order. Nobody but its holder sees it before it is whole, verified and durable;
 * disposing of it before that drops it.
 */
export interface Arrival extends AsyncDisposable {
  readonly digest: Digest;
  /**
   * Takes bytes that begin at `offset`; resolves when `read` finds them, and their memory may be used for others. Throws
   * INVALID_ARGUMENT beyond the blob's end.
   */
  write(offset: number, chunks: readonly Uint8Array[]): Promise<void>;
  /** Bytes that were written before, unverified. */
  read(offset: number, length: number, options?: Pick<ReadOptions, 'memory'>): Promise<Uint8Array>;
  /**
   * Makes the blob durable and visible. Throws INVALID_ARGUMENT when the bytes are not its bytes, or not all there;
   * nothing is left of them then.
   */
  finish(): Promise<void>;
}

/** What a store on this machine's disk offers beyond bytes. */
export interface LocalBlobStore extends BlobStore {
  /** The digest of a held blob of which only the hash is known (HTTP caches name no size); `undefined` when none is held. */
  findByHash(fn: Digest['fn'], hash: string): Promise<Digest | undefined>;

  /** Pins the held ones of `digests`; the pin names the others. */
  pin(digests: readonly Digest[]): Promise<Pin>;

  /**
   * Stores a blob that held ones make up, in this order; large ones are kept as the list of their chunks, without bytes of
   * their own, and so is one that is held already. Throws NOT_FOUND naming chunks that are not held, INVALID_ARGUMENT when
   * they do not make the blob.
   */
  putChunked(digest: Digest, chunks: readonly Digest[], options?: CallOptions): Promise<void>;

  /** Room for a blob that comes piece by piece. Throws RESOURCE_EXHAUSTED when there is none. */
  arrive(digest: Digest, options?: CallOptions): Promise<Arrival>;

  /**
   * Makes the file `path` with the blob's bytes: a private copy (reflink where the file system can), mode 0644 or 0755.
   * Returns false when the blob is not held. Fails when `path` exists.
   */
  copyTo(digest: Digest, path: string, options: { readonly executable: boolean }): Promise<boolean>;

  /**
   * Like `copyTo`, but `path` may share its inode with the store: read-only mode (0444 or 0555), and the caller promises
   * that nothing can write to it or change its mode for as long as it exists.
   */
  linkTo(digest: Digest, path: string, options: { readonly executable: boolean }): Promise<boolean>;

  /**
   * Takes in a regular file, hashing it; `move` allows taking the file itself away instead of copying. Nobody may have it
   * open for writing any more. Throws FAILED_PRECONDITION for anything but a regular file, ABORTED when it changes meanwhile.
   */
  putFile(fn: Digest['fn'], path: string, options?: CallOptions & { readonly move?: boolean }): Promise<Digest>;
}
