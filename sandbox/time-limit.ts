/** The time a command may run, which stands still while it is frozen. */
import { readFileSync } from 'node:fs';
import { crowdedIdleShare, timeoutMsMax } from './limits.ts';
import type { RunControl } from './run-control.ts';

export interface TimeLimit extends Disposable {
  /** The processors had next to nothing to spare while the command ran: how long it took says little about it. */
  readonly crowded: boolean;
}

/** Time of all processors since boot, in ticks of the kernel's clock. */
export interface ProcessorTicks {
  readonly idle: number;
  readonly all: number;
}

/** Calls `onOver` once the command has run for `limitMs`, unless disposed before. */
export function limitTime(
  limitMs: number,
  control: RunControl | undefined,
  onOver: () => void,
  ticks: () => ProcessorTicks | undefined = processorTicks,
): TimeLimit {
  let leftMs = Math.min(limitMs, timeoutMsMax);
  let timer: NodeJS.Timeout | undefined;
  let since: { readonly atMs: number; readonly ticks: ProcessorTicks | undefined } | undefined;
  let [idle, all] = [0, 0];
  const go = () => {
    since = { atMs: performance.now(), ticks: ticks() };
    timer = setTimeout(() => {
      stop();
      onOver();
    }, leftMs);
  };
  const stop = () => {
    clearTimeout(timer);
    if (!since) return;
    leftMs = Math.max(0, leftMs - (performance.now() - since.atMs));
    const now = ticks();
    if (now && since.ticks) {
      idle += now.idle - since.ticks.idle;
      all += now.all - since.ticks.all;
    }
    since = undefined;
  };
  const watch = control?.watch((frozen) => (frozen ? stop() : go()));
  if (!control?.frozen) go();
  return {
    get crowded() {
      return idle < all * crowdedIdleShare;
    },
    [Symbol.dispose]: () => {
      clearTimeout(timer);
      watch?.[Symbol.dispose]();
    },
  };
}

/** @see proc_stat(5); `undefined` where there is no such file */
function processorTicks(): ProcessorTicks | undefined {
  try {
    const line = /^cpu +(.+)$/m.exec(readFileSync('/proc/stat', 'latin1'))?.[1] ?? '';
    // Time of guests of this machine, the last two, is part of the first two.
    const times = line.split(' ').slice(0, 8).map(Number);
    const [idle = 0, wait = 0] = times.slice(3);
    return { idle: idle + wait, all: times.reduce((sum, time) => sum + time, 0) };
  } catch {
    return undefined;
  }
}
