/** A store in a directory of its own that goes away with it. */
import { mkdtemp, readdir, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type OpenStoreOptions, openStore, type Store } from '../../../../node/storage/open-store.ts';
import type { Digest } from '../../../../protos/digest.ts';

export interface TempStore extends AsyncDisposable {
  readonly dataDir: string;
  /** The store as it was opened last. */
  store: Store;
  readonly warnings: string[];
  /** Closes the store, lets `between` at its files, and opens it again. */
  reopen(between?: () => Promise<void>, options?: Partial<OpenStoreOptions>): Promise<void>;
  fileOf(digest: Digest): string;
}

export async function tempStore(options: Partial<OpenStoreOptions> = {}): Promise<TempStore> {
  const base = options.dataDir ?? (await mkdtemp(join(tmpdir(), 'potluck-store-')));
  const dataDir = join(base, 'data');
  const warnings: string[] = [];
  const open = (more: Partial<OpenStoreOptions> = {}): Promise<Store> =>
    openStore({
      sizeLimitBytes: 1024 ** 3,
      onWarning: (text) => warnings.push(text),
      ...options,
      ...more,
      dataDir,
    });
  const subject: TempStore = {
    dataDir,
    store: await open().catch(async (error: unknown) => {
      await rm(base, { recursive: true });
      throw error;
    }),
    warnings,
    async reopen(between, more) {
      await subject.store.close();
      await between?.();
      subject.store = await open(more);
    },
    fileOf: ({ fn, hash, sizeBytes }) => join(dataDir, 'cas', fn, hash.slice(0, 2), `${hash}-${sizeBytes}`),
    async [Symbol.asyncDispose]() {
      await subject.store.close();
      if (options.dataDir === undefined) await rm(base, { recursive: true });
    },
  };
  return subject;
}

/** Disk space below `path`, as `du` counts it. */
export async function diskUsage(path: string): Promise<number> {
  const names = await readdir(path, { recursive: true });
  const sizes = await Promise.all(
    [path, ...names.map((name) => join(path, name))].map((name) =>
      // A temporary file may be gone by now.
      stat(name).then(
        ({ blocks }) => blocks * 512,
        () => 0,
      ),
    ),
  );
  return sizes.reduce((sum, bytes) => sum + bytes, 0);
}
