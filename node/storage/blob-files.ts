/** The files of a store: `cas/<function>/<two digits>/<hash>-<size>`, and temporary ones in `tmp/`. */
import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import type { Digest, DigestFunction } from '../../protos/digest.ts';
import { fileNameOf, shardOf } from './entry-key.ts';
import type { FsFile, FsPort } from './fs-port.ts';

interface TempFile {
  readonly path: string;
  readonly file: FsFile;
}

export interface BlobFiles {
  pathOf(digest: Digest): string;
  /** `undefined` when there is no such file. */
  openRead(digest: Digest): Promise<FsFile | undefined>;
  /** A new file, read-only for everyone but its handle. */
  createTemp(): Promise<TempFile>;
  openPath(path: string): Promise<FsFile>;
  /** A path in the temporary directory that nothing has. */
  tempPath(): string;
  /** The contents of `file` are on the medium. */
  sync(file: FsFile): Promise<void>;
  /** Gives a temporary file its name, on the medium; syncs of one directory are shared. */
  land(tempPath: string, digest: Digest): Promise<void>;
  /** Does nothing when there is no such file. */
  remove(digest: Digest): Promise<void>;
  removePath(path: string): Promise<void>;
}

export interface BlobFilesOptions {
  readonly fs: FsPort;
  readonly dataDir: string;
  /** False leaves out every sync. */
  readonly sync: boolean;
  readonly onNewDirectory: () => void;
}

export const casDir = 'cas';
export const tempDir = 'tmp';

export function createBlobFiles({ fs, dataDir, sync, onNewDirectory }: BlobFilesOptions): BlobFiles {
  const cas = join(dataDir, casDir);
  const temp = join(dataDir, tempDir);
  const shards = new Map<string, Promise<void>>();
  const syncDir = sync ? sharedSync(fs) : async () => {};
  const pathOf = (digest: Digest): string => join(cas, shardOf(digest), fileNameOf(digest));

  /** Names in a directory are durable only if the directory's own name is, and that of the one above. */
  async function makeShard(fn: DigestFunction, path: string): Promise<void> {
    if (await fs.makeDir(join(cas, fn))) onNewDirectory();
    if (await fs.makeDir(path)) onNewDirectory();
    await syncDir(join(cas, fn));
    await syncDir(cas);
  }

  /** Even an existing directory is synced once: whoever made it may have died before. */
  function prepareShard(digest: Digest): Promise<void> {
    const path = join(cas, shardOf(digest));
    const made = shards.get(path) ?? makeShard(digest.fn, path);
    shards.set(path, made);
    made.catch(() => shards.delete(path));
    return made;
  }

  async function removePath(path: string): Promise<void> {
    await fs.unlink(path).catch(ignoreAbsent);
  }

  const tempPath = (): string => join(temp, randomUUID());

  return {
    pathOf,
    openRead: (digest) => fs.openRead(pathOf(digest)).catch(ignoreAbsent),
    async createTemp() {
      const path = tempPath();
      return { path, file: await fs.create(path, 0o444) };
    },
    openPath: (path) => fs.openRead(path),
    tempPath,
    sync: (file) => (sync ? file.sync() : Promise.resolve()),
    async land(path, digest) {
      await prepareShard(digest);
      await fs.rename(path, pathOf(digest));
      await syncDir(join(cas, shardOf(digest)));
    },
    remove: (digest) => removePath(pathOf(digest)),
    removePath,
  };
}

/** At most one sync of a directory runs and one waits; everyone who came before the waiting one starts shares it. */
function sharedSync(fs: FsPort): (path: string) => Promise<void> {
  const running = new Map<string, Promise<void>>();
  const next = new Map<string, Promise<void>>();
  const start = (path: string): Promise<void> => {
    const sync = fs.syncDir(path).finally(() => running.delete(path));
    running.set(path, sync);
    return sync;
  };
  return (path) => {
    const current = running.get(path);
    if (!current) return start(path);
    const waiting =
      next.get(path) ??
      current
        .catch(() => {})
        .then(() => {
          next.delete(path);
          return start(path);
        });
    next.set(path, waiting);
    return waiting;
  };
}

export function ignoreAbsent(error: NodeJS.ErrnoException): undefined {
  if (error.code !== 'ENOENT') throw error;
  return undefined;
}
