/**
 * Which files were hashed since this process started, and what they looked like then. A file that still has the same inode,
 * size and time of modification is served without hashing it again: hashing costs about as much as serving (ADR 0003).
 */
import type { FileStat } from './fs-port.ts';
import * as limits from './limits.ts';

export interface VerifiedFiles {
  isVerified(text: string, stat: FileStat): boolean;
  add(text: string, stat: FileStat): void;
}

export function createVerifiedFiles(): VerifiedFiles {
  const known = new Map<string, Pick<FileStat, 'inode' | 'modifiedNs'>>();
  return {
    isVerified(text, stat) {
      const then = known.get(text);
      return then?.inode === stat.inode && then.modifiedNs === stat.modifiedNs;
    },
    add(text, { inode, modifiedNs }) {
      known.delete(text);
      known.set(text, { inode, modifiedNs });
      if (known.size <= limits.verifiedFilesMax) return;
      const [eldest] = known.keys();
      if (eldest !== undefined) known.delete(eldest);
    },
  };
}
