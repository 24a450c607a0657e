/** Defaults that depend on this machine. */
import { statfs } from 'node:fs/promises';
import { homedir } from 'node:os';
import { dirname, isAbsolute, join } from 'node:path';
import { sizeLimitMinBytes } from '../storage/limits.ts';

/** No default cache grows beyond this. */
const defaultCacheMaxBytes = 50e9;
/** Share of the whole file system (not of what is free now, which the cache itself lowers). */
const defaultCacheDiskShare = 0.1;

/** The platform's place for caches: `$XDG_CACHE_HOME/potluck` or `~/.cache/potluck`; on macOS `~/Library/Caches/potluck`. */
export function defaultDataDir(env: NodeJS.ProcessEnv, platform: NodeJS.Platform): string {
  const xdg = env.XDG_CACHE_HOME;
  // The XDG specification tells programs to ignore relative paths in its variables.
  if (xdg && isAbsolute(xdg)) return join(xdg, 'potluck');
  if (platform === 'darwin') return join(homedir(), 'Library', 'Caches', 'potluck');
  return join(homedir(), '.cache', 'potluck');
}

/** 50 GB, or a tenth of the file system that holds `dataDir` when that is less. */
export async function defaultCacheSizeBytes(dataDir: string): Promise<number> {
  for (let dir = dataDir; ; dir = dirname(dir)) {
    try {
      const { blocks, bsize } = await statfs(dir);
      const share = Math.floor(blocks * bsize * defaultCacheDiskShare);
      return Math.max(sizeLimitMinBytes, Math.min(defaultCacheMaxBytes, share));
    } catch {
      // Not made yet: its parent is on the file system that it will be on.
      if (dirname(dir) === dir) return defaultCacheMaxBytes;
    }
  }
}
