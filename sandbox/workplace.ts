/** The directories a sandbox works in, and their removal. */
import { createHash } from 'node:crypto';
import { chmod, chown, lstat, mkdir, readdir, readFile, rename, stat, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { unlessAborted } from './concurrency.ts';
import { removalsMax } from './limits.ts';
import { removeTree } from './removal.ts';
import { makeDirectory, type Owner } from './staging.ts';

export interface Workplace {
  readonly path: string;
  /** A new, empty directory with a short name. */
  makeActionDirectory(): Promise<string>;
  /** Removes `path` in the background; it is out of sight at once. */
  readonly remove: (path: string) => void;
  /** Waits while too many removals are under way; throws the reason of the signal. */
  removalRoom(signal: AbortSignal): Promise<void>;
  close(): Promise<void>;
}

/** Takes over the directory: what an earlier process left there is removed in the background. */
export async function createWorkplace({ path, own }: Reachable, owner: Owner | undefined): Promise<Workplace> {
  const removals = new Set<Promise<void>>();
  const trash = join(path, 'trash');
  let made = 0;

  await mkdir(trash, { recursive: true });
  // Nobody else on this machine may look in: files in it can be owned by the user that actions run as.
  await chmod(path, owner ? 0o710 : 0o700);
  if (owner) await chown(path, process.getuid?.() ?? 0, owner.gid);

  const begin = (work: Promise<void>) => {
    // What cannot be removed now is removed at the next start.
    const removal = work.catch(() => undefined).finally(() => removals.delete(removal));
    removals.add(removal);
  };
  const remove = (victim: string) => {
    const out = join(trash, `${process.pid}-${made++}`);
    begin(rename(victim, out).then(() => removeTree(out)));
  };

  for (const name of await readdir(trash)) begin(removeTree(join(trash, name)));
  for (const name of await readdir(path)) {
    if (name === 'trash' || name === originFile) continue;
    const out = join(trash, `${process.pid}-${made++}`);
    await rename(join(path, name), out);
    begin(removeTree(out));
  }
  for (const name of kept) await makeDirectory(join(path, name));

  return {
    path,
    async makeActionDirectory() {
      const directory = join(path, 'actions', String(made++));
      await makeDirectory(directory);
      return directory;
    },
    remove,
    async removalRoom(signal) {
      while (removals.size > removalsMax) await unlessAborted(Promise.race(removals), signal);
    },
    async close() {
      for (const name of kept) remove(join(path, name));
      while (removals.size > 0) await Promise.all(removals);
      if (own) await removeTree(path);
    },
  };
}

/** The user that actions run as when the node runs as root. */
export const unprivileged: Owner = { uid: 65_534, gid: 65_534 };

export interface Reachable {
  readonly path: string;
  /** Whether it was made for this sandbox alone and goes with it. */
  readonly own: boolean;
}

/** Beside the trash. */
const kept = ['actions', 'trees', 'etc', 'notes'];

const elsewhereRoot = '/var/tmp';
/** In a directory made elsewhere: the path it stands in for. */
const originFile = 'origin';

/**
 * A directory to work in that `unprivileged` can reach: `path` itself, or, when a parent is closed to others as /root is,
 * one in /var/tmp. `undefined` when somebody else holds the place there.
 */
export async function reachableDirectory(path: string): Promise<Reachable | undefined> {
  if (await openToOthers(dirname(path))) return { path, own: false };
  await removeOrphans();
  const elsewhere = join(elsewhereRoot, `potluck-${createHash('sha256').update(path).digest('hex').slice(0, 16)}`);
  await mkdir(elsewhere, { recursive: true, mode: 0o700 });
  const stats = await lstat(elsewhere);
  if (stats.uid !== 0 || !stats.isDirectory()) return undefined;
  await writeFile(join(elsewhere, originFile), path);
  return { path: elsewhere, own: true };
}

/** Directories of sandboxes that were killed and whose data directory is gone since. */
async function removeOrphans(): Promise<void> {
  for (const name of await readdir(elsewhereRoot)) {
    if (!/^potluck-[0-9a-f]{16}$/.test(name)) continue;
    const directory = join(elsewhereRoot, name);
    try {
      if ((await lstat(directory)).uid !== 0) continue;
      await stat(await readFile(join(directory, originFile), 'utf8')).catch(() => removeTree(directory));
    } catch {
      // Without an origin, or on its way out.
    }
  }
}

async function openToOthers(path: string): Promise<boolean> {
  for (let at = path; ; at = dirname(at)) {
    if (((await stat(at)).mode & 0o001) === 0) return false;
    if (at === dirname(at)) return true;
  }
}
