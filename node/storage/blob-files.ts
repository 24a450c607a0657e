/** The files of a store: `cas/<function>/<two digits>/<hash>-<size>`, and temporary ones in `tmp/`. */
import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import type { Digest, DigestFunction } from '../../protos/digest.ts';
import { fileNameOf, shardOf } from './entry-key.ts';
import type { FsFile, FsPort } from './fs-port.ts';
import * as limits from './limits.ts';

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

/**
 * Few syncs of directories run at once, and those that wait are shared by everyone who wants the same directory: a journal
 * makes all names durable that were given before, so the later ones find little to do.
 */
function sharedSync(fs: FsPort): (path: string) => Promise<void> {
  const waiting = new Map<string, PromiseWithResolvers<void>>();
  let running = 0;
  const run = async (): Promise<void> => {
    running += 1;
    for (const [path, { resolve, reject }] of waiting) {
      waiting.delete(path);
      await fs.syncDir(path).then(resolve, reject);
    }
    running -= 1;
  };
  return (path) => {
    const outcome = waiting.get(path) ?? Promise.withResolvers<void>();
    waiting.set(path, outcome);
    if (running < limits.directorySyncs) void run();
    return outcome.promise;
  };
}

export function ignoreAbsent(error: NodeJS.ErrnoException): undefined {
  if (error.code !== 'ENOENT') throw error;
  return undefined;
}
