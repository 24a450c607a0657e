/**
 * Opens the store of one node: the disk CAS and the action cache over one data directory, wired in this one file.
 *
 * One writing process per data directory; `readStoreStats` may look from beside.
 */
import { rm } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { StatusError, toStatusError } from '../../protos/status.ts';
import { alwaysEmpty } from './always-empty.ts';
import { createArrivals } from './arrivals.ts';
import { type BlobFiles, casDir, createBlobFiles, tempDir } from './blob-files.ts';
import { createBlobReading } from './blob-reading.ts';
import { createCommitter } from './committer.ts';
import { counted } from './counted.ts';
import { createCounters } from './counters.ts';
import { createDiskActionCache } from './disk-action-cache.ts';
import { createDiskStore } from './disk-store.ts';
import { createEvictor } from './evictor.ts';
import { digestOfKey, diskBytes, isResultKey } from './entry-key.ts';
import { type FsPort, nodeFs } from './fs-port.ts';
import * as limits from './limits.ts';
import { createLinkCopies } from './link-copies.ts';
import { openLmdbIndex, readLmdbTotals } from './lmdb-index.ts';
import { createLocalFiles } from './local-files.ts';
import { createMaintenance } from './maintenance.ts';
import { createRecency } from './recency.ts';
import { createResidency } from './residency.ts';
import { batchChangesFor, createSpace, type Space } from './space.ts';
import type { OpenStoreOptions, Store, StoreStats } from './store.ts';
import type { IndexTotals, StoreIndex } from './store-index.ts';
import { checkUnsynced, settleUnsynced } from './unsynced.ts';

export type { OpenStoreOptions, Store, StoreStats } from './store.ts';

const indexDir = 'index';
const linksDir = 'links';

/** Throws FAILED_PRECONDITION when another live process uses the directory, INVALID_ARGUMENT for a limit too small. */
export async function openStore(options: OpenStoreOptions): Promise<Store> {
  const { sizeLimitBytes, fs = nodeFs, onWarning = () => {} } = options;
  const dataDir = resolve(options.dataDir);
  const sync = options.durability !== 'fast';
  if (sizeLimitBytes < limits.sizeLimitMinBytes) {
    throw new StatusError(
      'INVALID_ARGUMENT',
      `a cache of ${sizeLimitBytes} bytes is too small; --cache-size must be at least ${limits.sizeLimitMinBytes}`,
    );
  }
  try {
    const { index, isLost } = await openIndex({ ...options, dataDir }, fs, sync);
    try {
      return await wire({ index, isLost, dataDir, sizeLimitBytes, fs, sync, onWarning });
    } catch (error) {
      await index.close({ isTidy: false });
      throw error;
    }
  } catch (error) {
    throw toStatusError(error, `opening the store in ${dataDir}`);
  }
}

interface Wiring {
  readonly index: StoreIndex;
  /** Whether there are files whose index is gone. */
  readonly isLost: boolean;
  readonly dataDir: string;
  readonly sizeLimitBytes: number;
  readonly fs: FsPort;
  readonly sync: boolean;
  readonly onWarning: (text: string) => void;
}

async function wire({ index, isLost, dataDir, sizeLimitBytes, fs, sync, onWarning }: Wiring): Promise<Store> {
  const counters = createCounters();
  const batchChanges = batchChangesFor(sizeLimitBytes);
  const committer = createCommitter(index, { freeBytes: () => fs.freeBytes(dataDir), batchChanges });
  const recency = createRecency(committer, batchChanges);
  const residency = createResidency(index);
  const addLoose = (bytes: number): void => space.addLoose(bytes);
  const files: BlobFiles = createBlobFiles({ fs, dataDir, sync, onNewDirectory: () => addLoose(diskBytes(1)) });
  const linkCopies = createLinkCopies({ fs, dir: join(dataDir, linksDir), space: () => space });
  const evictBatch = createEvictor({
    index,
    committer,
    recency,
    residency,
    files,
    linkCopies,
    counters,
    addLoose,
    batchEntries: Math.min(limits.evictBatchEntries, batchChanges),
  });
  const space: Space = createSpace({ limitBytes: sizeLimitBytes, committer, evictBatch });
  const reading = createBlobReading({ index, committer, recency, residency, files, linkCopies, counters, onWarning });
  const diskStore = createDiskStore({ index, committer, residency, space, files, reading, counters });
  const local = createLocalFiles({ fs, store: diskStore, reading, files, linkCopies, space });
  const arrivals = createArrivals({ store: diskStore, reading, files, space });
  const held = alwaysEmpty({ ...diskStore, ...local, ...arrivals });
  const actions = createDiskActionCache({ index, committer, recency, residency, space, blobs: held, counters });
  const maintenance = createMaintenance({ fs, dataDir, index, committer, residency, files, reading });

  space.addLoose(diskBytes(1) * (await directoriesBelow(fs, dataDir)));
  for (const dir of [tempDir, linksDir]) {
    for (const name of await fs.list(join(dataDir, dir))) await fs.unlink(join(dataDir, dir, name));
  }
  if (isLost) {
    // A build that was cut short has entered some of them.
    const verified = await maintenance.verify({ keepStrays: true });
    const adopted = await maintenance.adopt();
    onWarning(
      `the index was missing or damaged and was built anew: ${verified.blobs + adopted.blobs} blobs kept, ` +
        `${verified.dropped.length + adopted.dropped.length} dropped`,
    );
  }
  if (index.isNew) index.markFilled();
  if (committer.size().fileBytes > sizeLimitBytes) {
    throw new StatusError(
      'INVALID_ARGUMENT',
      `the index in ${dataDir} alone takes ${committer.size().fileBytes} bytes and cannot shrink; ` +
        'raise --cache-size, or delete the directory "index" there to have it built anew',
    );
  }
  // The limit may be lower than last time.
  await space.shrink(sizeLimitBytes);
  const closing = new AbortController();
  let isTidy = index.closedCleanly || isLost;
  const sweep = async (): Promise<void> => {
    try {
      await maintenance.removeStrays({ signal: closing.signal });
      isTidy = true;
    } catch (error) {
      if (!closing.signal.aborted) onWarning(toStatusError(error, 'removing left-over files').message);
    }
  };
  const sweeping = isTidy ? Promise.resolve() : sweep();

  return {
    blobs: counted(held, counters),
    actions,
    stats: () => ({
      ...statsOf(index.totals(), committer.size().fileBytes),
      sizeLimitBytes,
      usedBytes: space.usedBytes(),
      pinnedBlobs: residency.pinnedCount(),
      counters: { ...counters },
    }),
    *held() {
      let last: Buffer | undefined;
      for (;;) {
        const keys = index.keysAfter(last, limits.verifyPageEntries);
        last = keys.at(-1);
        if (!last) return;
        for (const key of keys) {
          const digest = isResultKey(key) ? undefined : digestOfKey(key);
          if (digest && reading.isHeld(digest)) yield digest;
        }
      }
    },
    watch: (listener) =>
      residency.watch((text, isHeld) => {
        const key = Buffer.from(text, 'latin1');
        if (!isResultKey(key)) listener(digestOfKey(key), isHeld);
      }),
    async gc({ targetBytes = sizeLimitBytes * limits.lowWatermarkShare, ...call } = {}) {
      const { evictedBlobs, evictedBytes } = counters;
      await space.shrink(targetBytes, call);
      return {
        evictedBlobs: counters.evictedBlobs - evictedBlobs,
        evictedBytes: counters.evictedBytes - evictedBytes,
      };
    },
    verify: (long) => maintenance.verify(long),
    async close() {
      closing.abort();
      await sweeping;
      await recency.close();
      // Whoever opens the store next has these files to itself.
      await residency.close();
      await committer.idle();
      if (!sync) await settleUnsynced(join(dataDir, indexDir), dataDir, fs);
      await index.close({ isTidy });
    },
  };
}

