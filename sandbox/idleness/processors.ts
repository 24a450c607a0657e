/**
 * How much of the processors others use. Two upper bounds are known: all time but that of low priority, and all time but
 * that of this node's own processes. The lesser is taken. Guests run at low priority, so neither ours nor, where several
 * nodes share a machine, those of others count; and neither do the builds of this node's own clients.
 *
 * @see proc_stat(5), proc_pid_stat(5)
 */
import type { SystemFiles } from './files.ts';
import { ownLookPermille, ownProcessesMax, processorsMinMs } from './limits.ts';

/** In ticks of the kernel's clock, since boot. */
interface Ticks {
  readonly all: number;
  readonly busy: number;
  /** Of the busy time, what ran at low priority. */
  readonly nice: number;
  /** Of this process, and of children that ended. */
  readonly self: number;
  /** Of children that run, when that was worth looking. */
  readonly children: number | undefined;
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
      const ticks = readTicks(files, pid, last?.ticks);
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
  // When one of the two was not looked at, that time counts as the owner's for once.
  const known = now.children !== undefined && before.children !== undefined;
  const children = known ? (now.children ?? 0) - (before.children ?? 0) : 0;
  // Time of a child that ended and was not waited for is lost: the sum can fall.
  const own = Math.max(0, now.self - before.self + children);
  const others = Math.min(busy - own, busy - (now.nice - before.nice));
  return Math.min(1_000, Math.max(0, Math.round((1_000 * others) / all)));
}

function readTicks(files: SystemFiles, pid: number, before: Ticks | undefined): Ticks | undefined {
  const line = /^cpu +(.+)$/m.exec(files.text('/proc/stat') ?? '')?.[1];
  const [user, nice, system, idle, wait = 0, irq = 0, softirq = 0, steal = 0] = (line ?? '').split(' ').map(Number);
  if (user === undefined || nice === undefined || system === undefined || idle === undefined) return undefined;
  // Time that other virtual machines take is nobody's here.
  const busy = user + nice + system + irq + softirq;
  const all = busy + idle + wait + steal;
  const used = before ? busy - nice - (before.busy - before.nice) : 0;
  const worthLooking = !before || used * 1_000 >= ownLookPermille * (all - before.all);
  const self = ticksOf(files, pid);
  return { all, busy, nice, self, children: worthLooking ? childrenTicks(files, pid) : undefined };
}

/** utime, stime, cutime, cstime */
function ticksOf(files: SystemFiles, pid: number): number {
  const stat = files.text(`/proc/${pid}/stat`) ?? '';
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return fields.slice(11, 15).reduce((sum, field) => sum + Number(field), 0);
}

/** Of all below the process. Time of those that ended goes to who waits for them, and is counted there. */
function childrenTicks(files: SystemFiles, pid: number): number {
  let ticks = 0;
  const open = childrenOf(files, pid);
  for (let seen = 0; seen < ownProcessesMax; seen += 1) {
    const next = open.pop();
    if (next === undefined) break;
    ticks += ticksOf(files, next);
    open.push(...childrenOf(files, next));
  }
  return ticks;
}

function childrenOf(files: SystemFiles, pid: number): number[] {
  return files.names(`/proc/${pid}/task`).flatMap((thread) => {
    const children = files.text(`/proc/${pid}/task/${thread}/children`);
    return children ? children.split(' ').map(Number) : [];
  });
}
