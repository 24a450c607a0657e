/** The mesh's clock in production: it never goes back, and it counts the time that the machine was suspended. */
import { uptime } from 'node:os';
import type { Alarm, Clock } from './ports.ts';

/** Wall clock and running time drift apart by less than this unless the machine slept or somebody set the clock. */
const driftMs = 200;
/** The time since boot comes in hundredths of a second. */
const uptimeStepMs = 20;
/** Longer delays are what `setTimeout` cannot hold. */
const timerMaxMs = 2 ** 31 - 1;

export interface TimeSources {
  /** Time that this process could have run, in milliseconds. */
  readonly runningMs: () => number;
  /** Milliseconds since the epoch; may jump. */
  readonly wallMs: () => number;
  /** Time since boot with suspends, in milliseconds. */
  readonly sinceBootMs: () => number;
}

const systemTime: TimeSources = {
  runningMs: () => performance.now(),
  wallMs: () => Date.now(),
  sinceBootMs: () => uptime() * 1000,
};

/**
 * The time since boot tells a suspend from a set clock, but costs a system call: it is asked only when the wall clock
 * has moved against the running time.
 */
export function createMeshClock({ runningMs, wallMs, sinceBootMs }: TimeSources = systemTime): Clock {
  let wallBaseMs = wallMs() - runningMs();
  const bootBaseMs = sinceBootMs() - runningMs();
  let suspendedMs = 0;

  function look(): void {
    const wallNowMs = wallMs() - runningMs();
    if (Math.abs(wallNowMs - wallBaseMs) < driftMs) return;
    wallBaseMs = wallNowMs;
    const sleptMs = sinceBootMs() - runningMs() - bootBaseMs;
    if (sleptMs > suspendedMs + uptimeStepMs) suspendedMs = sleptMs;
  }

  return {
    nowMs() {
      look();
      return runningMs() + suspendedMs;
    },
    suspendedMs() {
      look();
      return suspendedMs;
    },
  };
}

/** An alarm on the event loop; it does not keep the process alive. */
export function createAlarm(clock: Clock, ring: () => void): Alarm & Disposable {
  let timer: NodeJS.Timeout | undefined;
  return {
    set(atMs) {
      clearTimeout(timer);
      if (atMs === Number.POSITIVE_INFINITY) return;
      // Rounded up: a timer that goes off a fraction too early would only have to be set again.
      timer = setTimeout(ring, Math.min(Math.max(0, Math.ceil(atMs - clock.nowMs())), timerMaxMs));
      timer.unref();
    },
    [Symbol.dispose]: () => clearTimeout(timer),
  };
}