/** The stats of a store that another process may have open; `undefined` when there is none. Limit and counters are zero. */
export async function readStoreStats(dataDir: string): Promise<StoreStats | undefined> {
  const index = await readLmdbTotals(join(dataDir, indexDir));
  return index && { ...statsOf(index.totals, index.size.fileBytes), counters: createCounters() };
}

function statsOf(totals: IndexTotals, indexBytes: number): Omit<StoreStats, 'counters'> {
  return {
    sizeLimitBytes: 0,
    usedBytes: totals.fileDiskBytes + indexBytes,
    blobs: totals.fileBlobs + totals.smallBlobs + totals.chunkedBlobs,
    blobBytes: totals.fileBytes + totals.smallBytes,
    smallBlobs: totals.smallBlobs,
    smallBlobBytes: totals.smallBytes,
    chunkedBlobs: totals.chunkedBlobs,
    chunkedBlobBytes: totals.chunkedBytes,
    indexBytes,
    results: totals.results,
    pinnedBlobs: 0,
  };
}

async function openIndex(
  { dataDir, sizeLimitBytes, openIndex: open = openLmdbIndex, onWarning = () => {} }: OpenStoreOptions,
  fs: FsPort,
  sync: boolean,
): Promise<{ index: StoreIndex; isLost: boolean }> {
  const path = join(dataDir, indexDir);
  await makeDataDir(fs, dataDir, sync);
  for (const dir of [casDir, tempDir, linksDir, indexDir]) await fs.makeDir(join(dataDir, dir));
  const mark = await checkUnsynced(path, dataDir, fs, sync);
  const openIt = (): Promise<StoreIndex> => open({ path, dataDir, sizeLimitBytes, sync });
  const index = await openIt()
    .catch(async (error: unknown) => {
      if (!(error instanceof StatusError && error.code === 'DATA_LOSS')) throw error;
      onWarning(`the index cannot be read (${error.reason}); building it anew from the files`);
      await rm(path, { recursive: true, force: true });
      return openIt();
    })
    .catch(async (error: unknown) => {
      await mark.onRefused();
      throw error;
    });
  try {
    await mark.onOpen();
    if (sync) {
      // LMDB syncs its files but not their names.
      for (const dir of [path, dataDir]) await fs.syncDir(dir);
    }
    return { index, isLost: index.isNew && (await fs.list(join(dataDir, casDir))).length > 0 };
  } catch (error) {
    await index.close({ isTidy: false });
    throw error;
  }
}

/** The data directory, those in it, and those of the blobs' files. */
async function directoriesBelow(fs: FsPort, dataDir: string): Promise<number> {
  const functions = await fs.list(join(dataDir, casDir));
  const shards = await Promise.all(functions.map((fn) => fs.list(join(dataDir, casDir, fn))));
  const own = [dataDir, casDir, tempDir, linksDir, indexDir];
  return own.length + functions.length + shards.flat().length;
}

/** Also the directories above, each durable in the one that holds it. */
async function makeDataDir(fs: FsPort, path: string, sync: boolean): Promise<void> {
  const make = async (): Promise<void> => {
    const isNew = await fs.makeDir(path);
    if (isNew && sync) await fs.syncDir(dirname(path));
  };
  await make().catch(async (error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT') throw error;
    await makeDataDir(fs, dirname(path), sync);
    await make();
  });
}
