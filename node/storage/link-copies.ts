/**
 * Files in `links/` that others may hard-link to where the blob itself has none fit for it: a mode belongs to the inode, so
 * the executable form needs one of its own, and small blobs have no file. They are made on first use, are never synced,
 * carry no promise, and are wiped when the store is opened.
 */
import { join } from 'node:path';
import type { Digest } from '../../protos/digest.ts';
import { diskBytes, fileNameOf } from './entry-key.ts';
import { ignoreAbsent } from './blob-files.ts';
import type { FileStat, FsPort } from './fs-port.ts';
import type { Space } from './space.ts';

export interface LinkCopies {
  /**
   * The path of a copy with mode 0555 or 0444; `make` writes a new file at the path it is given. `undefined` when there is
   * no room for one without evicting.
   */
  get(digest: Digest, isExecutable: boolean, make: (path: string) => Promise<void>): Promise<string | undefined>;
  drop(digest: Digest): Promise<void>;
  /** Drops copies, the first made first, until `isEnough`; resolves to how many. */
  dropOldest(isEnough: () => boolean): Promise<number>;
}

export interface LinkCopiesOptions {
  readonly fs: FsPort;
  readonly dir: string;
  readonly space: () => Space;
}

export function createLinkCopies({ fs, dir, space }: LinkCopiesOptions): LinkCopies {
  const copies = new Map<string, { readonly path: string; readonly bytes: number; readonly made: Promise<FileStat> }>();
  let nextNumber = 1;
  const nameOf = (digest: Digest, isExecutable: boolean): string =>
    `${digest.fn}-${fileNameOf(digest)}.${isExecutable ? 'x' : 'r'}`;

  async function dropNamed(name: string): Promise<void> {
    const copy = copies.get(name);
    if (!copy) return;
    copies.delete(name);
    await copy.made.catch(() => {});
    await fs.unlink(copy.path).catch(() => {});
    space().addLoose(-copy.bytes);
  }

  return {
    async get(digest, isExecutable, make) {
      const name = nameOf(digest, isExecutable);
      const known = copies.get(name);
      if (known) {
        const made = await known.made;
        const now = await fs.stat(known.path).catch(ignoreAbsent);
        if (now && isUntouched(made, now)) return known.path;
        // Whoever had a link to it broke the promise of `linkTo`; nobody else gets what became of it.
        if (copies.get(name) === known) await dropNamed(name);
      }
      const bytes = diskBytes(digest.sizeBytes);
      const lease = space().tryReserve({ fileBytes: bytes, indexBytes: 0 });
      if (!lease || copies.has(name)) {
        lease?.release();
        return undefined;
      }
      // Numbered, as one of the same name may still be on its way out.
      const path = join(dir, `${name}${nextNumber++}`);
      const made = make(path).then(() => fs.stat(path));
      copies.set(name, { path, bytes, made });
      space().addLoose(bytes);
      lease.release();
      try {
        await made;
        return path;
      } catch (error) {
        await dropNamed(name);
        throw error;
      }
    },
    async drop(digest) {
      await dropNamed(nameOf(digest, true));
      await dropNamed(nameOf(digest, false));
    },
    async dropOldest(isEnough) {
      let dropped = 0;
      for (const name of copies.keys()) {
        await dropNamed(name);
        dropped++;
        if (isEnough()) break;
      }
      return dropped;
    },
  };
}

function isUntouched(made: FileStat, now: FileStat): boolean {
  return now.inode === made.inode && now.modifiedNs === made.modifiedNs && now.mode === made.mode;
}
