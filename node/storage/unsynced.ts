/**
 * Without syncs a power cut or kernel crash may leave the index damaged, and LMDB trusts its file. So such a store carries
 * the name of the boot it was written in, and an index of an earlier boot is not opened but built anew from the files.
 */
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { FsPort } from './fs-port.ts';
import { ignoreAbsent } from './blob-files.ts';
import { bootId } from './owner.ts';

const markName = 'unsynced-boot';
const markBytesMax = 256;

export interface UnsyncedMark {
  /** The index is open, so it is ours: a mark that should not be there goes. */
  onOpen(): Promise<void>;
  /** The index may be another process's: it is marked as it was before. */
  onRefused(): Promise<void>;
}

/** Before the index is opened: deletes one that cannot be trusted, and marks it when `sync` is not asked for. */
export async function checkUnsynced(
  indexPath: string,
  dataDir: string,
  fs: FsPort,
  sync: boolean,
): Promise<UnsyncedMark> {
  const mark = await readMark(join(dataDir, markName), fs);
  const isTrusted = mark === undefined || mark === bootId();
  if (!isTrusted) {
    await rm(indexPath, { recursive: true, force: true });
    await fs.makeDir(indexPath);
    await removeMark(dataDir, fs);
  }
  const isMarked = isTrusted && mark !== undefined;
  const makesMark = !sync && !isMarked;
  if (makesMark) {
    // Its contents need no sync: a mark that was cut names no boot of ours either.
    const file = await fs.create(join(dataDir, markName), 0o644);
    await file.append([Buffer.from(bootId())]);
    await file.close();
    await fs.syncDir(dataDir);
  }
  return {
    onOpen: async () => (sync && isMarked ? settleUnsynced(indexPath, dataDir, fs) : undefined),
    onRefused: async () => (makesMark ? removeMark(dataDir, fs) : undefined),
  };
}

/** After the last write: syncs the index and takes the mark away. */
export async function settleUnsynced(indexPath: string, dataDir: string, fs: FsPort): Promise<void> {
  const data = await fs.openRead(join(indexPath, 'data.mdb')).catch(ignoreAbsent);
  await data?.sync();
  await data?.close();
  await removeMark(dataDir, fs);
}

async function removeMark(dataDir: string, fs: FsPort): Promise<void> {
  await fs.unlink(join(dataDir, markName)).catch(ignoreAbsent);
  await fs.syncDir(dataDir);
}

async function readMark(path: string, fs: FsPort): Promise<string | undefined> {
  const file = await fs.openRead(path).catch(ignoreAbsent);
  if (!file) return undefined;
  try {
    const bytes = Buffer.alloc(markBytesMax);
    return bytes.toString('utf8', 0, await file.read(bytes, 0));
  } finally {
    await file.close();
  }
}
