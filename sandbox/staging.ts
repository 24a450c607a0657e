/** Makes a planned layout on disk, and keeps whole directories for the actions that follow. */
import { chmod, chown, mkdir, symlink, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { digestKey } from '../protos/digest.ts';
import { forEachLimited, unlessAborted } from './concurrency.ts';
import type { InputDirectory, InputFile, InputProperties } from './input-tree.ts';
import { type Layout, planWhole } from './layout.ts';
import { fileStagingsMax, stagedBytesMax, stagedEntriesMax } from './limits.ts';
import type { SandboxBlobs } from './sandbox.ts';

/** The user that owns what an action may change, when it is not the node's own. */
export interface Owner {
  readonly uid: number;
  readonly gid: number;
}

/** An input blob went away between planning and staging; the caller finds out which ones are missing. */
export class InputVanished extends Error {
  override readonly name = 'InputVanished';
}

export interface StagingOptions {
  readonly signal: AbortSignal;
  readonly owner?: Owner | undefined;
}

/** Fills the existing directory `root` with private directories, links and copies. Throws InputVanished. */
export async function stagePrivate(
  blobs: SandboxBlobs,
  layout: Layout,
  root: string,
  { signal, owner }: StagingOptions,
): Promise<void> {
  const own = async (path: string) => {
    if (owner) await chown(path, owner.uid, owner.gid);
  };
  await makeSkeleton(layout, root, own);
  await forEachLimited(layout.copies, fileStagingsMax, async ({ path, file }) => {
    signal.throwIfAborted();
    const at = join(root, path);
    if (!(await blobs.copyTo(file.digest, at, { executable: file.executable }))) throw new InputVanished();
    await own(at);
    if (file.properties) await setProperties(at, file.properties);
  });
  for (const { path, properties } of layout.directoryProperties) await setProperties(join(root, path), properties);
}

export interface StagedTree extends Disposable {
  readonly path: string;
}

/**
 * Whole directories staged once and mounted read-only into many actions. Their files may share inodes with the store:
 * nothing but a read-only mount may ever expose them.
 */
export interface TreeCache {
  /** The staged `node`; it stays until disposed. Throws InputVanished, or the reason of the signal. */
  acquire(node: InputDirectory, options: { readonly signal: AbortSignal }): Promise<StagedTree>;
  /** Resolves when nothing is being staged any more; the caller has given up all that it waited for. */
  settle(): Promise<void>;
}

interface CachedTree {
  readonly path: string;
  readonly node: InputDirectory;
  readonly staged: Promise<void>;
  readonly stop: AbortController;
  isStaged: boolean;
  users: number;
}

export interface TreeCacheOptions {
  readonly blobs: SandboxBlobs;
  readonly directory: string;
  readonly owner?: Owner | undefined;
  /** Takes a directory away, in the background; never fails. */
  readonly remove: (path: string) => void;
}

export function createTreeCache({ blobs, directory, owner, remove }: TreeCacheOptions): TreeCache {
  /** In order of last use. */
  const trees = new Map<string, CachedTree>();
  const underWay = new Set<Promise<void>>();
  let made = 0;
  let entries = 0;
  let bytes = 0;

  const forget = (key: string, tree: CachedTree) => {
    if (trees.get(key) !== tree) return;
    trees.delete(key);
    entries -= tree.node.entries;
    bytes -= tree.node.bytes;
    tree.stop.abort();
    void tree.staged.catch(() => undefined).then(() => remove(tree.path));
  };
  const evict = () => {
    for (const [key, tree] of trees) {
      if (entries <= stagedEntriesMax && bytes <= stagedBytesMax) return;
      if (tree.users === 0) forget(key, tree);
    }
  };
  const begin = (key: string, node: InputDirectory): CachedTree => {
    const path = join(directory, String(made++));
    // Others may come to wait for it, so that it ends with the last of them, not with the first.
    const stop = new AbortController();
    const staged = stageShared(blobs, node, path, { signal: stop.signal, owner });
    const tree: CachedTree = { path, node, staged, stop, isStaged: false, users: 0 };
    const settled = staged
      .then(
        () => {
          tree.isStaged = true;
        },
        () => forget(key, tree),
      )
      .finally(() => underWay.delete(settled));
    underWay.add(settled);
    trees.set(key, tree);
    entries += node.entries;
    bytes += node.bytes;
    return tree;
  };

  return {
    async acquire(node, { signal }) {
      signal.throwIfAborted();
      const key = digestKey(node.digest);
      let tree = trees.get(key);
      if (tree) {
        trees.delete(key);
        trees.set(key, tree);
      } else {
        tree = begin(key, node);
      }
      const held = tree;
      held.users++;
      const leave = () => {
        held.users--;
        if (held.users === 0 && !held.isStaged) forget(key, held);
        evict();
      };
      try {
        await unlessAborted(held.staged, signal);
      } catch (error) {
        leave();
        throw error;
      }
      evict();
      return { path: held.path, [Symbol.dispose]: leave };
    },
    async settle() {
      while (underWay.size > 0) await Promise.all(underWay);
    },
  };
}

/** Only what has a mode of its own needs its owner: the rest may be read by everybody. */
async function stageShared(
  blobs: SandboxBlobs,
  node: InputDirectory,
  path: string,
  { signal, owner }: StagingOptions,
): Promise<void> {
  const layout = planWhole(node);
  await makeDirectory(path);
  await makeSkeleton(layout, path);
  await forEachLimited(layout.copies, fileStagingsMax, async ({ path: at, file }) => {
    signal.throwIfAborted();
    await stageSharedFile(blobs, file, join(path, at), owner);
  });
  for (const { path: at, properties } of layout.directoryProperties) {
    if (owner) await chown(join(path, at), owner.uid, owner.gid);
    await setProperties(join(path, at), properties);
  }
}

/** A file that only read-only mounts expose. One with a mode or time of its own cannot share the inode of the store. */
export async function stageSharedFile(
  blobs: SandboxBlobs,
  file: InputFile,
  path: string,
  owner: Owner | undefined,
): Promise<void> {
  const { digest, executable, properties } = file;
  const made = properties ? blobs.copyTo(digest, path, { executable }) : blobs.linkTo(digest, path, { executable });
  if (!(await made)) throw new InputVanished();
  if (!properties) return;
  if (owner) await chown(path, owner.uid, owner.gid);
  await setProperties(path, properties);
}

async function makeSkeleton(layout: Layout, root: string, own?: (path: string) => Promise<void>): Promise<void> {
  for (const path of layout.directories) {
    const at = join(root, path);
    await makeDirectory(at);
    await own?.(at);
  }
  // What is shared needs a place to be mounted on.
  for (const { path } of layout.sharedDirectories) await makeDirectory(join(root, path));
  for (const { path } of layout.sharedFiles) await writeFile(join(root, path), '');
  for (const { path, link } of layout.symlinks) await symlink(link.target, join(root, path));
}

/** Mode 0755 under any umask of the node, for actions to behave alike. */
export async function makeDirectory(path: string): Promise<void> {
  await mkdir(path, 0o755);
  if ((process.umask() & 0o755) !== 0) await chmod(path, 0o755);
}

async function setProperties(path: string, { unixMode, mtimeSeconds }: InputProperties): Promise<void> {
  if (mtimeSeconds !== undefined) await utimes(path, mtimeSeconds, mtimeSeconds);
  if (unixMode !== undefined) await chmod(path, unixMode);
}
