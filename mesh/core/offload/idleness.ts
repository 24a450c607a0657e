/** Whether guests may use this machine: slow to say yes, quick to say no, and at once when the owner touches it. */
import * as limits from './limits.ts';

/**
 * What the machine looks like at one moment. `undefined` is what cannot be told: it counts against guests where a mistake
 * would hurt the owner (processors, input, memory), and not where machines without the thing have nothing to tell.
 */
export interface MachineSample {
  /** Processor use in thousandths of all cores, without what this node uses. */
  readonly ownerPermille: number | undefined;
  /** Since the last key or pointer; infinite on machines that have none. */
  readonly inputAgoMs: number | undefined;
  readonly onBattery: boolean | undefined;
  /** The machine slows itself down because of heat. */
  readonly hot: boolean | undefined;
  readonly memoryBytes: number;
  readonly freeMemoryBytes: number | undefined;
  /** Programs wait for memory. */
  readonly memoryPressed: boolean | undefined;
  /** Traffic costs money. */
  readonly metered: boolean | undefined;
}

/** Why guests may not; `signal`: the owner said so, `settling`: nothing forbids it, but not for long enough. */
export type Unrest =
  | 'signal'
  | 'heat'
  | 'memory'
  | 'input'
  | 'battery'
  | 'metered network'
  | 'processors'
  | 'settling'
  | 'no reading';

export interface Idleness {
  /** Takes a sample; returns whether the machine is idle now. */
  sample(sample: MachineSample, nowMs: number): boolean;
  /** The owner says "I am back": like a key, but believed of any machine. */
  back(nowMs: number): void;
  /** The owner says "I am gone": input until now is over, and there is no waiting for quiet. The next sample shows it. */
  away(nowMs: number): void;
  /** Whether it is idle, given how old the last sample is. */
  idle(nowMs: number): boolean;
  /** Why it is not. */
  unrest(nowMs: number): Unrest | undefined;
}

/**
 * @param when - `always`: the owner lends this machine whatever it does; only heat, memory and the owner's own word count,
 * and there is no waiting for the first quiet
 */
export function createIdleness(when: 'idle' | 'always'): Idleness {
  let unrest: Unrest | undefined = 'no reading';
  /** Whether quiet must last before it counts. */
  let settles = when === 'idle';
  let quietSinceMs: number | undefined;
  let busySinceMs: number | undefined;
  let sampledAtMs = Number.NEGATIVE_INFINITY;
  let backAtMs = Number.NEGATIVE_INFINITY;
  let awayAtMs: number | undefined;

  function forbidden(sample: MachineSample, nowMs: number): Unrest | undefined {
    if (nowMs - backAtMs < limits.inputMs) return 'signal';
    if (sample.hot) return 'heat';
    const neededBytes = Math.min(limits.freeMemoryBytes, sample.memoryBytes * limits.freeMemoryShare);
    if (sample.memoryPressed || !(sample.freeMemoryBytes !== undefined && sample.freeMemoryBytes >= neededBytes)) {
      return 'memory';
    }
    if (when === 'always') return undefined;
    if (isTouched(sample.inputAgoMs, nowMs)) return 'input';
    if (sample.onBattery) return 'battery';
    if (sample.metered) return 'metered network';
    return sample.ownerPermille === undefined ? 'processors' : undefined;
  }

  function isTouched(inputAgoMs: number | undefined, nowMs: number): boolean {
    if (inputAgoMs === undefined) return awayAtMs === undefined;
    if (inputAgoMs >= limits.inputMs) return false;
    return awayAtMs === undefined || nowMs - inputAgoMs > awayAtMs + limits.awayGraceMs;
  }

  function disturb(by: Unrest): void {
    unrest = by;
    settles = true;
    quietSinceMs = undefined;
    busySinceMs = undefined;
  }

  function onProcessors(permille: number, nowMs: number): void {
    if (permille < limits.idlePermille) quietSinceMs ??= nowMs;
    else quietSinceMs = undefined;
    if (permille > limits.busyPermille) busySinceMs ??= nowMs;
    else busySinceMs = undefined;
    if (unrest === undefined) {
      if (busySinceMs !== undefined && nowMs - busySinceMs >= limits.leaveIdleMs) disturb('processors');
    } else if (quietSinceMs === undefined) unrest = 'processors';
    else if (settles && nowMs - quietSinceMs < limits.enterIdleMs) unrest = 'settling';
    else unrest = undefined;
  }

  return {
    sample(sample, nowMs) {
      // After a gap in the samples the quiet before it proves nothing.
      if (when === 'idle' && nowMs - sampledAtMs > limits.sampleMsMax) {
        unrest = 'settling';
        quietSinceMs = undefined;
        busySinceMs = undefined;
      }
      sampledAtMs = nowMs;
      const reason = forbidden(sample, nowMs);
      if (reason === 'input') awayAtMs = undefined;
      if (reason !== undefined) disturb(reason);
      else onProcessors(when === 'always' ? 0 : (sample.ownerPermille ?? 1_000), nowMs);
      return unrest === undefined;
    },
    back(nowMs) {
      backAtMs = nowMs;
      awayAtMs = undefined;
      disturb('signal');
    },
    away(nowMs) {
      backAtMs = Number.NEGATIVE_INFINITY;
      awayAtMs = nowMs;
      settles = false;
    },
    idle: (nowMs) => unrest === undefined && nowMs - sampledAtMs <= limits.sampleMsMax,
    unrest: (nowMs) => (nowMs - sampledAtMs > limits.sampleMsMax && unrest !== 'signal' ? 'no reading' : unrest),
  };
}
