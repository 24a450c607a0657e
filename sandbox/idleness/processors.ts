/**
 * How much of the processors others use. Two upper bounds are known: all time but that of low priority, and all time but
 * that of this node's own processes. The lesser is taken. Guests run at low priority, so neither ours nor, where several
 * nodes share a machine, those of others count; and neither do the builds of this node's own clients.
 *
 * @see proc_stat(5), proc_pid_stat(5)
 */
import type { SystemFiles } from './files.ts';
import { ownProcessesMax, processorsMinMs } from './limits.ts';

/** In ticks of the kernel's clock, since boot. */
interface Ticks {
  readonly all: number;
  readonly busy: number;
  /** Of the busy time, what ran at low priority. */
  readonly nice: number;
  readonly own: number;
}

export interface ProcessorsSensor {
  /** Thousandths of all cores since the reading before; `undefined` at the first. */
  read(): number | undefined;
}

/** @param pid - the process that is, with all it started, this node */
export function processorsSensor(files: SystemFiles, pid: number, nowMs: () => number): ProcessorsSensor {
  let last: { readonly ticks: Ticks; readonly atMs: number } | undefined;
  let permille: number | undefined;

  return {
    read() {
      const atMs = nowMs();
      if (last && atMs - last.atMs < processorsMinMs) return permille;
      const ticks = readTicks(files, pid);
      permille = ticks && last ? permilleOf(last.ticks, ticks) : undefined;
      last = ticks && { ticks, atMs };
      return permille;
    },
  };
}

function permilleOf(before: Ticks, now: Ticks): number | undefined {
  const all = now.all - before.all;
  if (all <= 0) return undefined;
  const busy = now.busy - before.busy;
  // Time of a child that ended and was not waited for is lost: the sum can fall.
  const own = Math.max(0, now.own - before.own);
  const others = Math.min(busy - own, busy - (now.nice - before.nice));
  return Math.min(1_000, Math.max(0, Math.round((1_000 * others) / all)));
}

function readTicks(files: SystemFiles, pid: number): Ticks | undefined {
  const line = /^cpu +(.+)$/m.exec(files.text('/proc/stat') ?? '')?.[1];
  const [user, nice, system, idle, wait = 0, irq = 0, softirq = 0, steal = 0] = (line ?? '').split(' ').map(Number);
  if (user === undefined || nice === undefined || system === undefined || idle === undefined) return undefined;
  // Time that other virtual machines take is nobody's here.
  const busy = user + nice + system + irq + softirq;
  return { all: busy + idle + wait + steal, busy, nice, own: ownTicks(files, pid) };
}

/** Of the process and all below it, those that ended included: their time goes to who waits for them. */
function ownTicks(files: SystemFiles, pid: number): number {
  let ticks = 0;
  const open = [pid];
  for (let seen = 0; seen < ownProcessesMax; seen += 1) {
    const next = open.pop();
    if (next === undefined) break;
    const stat = files.text(`/proc/${next}/stat`);
    if (stat === undefined) continue;
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    // utime, stime, cutime, cstime
    for (const field of fields.slice(11, 15)) ticks += Number(field);
    for (const thread of files.names(`/proc/${next}/task`)) {
      const children = files.text(`/proc/${next}/task/${thread}/children`);
      if (children) open.push(...children.split(' ').map(Number));
    }
  }
  return ticks;
}
