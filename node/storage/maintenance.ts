/** Going through the whole store: hashing every blob, adopting or removing files the index does not know. */
import { join } from 'node:path';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { type Digest, digestFunctionNames, digestKey } from '../../protos/digest.ts';
import { BadBlobError, readHashing } from './blob-content.ts';
import { type BlobFiles, casDir, ignoreAbsent } from './blob-files.ts';
import { type BlobReading, isChunked } from './blob-reading.ts';
import type { CallOptions } from './blob-store.ts';
import type { Committer } from './committer.ts';
import { blobName, digestOfFile, digestOfKey, isResultKey } from './entry-key.ts';
import type { FsPort } from './fs-port.ts';
import * as limits from './limits.ts';
import type { LongOptions, VerifyReport } from './store.ts';
import type { Residency } from './residency.ts';
import type { StoreIndex } from './store-index.ts';

export interface MaintenanceOptions {
  readonly fs: FsPort;
  readonly dataDir: string;
  readonly index: StoreIndex;
  readonly committer: Committer;
  readonly residency: Residency;
  readonly files: BlobFiles;
  readonly reading: BlobReading;
}

export interface Maintenance {
  /** `keepStrays` leaves files alone that the index does not know. */
  verify(options?: LongOptions & { readonly keepStrays?: boolean }): Promise<VerifyReport>;
  /** Takes in every file that hashes to its name and is not in the index; removes the others. */
  adopt(options?: LongOptions): Promise<VerifyReport>;
  /** Removes files that a writer left behind when it died between naming a file and committing it, or evicting it. */
  removeStrays(options?: CallOptions): Promise<number>;
}

