/** How guests come last: what is put before their commands. */
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import type { Cgroups } from './cgroups.ts';

const chrt = '/usr/bin/chrt';

/** Starts a program in the class that runs, and reads and writes, only when nobody else wants to; where that works. */
export function idleClass(): string[] {
  const prefix = [chrt, '--idle', '0'];
  return spawnSync(chrt, [...prefix.slice(1), 'true'], { stdio: 'ignore' }).status === 0 ? prefix : [];
}

/**
 * Kernels that share the processors among sessions first (autogroup) weigh a guest's session, which bubblewrap begins,
 * like the owner's. In a group of the processor controller that does not hold.
 */
export function lowestOfSession(guests: Cgroups | undefined): string[] {
  if (guests?.controllers.includes('cpu') || !existsSync('/proc/self/autogroup')) return [];
  return ['/bin/sh', '-c', 'echo 19 2>/dev/null >/proc/self/autogroup; exec "$@"', 'sh'];
}
