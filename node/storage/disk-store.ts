/**
 * Blobs on disk: large ones a file each, small ones values in the index. The order that keeps promises through a power cut:
 * contents synced, file named, directory synced, index committed, answer given.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { type Digest, digestKey, makeDigest } from '../../protos/digest.ts';
import { StatusError, toStatusError } from '../../protos/status.ts';
import { appendChecked, checkContent, collect, dismiss, interruptible, isIntact } from './blob-content.ts';
import type { BlobFiles } from './blob-files.ts';
import type { BlobReading } from './blob-reading.ts';
import type { BlobStore, CallOptions, LocalBlobStore, Pin } from './blob-store.ts';
import { canBeList, encodeChunkList } from './chunk-lists.ts';
import { changeBytes, type Committer } from './committer.ts';
import type { Counters } from './counters.ts';
import { blobName, digestOfKey, diskBytes, type EntryName, isResultKey } from './entry-key.ts';
import type { FileStat, FsFile } from './fs-port.ts';
import * as limits from './limits.ts';
import type { Residency } from './residency.ts';
import type { Lease, Space } from './space.ts';
import type { IndexChange, StoreIndex } from './store-index.ts';

export interface DiskStoreOptions {
  readonly index: StoreIndex;
  readonly committer: Committer;
  readonly residency: Residency;
  readonly space: Space;
  readonly files: BlobFiles;
  readonly reading: BlobReading;
  readonly counters: Counters;
}

interface FileOptions extends CallOptions {
  /** The file is written and closed; its name and its entry in the index are not durable yet. */
  readonly onClosed?: () => void;
}

export interface DiskStore extends BlobStore, Pick<LocalBlobStore, 'findByHash' | 'pin' | 'putChunked'> {
  /** Stores bytes known to hash to `digest`, in the index. */
  storeInline(digest: Digest, bytes: Uint8Array): Promise<void>;
  /** Stores the file at `path` in the temporary directory, known to hash to `digest`, under an open lease. */
  landFile(digest: Digest, path: string, file: FsFile, lease: Lease): Promise<void>;
}

export function isSmall(digest: Digest): boolean {
  return digest.sizeBytes <= limits.smallBlobBytesMax;
}

/** What a blob's file takes, its entry in the index included. */
export function fileNeed(digest: Digest): { fileBytes: number; indexBytes: number } {
  return { fileBytes: diskBytes(digest.sizeBytes), indexBytes: limits.indexBytesPerChange };
}

