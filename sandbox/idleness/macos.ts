/** The sensors of macOS, by its own commands. Never run by the project's tests on a Mac; whatever they do not say is `undefined`. */
import { cpus, totalmem } from 'node:os';
import { inputProgramMs, processorsMinMs, slowLookMs } from './limits.ts';
import { type Ask, remembered } from './program.ts';
import type { MachineReading, MachineSensors } from './reading.ts';

export function openMacSensors(ask: Ask, nowMs: () => number): MachineSensors {
  const input = remembered(
    async () => sinceInputMs(await ask('ioreg', ['-c', 'IOHIDSystem', '-d', '4', '-S'])),
    inputProgramMs,
    nowMs,
  );
  const battery = remembered(async () => drawsFromBattery(await ask('pmset', ['-g', 'batt'])), slowLookMs, nowMs);
  const heat = remembered(async () => isThrottled(await ask('pmset', ['-g', 'therm'])), slowLookMs, nowMs);
  const memory = remembered(async () => availableBytes(await ask('vm_stat', [])), slowLookMs, nowMs);
  const processors = ownerProcessors(nowMs);
  return {
    read: (): MachineReading => ({
      ownerPermille: processors(),
      inputAgoMs: input.get(),
      onBattery: battery.get(),
      hot: heat.get(),
      memoryBytes: totalmem(),
      freeMemoryBytes: memory.get(),
      memoryPressed: undefined,
      metered: undefined,
    }),
    [Symbol.dispose]: () => {
      for (const sensor of [input, battery, heat, memory]) sensor[Symbol.dispose]();
    },
  };
}

/** Without this process; what it started counts as the owner's, which is the cautious side. */
function ownerProcessors(nowMs: () => number): () => number | undefined {
  const look = () => {
    const own = process.cpuUsage();
    let [busyMs, allMs] = [0, 0];
    for (const { times } of cpus()) {
      busyMs += times.user + times.sys + times.irq;
      allMs += times.user + times.nice + times.sys + times.irq + times.idle;
    }
    return { busyMs, allMs, ownMs: (own.user + own.system) / 1_000, atMs: nowMs() };
  };
  let last = look();
  let permille: number | undefined;
  return () => {
    if (nowMs() - last.atMs < processorsMinMs) return permille;
    const now = look();
    const allMs = now.allMs - last.allMs;
    const othersMs = now.busyMs - last.busyMs - (now.ownMs - last.ownMs);
    permille = allMs > 0 ? Math.min(1_000, Math.max(0, Math.round((1_000 * othersMs) / allMs))) : undefined;
    last = now;
    return permille;
  };
}

/** `"HIDIdleTime" = 1234567890`, in nanoseconds. */
export function sinceInputMs(text: string | undefined): number | undefined {
  const nanoseconds = /"HIDIdleTime" = (\d+)/.exec(text ?? '')?.[1];
  return nanoseconds === undefined ? undefined : Number(nanoseconds) / 1e6;
}

export function drawsFromBattery(text: string | undefined): boolean | undefined {
  const source = /drawing from '([^']+)'/.exec(text ?? '')?.[1];
  return source === undefined ? undefined : source === 'Battery Power';
}

/** `CPU_Speed_Limit = 100`, in percent. */
export function isThrottled(text: string | undefined): boolean | undefined {
  const percent = /CPU_Speed_Limit\s*=\s*(\d+)/.exec(text ?? '')?.[1];
  return percent === undefined ? undefined : Number(percent) < 100;
}

/** What is free or can be had without writing anything out. */
export function availableBytes(text: string | undefined): number | undefined {
  const pageBytes = Number(/page size of (\d+) bytes/.exec(text ?? '')?.[1] ?? Number.NaN);
  const pages = (name: string) => Number(new RegExp(`^Pages ${name}:\\s+(\\d+)\\.`, 'm').exec(text ?? '')?.[1] ?? 0);
  const bytes = (pages('free') + pages('inactive') + pages('speculative') + pages('purgeable')) * pageBytes;
  return Number.isFinite(bytes) ? bytes : undefined;
}
