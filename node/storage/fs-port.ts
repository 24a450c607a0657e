/**
 * The few file-system calls the store makes, as a port: production over node:fs; tests put one here that fails on
 * command, or that forgets everything not synced (test/unit/node/storage/forgetful-fs.ts).
 */
import { type BigIntStats, closeSync, constants, fstatSync, fsync, openSync, statfsSync } from 'node:fs';
import * as fs from 'node:fs/promises';
import { promisify } from 'node:util';

export interface FileStat {
  readonly kind: 'file' | 'directory' | 'other';
  readonly sizeBytes: number;
  readonly inode: bigint;
  readonly modifiedNs: bigint;
  readonly links: number;
  /** Permission bits. */
  readonly mode: number;
  readonly uid: number;
}

export interface FsFile {
  /** Fills `into` from `position`; returns how many bytes there were. */
  read(into: Uint8Array, position: number): Promise<number>;
  /** Appends all of `chunks`. */
  append(chunks: readonly Uint8Array[]): Promise<void>;
  /** Writes all of `chunks`, one behind the other, from `position` on. Not for files that are appended to. */
  write(chunks: readonly Uint8Array[], position: number): Promise<void>;
  stat(): Promise<FileStat>;
  /** Contents and size are on the medium. */
  sync(): Promise<void>;
  chmod(mode: number): Promise<void>;
  close(): Promise<void>;
}

export interface FsPort {
  /** Fails with EEXIST when `path` exists. */
  create(path: string, mode: number): Promise<FsFile>;
  /** Never follows a symbolic link at `path`. */
  openRead(path: string): Promise<FsFile>;
  /** Never follows a symbolic link at `path`. */
  stat(path: string): Promise<FileStat>;
  rename(from: string, to: string): Promise<void>;
  link(from: string, to: string): Promise<void>;
  /** A new file with the bytes of `from`, sharing its blocks where the file system can. */
  copy(from: string, to: string): Promise<void>;
  chmod(path: string, mode: number): Promise<void>;
  unlink(path: string): Promise<void>;
  /** Makes a directory in an existing one; false when it is there already. */
  makeDir(path: string): Promise<boolean>;
  /** Names, in no order; empty when there is no such directory. */
  list(path: string): Promise<string[]>;
  /** Bytes this process may still write to the file system that holds `path`. */
  freeBytes(path: string): Promise<number>;
  /** Names created in, renamed into or removed from the directory are on the medium. */
  syncDir(path: string): Promise<void>;
}

export const nodeFs: FsPort = {
  create: async (path, mode) => wrap(await fs.open(path, 'wx', mode)),
  openRead: async (path) => wrap(await fs.open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)),
  stat: async (path) => statOf(await fs.lstat(path, { bigint: true })),
  rename: fs.rename,
  link: fs.link,
  copy: (from, to) => fs.copyFile(from, to, constants.COPYFILE_EXCL | constants.COPYFILE_FICLONE),
  chmod: fs.chmod,
  unlink: fs.unlink,
  makeDir: (path) =>
    // What is in the store is its owner's business.
    fs.mkdir(path, 0o700).then(
      () => true,
      (error: NodeJS.ErrnoException) => (error.code === 'EEXIST' ? false : Promise.reject(error)),
    ),
  list: (path) =>
    fs
      .readdir(path)
      .catch((error: NodeJS.ErrnoException) =>
        ['ENOENT', 'ENOTDIR'].includes(error.code ?? '') ? [] : Promise.reject(error),
      ),
  async freeBytes(path) {
    // The system has it in memory, and each commit asks.
    const { bavail, bsize } = statfsSync(path);
    return bavail * bsize;
  },
  async syncDir(path) {
    // A name was just given in it, so to open it takes nothing from the disk, and far less than a turn of another thread.
    const dir = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY);
    try {
      await syncDescriptor(dir);
    } finally {
      closeSync(dir);
    }
  },
};

const syncDescriptor = promisify(fsync);

function statOf(stat: BigIntStats): FileStat {
  return {
    kind: stat.isFile() ? 'file' : stat.isDirectory() ? 'directory' : 'other',
    sizeBytes: Number(stat.size),
    inode: stat.ino,
    modifiedNs: stat.mtimeNs,
    links: Number(stat.nlink),
    mode: Number(stat.mode) & 0o7777,
    uid: Number(stat.uid),
  };
}

function wrap(handle: fs.FileHandle): FsFile {
  return {
    async read(into, position) {
      let filled = 0;
      while (filled < into.byteLength) {
        const { bytesRead } = await handle.read(into, filled, into.byteLength - filled, position + filled);
        if (bytesRead === 0) break;
        filled += bytesRead;
      }
      return filled;
    },
    append: (chunks) => writeAll(handle, chunks),
    write: (chunks, position) => writeAll(handle, chunks, position),
    // What the system knows of an open file is in memory.
    stat: async () => statOf(fstatSync(handle.fd, { bigint: true })),
    sync: () => handle.sync(),
    chmod: (mode) => handle.chmod(mode),
    close: () => handle.close(),
  };
}

/** Without a position: at the end of what was written before. */
async function writeAll(handle: fs.FileHandle, chunks: readonly Uint8Array[], position?: number): Promise<void> {
  let rest = chunks;
  let at = position;
  while (rest.length > 0) {
    let { bytesWritten } = await handle.writev(rest, at);
    if (at !== undefined) at += bytesWritten;
    const after: Uint8Array[] = [];
    for (const chunk of rest) {
      if (bytesWritten < chunk.byteLength) after.push(chunk.subarray(bytesWritten));
      bytesWritten = Math.max(0, bytesWritten - chunk.byteLength);
    }
    rest = after;
  }
}