export function createDiskStore(options: DiskStoreOptions): DiskStore {
  const { index, committer, residency, space, files, reading, counters } = options;
  const label = (digest: Digest): string => `storing blob ${digestKey(digest)}`;

  function countStored(digest: Digest): void {
    counters.storedBlobs++;
    counters.storedBytes += digest.sizeBytes;
  }

  async function storeInline(digest: Digest, bytes: Uint8Array): Promise<void> {
    const name = blobName(digest);
    const change: IndexChange = { kind: 'inline', key: name.key, value: bytes };
    const lease = await space.reserve({ fileBytes: 0, indexBytes: changeBytes(change) }, label(digest));
    try {
      await residency.land(name, async () => {
        await committer.commit([change], lease.release);
        countStored(digest);
      });
    } finally {
      lease.release();
    }
  }

  async function landFile(
    digest: Digest,
    path: string,
    file: FsFile,
    lease: Lease,
    onClosed?: () => void,
  ): Promise<void> {
    const name = blobName(digest);
    let isMoved = false;
    try {
      const stat = await syncAndClose(file);
      onClosed?.();
      // A list that lacks a chunk by now would be taken for the blob.
      reading.isHeld(digest);
      await residency.land(name, async () => {
        try {
          await files.land(path, digest);
          isMoved = true;
          await committer.commit([{ kind: 'file', key: name.key }], lease.release);
        } catch (error) {
          await files.remove(digest);
          throw error;
        }
        reading.verified.add(name.text, stat);
        countStored(digest);
      });
    } finally {
      // It failed, or another stored the same blob first.
      if (!isMoved) await files.removePath(path).catch(() => {});
      lease.release();
    }
  }

  async function syncAndClose(file: FsFile): Promise<FileStat> {
    try {
      await files.sync(file);
      return await file.stat();
    } finally {
      await file.close();
    }
  }

  /** `write` resolves once the new file's contents hash to `digest`, or to `false` when they are not needed any more. */
  async function storeFile(
    digest: Digest,
    write: (file: FsFile) => Promise<boolean>,
    { signal, onClosed }: FileOptions = {},
  ): Promise<void> {
    const lease = await space.reserve(fileNeed(digest), label(digest), signal && { signal });
    let temp: Awaited<ReturnType<BlobFiles['createTemp']>> | undefined;
    try {
      temp = await files.createTemp();
      if (await write(temp.file)) {
        const { path, file } = temp;
        temp = undefined;
        await landFile(digest, path, file, lease, onClosed);
      }
    } finally {
      if (temp) {
        await temp.file.close().catch(() => {});
        await files.removePath(temp.path).catch(() => {});
      }
      lease.release();
    }
  }

  async function putStream(
    digest: Digest,
    name: EntryName,
    content: AsyncIterable<Uint8Array>,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const interrupt = Promise.withResolvers<void>();
    const onAbort = (): void => interrupt.reject(signal?.reason);
    let hasLanded = false;
    const stopListening = residency.onLanded(name.text, () => {
      hasLanded = true;
      interrupt.resolve();
    });
    signal?.addEventListener('abort', onAbort, { once: true });
    interrupt.promise.catch(() => {});
    const source = content[Symbol.asyncIterator]();
    try {
      const chunks = interruptible(source, interrupt.promise);
      if (isSmall(digest)) {
        const bytes = await collect(digest, chunks).catch((error: unknown) => {
          if (!hasLanded) throw error;
        });
        if (bytes && !hasLanded) await storeInline(digest, bytes);
      } else {
        await storeFile(
          digest,
          async (file) => {
            await appendChecked(digest, chunks, file).catch((error: unknown) => {
              if (!hasLanded) throw error;
            });
            return !hasLanded;
          },
          { ...(signal && { signal }) },
        );
      }
    } finally {
      dismiss(source);
      stopListening();
      signal?.removeEventListener('abort', onAbort);
    }
  }

  async function putBytes(digest: Digest, bytes: Uint8Array, options: FileOptions = {}): Promise<void> {
    options.signal?.throwIfAborted();
    if (reading.touch(digest)) return;
    if (bytes.byteLength !== digest.sizeBytes) {
      throw new StatusError('INVALID_ARGUMENT', `blob ${digestKey(digest)}: ${bytes.byteLength} bytes came`);
    }
    if (!isIntact(digest, bytes)) {
      throw new StatusError(
        'INVALID_ARGUMENT',
        `blob ${digestKey(digest)}: the bytes that came hash to something else`,
      );
    }
    if (isSmall(digest)) return storeInline(digest, bytes);
    await storeFile(digest, (file) => file.append([bytes]).then(() => true), options);
  }

  async function put(digest: Digest, content: AsyncIterable<Uint8Array>, { signal }: CallOptions = {}): Promise<void> {
    signal?.throwIfAborted();
    if (reading.touch(digest)) {
      dismiss(content[Symbol.asyncIterator]());
      return;
    }
    await putStream(digest, blobName(digest), content, signal).catch((error: unknown) => {
      throw toStatusError(error, label(digest));
    });
  }

  function pin(digests: readonly Digest[]): Pin {
    const pinned: string[] = [];
    const missing = new Map<string, Digest>();
    for (const digest of digests) {
      if (!reading.touch(digest)) missing.set(digestKey(digest), digest);
      else pinned.push(...reading.partNames(digest));
    }
    for (const text of pinned) residency.pin(text);
    return {
      missing: [...missing.values()],
      [Symbol.dispose]() {
        for (const text of pinned.splice(0)) residency.unpin(text);
      },
    };
  }

  /** A pin does not keep a chunk that turns out bad, so they are asked for more than once. */
  function pinAll(chunks: readonly Digest[]): Pin {
    const pinned = pin(chunks);
    if (pinned.missing.length === 0) return pinned;
    pinned[Symbol.dispose]();
    throw chunksMissing(pinned.missing);
  }

  async function* concatenated(chunks: readonly Digest[], signal?: AbortSignal): AsyncGenerator<Uint8Array> {
    for (const digest of chunks) {
      const open = await reading.open(digest, { isUse: false });
      if (!open) throw chunksMissing([digest]);
      await using chunk = reading.reader(digest, open);
      yield* chunk.read(undefined, signal && { signal });
    }
  }

  async function putChunked(digest: Digest, chunks: readonly Digest[], { signal }: CallOptions = {}): Promise<void> {
    signal?.throwIfAborted();
    const call = signal && { signal };
    using _ = pinAll(chunks);
    const name = blobName(digest);
    // Who has it pinned has not pinned these chunks.
    if (!canBeList(digest, chunks) || residency.isPinned(name.text)) {
      return await put(digest, concatenated(chunks, signal), call);
    }
    /** A file that somebody reads stays. */
    const isGood = (): boolean =>
      reading.touch(digest) && (index.find(name.key)?.place !== 'file' || !residency.canLeave(name.text));
    if (isGood()) return;
    await checkContent(digest, concatenated(chunks, signal));
    const list: IndexChange = { kind: 'inline', key: name.key, value: encodeChunkList(name.key, chunks) };
    const lease = await space.reserve({ fileBytes: 0, indexBytes: changeBytes(list) }, label(digest), call);
    try {
      if (!reading.touch(digest)) {
        await residency.land(name, async () => {
          using _ = pinAll(chunks);
          await committer.commit([list], lease.release);
          counters.storedBlobs++;
        });
      } else if (!isGood()) {
        await exchangeFile(digest, chunks, list, lease);
      }
    } finally {
      lease.release();
    }
  }

  /** From now on the list stands for the blob; its file goes when those who have opened it meanwhile are done. */
  async function exchangeFile(
    digest: Digest,
    chunks: readonly Digest[],
    list: IndexChange,
    lease: Lease,
  ): Promise<void> {
    const { key, text } = blobName(digest);
    const bytes = diskBytes(digest.sizeBytes);
    const exchanged = Promise.withResolvers<void>();
    const change = async (): Promise<void> => {
      // Who pinned the blob as long as it was a file did not pin these.
      using _ = pinAll(chunks);
      await committer.commit([{ kind: 'remove', key }, list], () => {
        lease.release();
        space.addLoose(bytes);
      });
      exchanged.resolve();
      await residency.unpinned(text);
      await files.remove(digest);
      space.addLoose(-bytes);
    };
    // A file that cannot be removed stays, and counts.
    residency.change(text, change).catch(exchanged.reject);
    await exchanged.promise;
  }

  return {
    storeInline,
    landFile,

    async missing(digests, { signal } = {}) {
      signal?.throwIfAborted();
      const missing = new Map<string, Digest>();
      let lookups = 0;
      for (const digest of digests) {
        // It may be a list, of so many chunks at most.
        lookups += 1 + Math.floor(digest.sizeBytes / limits.chunkMeanBytesMin);
        if (lookups >= limits.lookupsPerTurn) {
          lookups = 0;
          await nextTurn();
        }
        if (!reading.touch(digest)) missing.set(digestKey(digest), digest);
      }
      return [...missing.values()];
    },

    putChunked,

    async open(digest, { signal } = {}) {
      signal?.throwIfAborted();
      const open = await reading.open(digest);
      return open && reading.reader(digest, open);
    },

    async get(digest, { signal } = {}) {
      signal?.throwIfAborted();
      const open = await reading.open(digest);
      if (!open || open instanceof Uint8Array) return open;
      await using held = open;
      return await reading.whole(held);
    },

    put,

    async putMany(blobs, { signal } = {}) {
      const outcomes: (Error | undefined)[] = new Array<undefined>(blobs.length);
      const storeAt = async (at: number, onClosed?: () => void): Promise<void> => {
        const { digest, bytes } = blobs[at] as (typeof blobs)[number];
        await putBytes(digest, bytes, { ...(signal && { signal }), ...(onClosed && { onClosed }) }).catch(
          (error: unknown) => {
            outcomes[at] = toStatusError(error, label(digest));
          },
        );
        onClosed?.();
      };
      const indices = [...blobs.keys()];
      // Small ones meet in few transactions when all are offered at once; of files only those that are open are bounded, so
      // that names and transactions are made durable for many together.
      const small = indices.filter((at) => isSmall((blobs[at] as (typeof blobs)[number]).digest));
      const large = indices.filter((at) => !isSmall((blobs[at] as (typeof blobs)[number]).digest)).values();
      const storing = small.map((at) => storeAt(at));
      const worker = async (): Promise<void> => {
        for (const at of large) await new Promise<void>((onClosed) => storing.push(storeAt(at, onClosed)));
      };
      await Promise.all(Array.from({ length: limits.putManyFiles }, worker));
      await Promise.all(storing);
      return outcomes;
    },

    async findByHash(fn, hash) {
      const { key } = blobName(makeDigest(fn, hash, 0));
      const [found] = index.keysAfter(key, 1);
      const digest = found && !isResultKey(found) ? digestOfKey(found) : undefined;
      return digest?.hash === hash && digest.fn === fn && reading.touch(digest) ? digest : undefined;
    },

    pin: async (digests) => pin(digests),
  };
}

function chunksMissing(chunks: readonly Digest[]): StatusError {
  const list = chunks.slice(0, 10).map(({ hash, sizeBytes }) => `${hash}/${sizeBytes}`);
  const more = chunks.length > list.length ? ` and ${chunks.length - list.length} more` : '';
  return new StatusError('NOT_FOUND', `chunks not held here: ${list.join(', ')}${more}`);
}
