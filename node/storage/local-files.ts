/** Between the store and files of this machine: blobs become files (copied or linked), files become blobs. */
import { type Digest, digestKey, isEmptyDigest } from '../../protos/digest.ts';
import { createHasher } from '../../protos/hasher.ts';
import { StatusError, toStatusError } from '../../protos/status.ts';
import { BadBlobError, isIntact, readChunks } from './blob-content.ts';
import type { BlobFiles } from './blob-files.ts';
import { type BlobReading, isChunked } from './blob-reading.ts';
import type { LocalBlobStore } from './blob-store.ts';
import { type DiskStore, fileNeed, isSmall } from './disk-store.ts';
import type { FileStat, FsFile, FsPort } from './fs-port.ts';
import type { LinkCopies } from './link-copies.ts';
import type { Space } from './space.ts';

export interface LocalFilesOptions {
  readonly fs: FsPort;
  readonly store: DiskStore;
  readonly reading: BlobReading;
  readonly files: BlobFiles;
  readonly linkCopies: LinkCopies;
  readonly space: Space;
}

/** A path, or the bytes piece by piece, as often as they are asked for. */
type Source = string | readonly Uint8Array[] | AsyncIterable<Uint8Array>;

export type LocalFiles = Pick<LocalBlobStore, 'copyTo' | 'linkTo' | 'putFile'>;

export function createLocalFiles({ fs, store, reading, files, linkCopies, space }: LocalFilesOptions): LocalFiles {
  /** Calls `use` with the bytes or the path of the blob, checked and pinned; false when it is not held. */
  async function withSource(digest: Digest, use: (source: Source, mode?: number) => Promise<void>): Promise<boolean> {
    const open = isEmptyDigest(digest) ? new Uint8Array() : await reading.open(digest);
    if (!open) return false;
    if (open instanceof Uint8Array) {
      await use([open]);
      return true;
    }
    await using held = open;
    if (!(await reading.verify(held))) return false;
    if (isChunked(held)) {
      const reader = reading.reader(digest, held);
      await use({ [Symbol.asyncIterator]: () => reader.read()[Symbol.asyncIterator]() });
    } else {
      await use(files.pathOf(digest), held.stat.mode);
    }
    return true;
  }

  async function write(source: Source, path: string, mode: number): Promise<void> {
    if (typeof source === 'string') {
      await fs.copy(source, path);
      await fs.chmod(path, mode);
      return;
    }
    const file = await fs.create(path, mode);
    try {
      for await (const bytes of source) await file.append([bytes]);
      // Whatever the umask is; there is seldom one that matters here.
      if ((process.umask() & mode) !== 0) await file.chmod(mode);
    } catch (error) {
      // Nobody is to take a part for the blob.
      await fs.unlink(path).catch(() => {});
      throw error;
    } finally {
      await file.close();
    }
  }

  return {
    copyTo: (digest, path, { executable }) =>
      withSource(digest, (source) => write(source, path, executable ? 0o755 : 0o644)).catch((error: unknown) => {
        throw toStatusError(error, `copying blob ${digestKey(digest)} to ${path}`);
      }),

    linkTo: (digest, path, { executable }) =>
      withSource(digest, async (source, sourceMode) => {
        const mode = executable ? 0o555 : 0o444;
        const shared =
          typeof source === 'string' && sourceMode === mode
            ? source
            : await linkCopies.get(digest, executable, (copyPath) => write(source, copyPath, mode));
        if (shared === undefined || !(await tryLink(fs, shared, path))) await write(source, path, mode);
      }).catch((error: unknown) => {
        throw toStatusError(error, `linking blob ${digestKey(digest)} to ${path}`);
      }),

    async putFile(fn, path, { signal, move = false } = {}) {
      try {
        const source = await fs.openRead(path);
        try {
          const before = await source.stat();
          if (before.kind !== 'file') {
            throw new StatusError('FAILED_PRECONDITION', `${path} is not a regular file`);
          }
          const digest = await hashFile(fn, source, before, path, signal);
          if (!isEmptyDigest(digest) && !reading.touch(digest)) await take(digest, path, source, before, move);
          return digest;
        } finally {
          await source.close();
        }
      } catch (error) {
        throw toStatusError(error, `storing the file ${path}`);
      }
    },
  };

  async function take(digest: Digest, path: string, source: FsFile, before: FileStat, move: boolean): Promise<void> {
    if (isSmall(digest)) {
      const bytes = Buffer.allocUnsafe(digest.sizeBytes);
      await source.read(bytes, 0);
      if (!isIntact(digest, bytes)) throw changed(path);
      await store.storeInline(digest, bytes);
      return;
    }
    const lease = await space.reserve(fileNeed(digest), `storing the file ${path}`);
    const temp = files.tempPath();
    let file: FsFile | undefined;
    try {
      // Only a file that is ours alone can be taken: another name or owner could still change it.
      const isTaken =
        move && before.links === 1 && before.uid === process.getuid?.() && (await tryRename(fs, path, temp));
      if (!isTaken) await fs.copy(path, temp);
      await fs.chmod(temp, 0o444);
      file = await fs.openRead(temp);
      const now = await file.stat();
      if (isTaken) {
        if (now.inode !== before.inode) throw changed(path);
        checkUnchanged(path, before, now);
      } else if ((await hashFile(digest.fn, file, now, path, undefined)).hash !== digest.hash) {
        throw changed(path);
      }
    } catch (error) {
      await file?.close();
      await files.removePath(temp).catch(() => {});
      lease.release();
      throw error;
    }
    await store.landFile(digest, temp, file, lease);
  }
}

async function hashFile(
  fn: Digest['fn'],
  file: FsFile,
  stat: FileStat,
  path: string,
  signal: AbortSignal | undefined,
): Promise<Digest> {
  const hasher = await createHasher(fn);
  try {
    for await (const chunk of readChunks(file, 0, stat.sizeBytes, signal && { signal })) hasher.update(chunk);
  } catch (error) {
    throw error instanceof BadBlobError ? changed(path) : error;
  }
  return { fn, hash: hasher.hex(), sizeBytes: stat.sizeBytes };
}

/** Nobody has a finished file open for writing, so its time tells; a copy is hashed instead. */
function checkUnchanged(path: string, before: FileStat, now: FileStat): void {
  if (now.modifiedNs !== before.modifiedNs || now.sizeBytes !== before.sizeBytes) throw changed(path);
}

function changed(path: string): StatusError {
  return new StatusError('ABORTED', `${path} changed while it was stored`);
}

/** False where a link cannot be had: another file system, too many links, none supported. */
async function tryLink(fs: FsPort, from: string, to: string): Promise<boolean> {
  return fs.link(from, to).then(
    () => true,
    (error: NodeJS.ErrnoException) => {
      if (['EXDEV', 'EMLINK', 'EPERM', 'ENOTSUP', 'ENOENT'].includes(error.code ?? '')) return false;
      throw error;
    },
  );
}

async function tryRename(fs: FsPort, from: string, to: string): Promise<boolean> {
  return fs.rename(from, to).then(
    () => true,
    (error: NodeJS.ErrnoException) => {
      if (error.code === 'EXDEV') return false;
      throw error;
    },
  );
}
