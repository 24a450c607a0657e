/** What guests together may take of the disk while they run: their inputs that are copied, and what they write. */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { StatusError } from '../protos/status.ts';
import { guestDiskLookMs, guestDiskLookShare } from './limits.ts';

const run = promisify(execFile);

export interface GuestDisk {
  /**
   * Counts what is below `root` until disposed; `onOver` is called when the guests together have too much and this one has
   * most. Throws RESOURCE_EXHAUSTED when there is no room for another.
   */
  admit(root: string, onOver: () => void): GuestShare;
}

interface GuestShare extends Disposable {
  /** Set once it had too much. */
  readonly problem: StatusError | undefined;
}

interface Guest {
  readonly onOver: () => void;
  bytes: number;
  problem: StatusError | undefined;
}

/** @param usedBytes - adds up directories, one number for each; tests have their own */
export function createGuestDisk(limitBytes: number, usedBytes = diskUse): GuestDisk {
  const guests = new Map<string, Guest>();
  let timer: NodeJS.Timeout | undefined;

  const total = () => [...guests.values()].reduce((sum, { bytes }) => sum + bytes, 0);
  const full = (bytes: number) =>
    new StatusError(
      'RESOURCE_EXHAUSTED',
      `guests have ${inMiB(bytes)} on the disk here, of ${inMiB(limitBytes)} for all of them together`,
    );

  async function look(): Promise<void> {
    const startMs = performance.now();
    const roots = [...guests.keys()];
    const used = await usedBytes(roots);
    for (const [index, root] of roots.entries()) {
      const guest = guests.get(root);
      if (guest) guest.bytes = used[index] ?? guest.bytes;
    }
    const bytes = total();
    if (bytes > limitBytes) {
      const largest = [...guests.values()].filter(({ problem }) => !problem).sort((a, b) => b.bytes - a.bytes)[0];
      if (largest) {
        largest.problem = full(bytes);
        largest.onOver();
      }
    }
    wait((performance.now() - startMs) / guestDiskLookShare);
  }

  function wait(leastMs: number): void {
    timer = guests.size === 0 ? undefined : setTimeout(() => void look(), Math.max(guestDiskLookMs, leastMs)).unref();
  }

  return {
    admit(root, onOver) {
      const bytes = total();
      if (bytes > limitBytes) throw full(bytes);
      const guest: Guest = { onOver, bytes: 0, problem: undefined };
      guests.set(root, guest);
      if (!timer) wait(0);
      return {
        get problem() {
          return guest.problem;
        },
        [Symbol.dispose]: () => {
          guests.delete(root);
        },
      };
    },
  };
}

/** By `du`, which is much faster than Node; what it may not look into is not counted, and what it cannot read at all is 0. */
async function diskUse(directories: readonly string[]): Promise<number[]> {
  const { stdout } = await run('nice', ['-n', '19', 'du', '-skx', '--', ...directories], {
    env: { PATH: '/usr/bin:/bin', LC_ALL: 'C' },
  }).catch((error: { readonly stdout?: string }) => ({ stdout: error.stdout ?? '' }));
  const kibibytes = new Map(
    stdout.split('\n').map((line) => {
      const [size, path = ''] = line.split('\t');
      return [path, Number(size)] as const;
    }),
  );
  return directories.map((path) => (kibibytes.get(path) ?? 0) * 1_024);
}

function inMiB(bytes: number): string {
  return `${Math.round(bytes / 2 ** 20)} MiB`;
}
