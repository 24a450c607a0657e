/** Whether the processes of an action stand still, as Linux tells. */
import { existsSync, readFileSync } from 'node:fs';
import { processTree, readProcess } from '../../../sandbox/processes.ts';
import { processesWith } from '../../unit/sandbox/support.ts';

/** Living processes whose command line has the text, with all below them. */
export function processesOf(marker: string): number[] {
  const found = new Set(processesWith(marker).flatMap((pid) => processTree(pid).map((one) => one.pid)));
  return [...found].filter((pid) => (readProcess(pid)?.state ?? 'Z') !== 'Z');
}

/**
 * Stopped by a signal, or in a control group that is frozen; one that is over stands still too. bubblewrap only waits for
 * the command, and is not stopped with it by a signal.
 */
export function isFrozen(pid: number): boolean {
  const state = readProcess(pid)?.state;
  if (state === undefined || 'TtZX'.includes(state) || read(`/proc/${pid}/comm`).trim() === 'bwrap') return true;
  const lines = read(`/proc/${pid}/cgroup`).split('\n');
  const groupOf = (name: string) =>
    lines
      .find((line) => line.split(':')[1] === name)
      ?.split(':')
      .slice(2)
      .join(':');
  const v1 = `/sys/fs/cgroup/freezer${groupOf('freezer')}/freezer.state`;
  if (existsSync(v1)) return read(v1).trim() === 'FROZEN';
  return read(`/sys/fs/cgroup${groupOf('')}/cgroup.events`).includes('frozen 1');
}

function read(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}
