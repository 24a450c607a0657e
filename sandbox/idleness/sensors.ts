/** The sensors of this machine, by its operating system. */
import { totalmem } from 'node:os';
import { type SystemFiles, systemFiles } from './files.ts';
import { inputSensor } from './input.ts';
import { networkLookMs, slowLookMs } from './limits.ts';
import { openMacSensors } from './macos.ts';
import { freeMemoryBytes, isMemoryPressed } from './memory.ts';
import { isMetered } from './network.ts';
import { isHot, onBattery } from './power.ts';
import { processorsSensor } from './processors.ts';
import { type Ask, askProgram, remembered } from './program.ts';
import type { MachineReading, MachineSensors } from './reading.ts';

/** Never throws, and neither do its sensors. On other systems than Linux and macOS nothing can be told. */
export function openMachineSensors(): MachineSensors {
  const nowMs = () => performance.now();
  if (process.platform === 'linux') {
    return openLinuxSensors({
      files: systemFiles(),
      ask: askProgram,
      pid: process.pid,
      nowMs,
      wallMs: () => Date.now(),
    });
  }
  if (process.platform === 'darwin') return openMacSensors(askProgram, nowMs);
  return { read: nothing, [Symbol.dispose]: () => {} };
}

export interface LinuxSensorsOptions {
  readonly files: SystemFiles;
  readonly ask: Ask;
  /** The process that is, with all it started, this node. */
  readonly pid: number;
  readonly nowMs: () => number;
  /** Milliseconds since the epoch. */
  readonly wallMs: () => number;
}

export function openLinuxSensors({ files, ask, pid, nowMs, wallMs }: LinuxSensorsOptions): MachineSensors {
  const processors = processorsSensor(files, pid, nowMs);
  const input = inputSensor({ files, ask, wallMs });
  const metered = remembered(() => isMetered(files, ask), networkLookMs, nowMs);
  let slow = { atMs: Number.NEGATIVE_INFINITY, battery: onBattery(files), hot: isHot(files) };
  return {
    read() {
      if (nowMs() - slow.atMs >= slowLookMs) slow = { atMs: nowMs(), battery: onBattery(files), hot: isHot(files) };
      return {
        ownerPermille: processors.read(),
        inputAgoMs: input.read(),
        onBattery: slow.battery,
        hot: slow.hot,
        memoryBytes: totalmem(),
        freeMemoryBytes: freeMemoryBytes(files),
        memoryPressed: isMemoryPressed(files),
        metered: metered.get(),
      };
    },
    [Symbol.dispose]: () => {
      input[Symbol.dispose]();
      metered[Symbol.dispose]();
    },
  };
}

function nothing(): MachineReading {
  return {
    ownerPermille: undefined,
    inputAgoMs: undefined,
    onBattery: undefined,
    hot: undefined,
    memoryBytes: totalmem(),
    freeMemoryBytes: undefined,
    memoryPressed: undefined,
    metered: undefined,
  };
}
