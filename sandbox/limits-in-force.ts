/** What bubblewrap's actions are limited to on this machine, and how that is told. */
import { totalmem } from 'node:os';
import type { Cgroups } from './cgroups.ts';
import {
  fileBytesMax,
  memoryShareMax,
  openFilesMax,
  processesMax,
  sharedMemoryBytesMax,
  tmpBytesMax,
} from './limits.ts';

export const prlimit = '/usr/bin/prlimit';

export function memoryLimitBytes(): number {
  return Math.floor(totalmem() * memoryShareMax);
}

export function tmpBytes(): number {
  return Math.min(tmpBytesMax, memoryLimitBytes());
}

export function sharedMemoryBytes(): number {
  return Math.min(sharedMemoryBytesMax, memoryLimitBytes());
}

export function limitsInForce(cgroups: Cgroups | undefined, byResource: boolean): string[] {
  const has = (controller: string) => cgroups?.controllers.includes(controller) === true;
  const by = `control group v${cgroups?.version}`;
  return [
    'wall time',
    has('memory')
      ? `memory ${inGiB(memoryLimitBytes())} (${by})`
      : 'memory: no limit, as no control group was delegated',
    has('pids') || byResource
      ? `processes ${processesMax} (${has('pids') ? by : 'RLIMIT_NPROC'})`
      : `processes: no limit, as neither a control group nor ${prlimit} is at hand`,
    `file size ${inGiB(fileBytesMax)} (RLIMIT_FSIZE)`,
    `/tmp ${inGiB(tmpBytes())}`,
    `open files ${openFilesMax} (RLIMIT_NOFILE)`,
  ];
}

export function guestLimitsInForce(cgroups: Cgroups | undefined, memoryBytes: number): string[] {
  const has = (controller: string) => cgroups?.controllers.includes(controller) === true;
  const by = `control group v${cgroups?.version}`;
  const frozenByGroup = cgroups?.version === 2 || has('freezer');
  return [
    `processors and disk last of all (idle class${has('cpu') ? `, ${by}` : ''})`,
    has('memory')
      ? `memory ${inGiB(memoryBytes)} together (${by})`
      : 'memory together: no limit, as no control group was delegated; they go when it is short',
    `frozen by ${frozenByGroup ? by : 'SIGSTOP'}`,
  ];
}

function inGiB(bytes: number): string {
  return `${(bytes / 2 ** 30).toFixed(1)} GiB`;
}
