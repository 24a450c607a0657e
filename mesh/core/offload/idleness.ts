/** Whether guests may use this machine: slow to say yes, quick to say no, and at once when the owner touches it. */
import * as limits from './limits.ts';

/** What the machine looks like at one moment. */
export interface MachineSample {
  /** Processor use in thousandths of all cores, without what guests use. */
  readonly ownerPermille: number;
  /** Since the last key or pointer; undefined on machines that have none. */
  readonly inputAgoMs: number | undefined;
  readonly onBattery: boolean;
  /** The machine slows itself down because of heat. */
  readonly hot: boolean;
  readonly freeMemoryBytes: number;
  /** Traffic costs money. */
  readonly metered: boolean;
}

export interface Idleness {
  /** Takes a sample; returns whether the machine is idle now. */
  sample(sample: MachineSample, nowMs: number): boolean;
  /** Whether it is idle, given how old the last sample is. */
  idle(nowMs: number): boolean;
}

/** A machine that is dedicated to builds has no owner at the keyboard: only heat, memory and the processors count. */
export function createIdleness(dedicated: boolean): Idleness {
  let idle = false;
  let quietSinceMs: number | undefined;
  let busySinceMs: number | undefined;
  let sampledAtMs = Number.NEGATIVE_INFINITY;

  function forbidden(sample: MachineSample): boolean {
    if (sample.hot || sample.freeMemoryBytes < limits.freeMemoryBytes) return true;
    if (dedicated) return false;
    const touched = sample.inputAgoMs !== undefined && sample.inputAgoMs < limits.inputMs;
    return touched || sample.onBattery || sample.metered;
  }

  return {
    sample(sample, nowMs) {
      // After a gap in the samples the quiet before it proves nothing.
      if (nowMs - sampledAtMs > limits.sampleMsMax) quietSinceMs = undefined;
      sampledAtMs = nowMs;
      if (forbidden(sample)) {
        idle = false;
        quietSinceMs = undefined;
        return false;
      }
      if (sample.ownerPermille < limits.idlePermille) quietSinceMs ??= nowMs;
      else quietSinceMs = undefined;
      if (sample.ownerPermille > limits.busyPermille) busySinceMs ??= nowMs;
      else busySinceMs = undefined;
      if (idle && busySinceMs !== undefined && nowMs - busySinceMs >= limits.leaveIdleMs) idle = false;
      if (!idle && quietSinceMs !== undefined && nowMs - quietSinceMs >= limits.enterIdleMs) idle = true;
      return idle;
    },
    idle: (nowMs) => idle && nowMs - sampledAtMs <= limits.sampleMsMax,
  };
}
