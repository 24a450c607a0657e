/** Keeps actions from filling the disk that the store lives on: nothing limits the sum of what one writes there. */
import { statfs } from 'node:fs/promises';
import { StatusError } from '../protos/status.ts';
import { diskFreeFilesShareMin } from './limits.ts';

export interface DiskWatch extends Disposable {
  /** What was found when the disk ran low; `undefined` until then. */
  readonly problem: StatusError | undefined;
}

/**
 * Looks now and every `intervalMs`. Throws RESOURCE_EXHAUSTED when the disk is low already, and calls `onLow` once when it
 * becomes so.
 *
 * @param path - any path on the disk
 */
export async function watchDisk(
  path: string,
  settings: { readonly freeBytesMin: number; readonly intervalMs: number; readonly onLow: () => void },
): Promise<DiskWatch> {
  const look = async () => {
    const { bavail, bsize, files, ffree } = await statfs(path);
    // Some file systems have no such bound and say 0 of 0.
    if (ffree < files * diskFreeFilesShareMin) {
      return new StatusError(
        'RESOURCE_EXHAUSTED',
        `the disk under ${path} can hold ${ffree} more files only; make room`,
      );
    }
    const freeBytes = bavail * bsize;
    if (freeBytes >= settings.freeBytesMin) return undefined;
    const free = `${Math.floor(freeBytes / 2 ** 20)} MiB`;
    return new StatusError('RESOURCE_EXHAUSTED', `the disk under ${path} is nearly full (${free} left); make room`);
  };
  let problem = await look();
  if (problem) throw problem;
  const timer = setInterval(() => {
    look().then(
      (found) => {
        if (!found || problem) return;
        problem = found;
        clearInterval(timer);
        settings.onLow();
      },
      // A disk that cannot be asked shows elsewhere.
      () => undefined,
    );
  }, settings.intervalMs);
  return {
    get problem() {
      return problem;
    },
    [Symbol.dispose]: () => clearInterval(timer),
  };
}
