/** Reading the small files of /proc and /sys. What is missing, refused or nonsense is `undefined`. */
import { readdirSync, readFileSync, readlinkSync, statSync } from 'node:fs';
import { basename, join } from 'node:path';

/** The files of a machine; tests have some of their own. */
export interface SystemFiles {
  text(path: string): string | undefined;
  number(path: string): number | undefined;
  /** Names in a directory; none when there is none. */
  names(path: string): string[];
  /** The name of what a link points to. */
  linkName(path: string): string | undefined;
  /** When the file was last read from, in milliseconds since the epoch. */
  readAtMs(path: string): number | undefined;
}

export function systemFiles(root = '/'): SystemFiles {
  const at = (path: string): string => (root === '/' ? path : join(root, path));
  const text = (path: string): string | undefined => attempt(() => readFileSync(at(path), 'latin1').trim());
  return {
    text,
    number(path) {
      const found = text(path);
      return found !== undefined && /^-?\d+$/.test(found) ? Number(found) : undefined;
    },
    names: (path) => attempt(() => readdirSync(at(path))) ?? [],
    linkName: (path) => attempt(() => basename(readlinkSync(at(path)))),
    readAtMs: (path) => attempt(() => statSync(at(path)).atimeMs),
  };
}

function attempt<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch {
    return undefined;
  }
}