export function createMaintenance(options: MaintenanceOptions): Maintenance {
  const { fs, dataDir, index, committer, residency, files, reading } = options;

  /** Calls `visit` for each file below `cas/` that the index has no file entry for and nobody is storing or evicting. */
  async function eachStray(
    signal: AbortSignal | undefined,
    visit: (path: string, digest: Digest | undefined) => Promise<void>,
  ): Promise<void> {
    for (const fn of digestFunctionNames) {
      for (const prefix of await fs.list(join(dataDir, casDir, fn))) {
        signal?.throwIfAborted();
        const dir = join(dataDir, casDir, fn, prefix);
        for (const name of await fs.list(dir)) {
          const digest = digestOfFile(fn, prefix, name);
          if (digest) {
            const { key, text } = blobName(digest);
            if (index.find(key)?.place === 'file' || !residency.canLeave(text)) continue;
          }
          await visit(join(dir, name), digest);
        }
      }
    }
  }

  async function removeStray(path: string, digest: Digest | undefined): Promise<void> {
    const unlink = (): Promise<void> => fs.unlink(path).catch(ignoreAbsent);
    if (!digest) return unlink();
    // Nobody may store the blob under this name while the file of that name is being removed.
    const { key, text } = blobName(digest);
    if (index.has(key)) return residency.change(text, unlink);
    const removal = unlink();
    residency.leave(text, removal);
    await removal;
  }

  async function removeStrays({ signal }: CallOptions = {}): Promise<number> {
    let removed = 0;
    await eachStray(signal, async (path, digest) => {
      await removeStray(path, digest);
      removed++;
    });
    return removed;
  }

  /** Whether the blob is good; it has been dropped if not. */
  async function check(digest: Digest, signal: AbortSignal | undefined): Promise<boolean> {
    const open = await reading.open(digest, { isUse: false });
    if (!open || open instanceof Uint8Array) return open !== undefined;
    await using held = open;
    return isChunked(held) || (await reading.verifyAnew(held, signal));
  }

  /**
   * Whether the list is good, or went because a chunk was evicted; it has been dropped if not. Its chunks were checked for
   * themselves, and that they make the blob was seen when it was stored.
   */
  async function checkList(digest: Digest, dropped: ReadonlySet<string>): Promise<boolean> {
    if (!reading.isList(digest)) return true;
    const [name = '', ...chunks] = reading.partNames(digest);
    if (reading.isHeld(digest)) return true;
    await residency.settle(name);
    return chunks.length > 0 && !chunks.some((chunk) => dropped.has(chunk));
  }

  async function* blobKeys(): AsyncGenerator<Buffer> {
    let after: Buffer | undefined;
    for (;;) {
      const keys = index.keysAfter(after, limits.verifyPageEntries);
      yield* keys.filter((key) => !isResultKey(key));
      after = keys.at(-1);
      if (!after) return;
      // Small blobs are hashed without ever waiting for anything.
      await nextTurn();
    }
  }

  const verify: Maintenance['verify'] = async ({ signal, onProgress, keepStrays = false } = {}) => {
    const totals = index.totals();
    const progress = progressTo(onProgress, totals.fileBlobs + totals.smallBlobs + totals.chunkedBlobs);
    const dropped: Digest[] = [];
    const lists: Digest[] = [];
    const keys = blobKeys();
    const worker = async (): Promise<void> => {
      for await (const key of keys) {
        signal?.throwIfAborted();
        const digest = digestOfKey(key);
        if (reading.isList(digest)) {
          lists.push(digest);
          await nextTurn();
        } else if (reading.isHeld(digest)) {
          if (!(await check(digest, signal))) dropped.push(digest);
          progress.add(digest.sizeBytes);
        }
      }
    };
    await Promise.all(Array.from({ length: limits.verifyFiles }, worker));
    const droppedNames = new Set(dropped.map((digest) => blobName(digest).text));
    for (const list of lists) {
      signal?.throwIfAborted();
      await nextTurn();
      if (!(await checkList(list, droppedNames))) dropped.push(list);
      progress.add(list.sizeBytes);
    }
    const strayFiles = keepStrays ? 0 : await removeStrays(signal && { signal });
    return { ...progress.end(), dropped: dropped.map(digestKey), strayFiles };
  };

  async function hashesToItsName(digest: Digest, signal: AbortSignal | undefined): Promise<boolean> {
    const file = await files.openRead(digest);
    if (!file) return false;
    try {
      const stat = await file.stat();
      if (stat.kind !== 'file' || stat.sizeBytes !== digest.sizeBytes) return false;
      for await (const _ of readHashing(file, digest, signal && { signal }));
      return true;
    } catch (error) {
      if (error instanceof BadBlobError) return false;
      throw error;
    } finally {
      await file.close();
    }
  }

  async function adopt({ signal, onProgress }: LongOptions = {}): Promise<VerifyReport> {
    const progress = progressTo(onProgress, undefined);
    const dropped: string[] = [];
    let strayFiles = 0;
    let adopting: Promise<void>[] = [];
    try {
      await eachStray(signal, async (path, digest) => {
        if (digest && !index.has(blobName(digest).key) && (await hashesToItsName(digest, signal))) {
          const { key } = blobName(digest);
          adopting.push(residency.land(blobName(digest), () => committer.commit([{ kind: 'file', key }])));
          progress.add(digest.sizeBytes);
          if (adopting.length >= limits.verifyPageEntries) {
            await Promise.all(adopting);
            adopting = [];
          }
        } else {
          if (digest) dropped.push(digestKey(digest));
          await removeStray(path, digest);
          strayFiles++;
        }
      });
    } finally {
      // Whoever hears of a failure may close the index.
      await Promise.allSettled(adopting);
    }
    await Promise.all(adopting);
    return { ...progress.end(), dropped, strayFiles };
  }

  return { verify, adopt, removeStrays };
}

/** Reports a few times a second; an unknown total is what was done so far. */
function progressTo(onProgress: LongOptions['onProgress'], totalBlobs: number | undefined) {
  let doneBlobs = 0;
  let doneBytes = 0;
  let reportedMs = performance.now();
  const report = (): void => onProgress?.({ doneBlobs, totalBlobs: Math.max(totalBlobs ?? 0, doneBlobs), doneBytes });
  return {
    add(bytes: number): void {
      doneBlobs++;
      doneBytes += bytes;
      if (performance.now() - reportedMs < limits.progressMs) return;
      reportedMs = performance.now();
      report();
    },
    end(): { blobs: number; bytes: number } {
      report();
      return { blobs: doneBlobs, bytes: doneBytes };
    },
  };
}
