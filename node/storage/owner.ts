/** One writing process per data directory, told apart by process id and start time so that a dead owner never blocks. */
import { readFileSync } from 'node:fs';
import { uptime } from 'node:os';
import { StatusError } from '../../protos/status.ts';

export interface OwnerSlot {
  readonly dataDir: string;
  read(): string | undefined;
  write(owner: string): void;
  /** Runs `action` while no other process can be in one. */
  exclusively(action: () => void): void;
}

/** Who has a slot that nobody has, but that was not left in good order. */
export const nobody = 'null';

/**
 * Takes the slot for this process; returns the owner that died without giving it free, if there was one. Throws
 * FAILED_PRECONDITION when the owner lives.
 */
export function claimOwnership(slot: OwnerSlot): string | undefined {
  let previous: string | undefined;
  slot.exclusively(() => {
    previous = slot.read();
    const owner =
      previous === undefined ? undefined : (JSON.parse(previous) as { pid: number; started: string } | null);
    if (owner && isAlive(owner.pid) && startOf(owner.pid) === owner.started) {
      throw new StatusError(
        'FAILED_PRECONDITION',
        `another potluck node (pid ${owner.pid}) uses ${slot.dataDir}; stop it first, or choose another --data-dir`,
      );
    }
    slot.write(JSON.stringify({ pid: process.pid, started: startOf(process.pid) }));
  });
  return previous;
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

/**
 * Ticks from boot to the process's start where /proc tells; elsewhere a reused process id counts as the owner. A dead
 * process that its parent has not waited for still has an entry there.
 */
function startOf(pid: number): string {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    // The name in parentheses may itself hold spaces and parentheses; the start time is the 20th field after it.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return fields[0] === 'Z' ? 'dead' : `${bootId()}/${fields[19]}`;
  } catch {
    return 'unknown';
  }
}

/** Differs from boot to boot. Without /proc it is the minute of the boot, which may be taken for another one's by clock steps. */
export function bootId(): string {
  try {
    return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
  } catch {
    return `boot-minute-${Math.round((Date.now() / 1000 - uptime()) / 60)}`;
  }
}
