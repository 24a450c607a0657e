/**
 * The index of a store as a port: which blobs and results there are, where each lives, and in which order they were last
 * used. Production is LMDB (lmdb-index.ts); tests wrap it to lose what was not durable.
 */

export interface IndexEntry {
  /** `file`: a file of its own below `cas/`; `inline`: a value in the index. Results are always inline. */
  readonly place: 'file' | 'inline';
  /** Position in the order of use among those of the same place: larger is younger. */
  readonly seq: number;
  /** Names the value of an inline entry; 0 for a file. */
  readonly valueId: number;
}

export type IndexChange =
  | { readonly kind: 'file'; readonly key: Buffer }
  | { readonly kind: 'inline'; readonly key: Buffer; readonly value: Uint8Array }
  | { readonly kind: 'touch'; readonly key: Buffer }
  | { readonly kind: 'remove'; readonly key: Buffer };

export interface IndexTotals {
  readonly fileBlobs: number;
  readonly fileBytes: number;
  /** Whole blocks. */
  readonly fileDiskBytes: number;
  readonly smallBlobs: number;
  readonly smallBytes: number;
  /** Kept as lists of other blobs. */
  readonly chunkedBlobs: number;
  readonly chunkedBytes: number;
  readonly results: number;
}

export interface StoreIndex {
  find(key: Buffer): IndexEntry | undefined;
  has(key: Buffer): boolean;
  /** The bytes of an inline entry; a copy. */
  value(entry: IndexEntry): Uint8Array | undefined;
  /**
   * Applies all changes or none; durable when it resolves, and not visible before it is. Adding what is there moves it to
   * the young end (a result is replaced); touching or removing what is not there does nothing. One call at a time.
   */
  commit(changes: readonly IndexChange[]): Promise<void>;
  /** Keys of one place in order of use, oldest first, at most `limit`. */
  oldest(place: IndexEntry['place'], limit: number): Buffer[];
  /** Keys in order of their bytes after `after`, at most `limit`. */
  keysAfter(after: Buffer | undefined, limit: number): Buffer[];
  totals(): IndexTotals;
  /** Size of the index on disk, and how much of it is not free. */
  size(): { readonly fileBytes: number; readonly usedBytes: number };
  /** Whether the last writer closed the index in good order (true for a new one). */
  readonly closedCleanly: boolean;
  /** Whether what lies in files has never been entered whole: it was made just now, or its maker died before the end. */
  readonly isNew: boolean;
  /** It is not new any more. */
  markFilled(): void;
  /** Writes nothing more and frees the lock; in good order when there is no file that it does not know. */
  close(options: { readonly isTidy: boolean }): Promise<void>;
}
