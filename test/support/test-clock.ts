/** Real time that a test can push forward: timers that became due fire at once. */
import type { Clock } from '../../node/execution/clock.ts';

export interface TestClock extends Clock {
  advance(ms: number): void;
}

export function createTestClock(): TestClock {
  let offsetMs = 0;
  const timers = new Set<{ atMs: number; fire: () => void }>();
  const nowMs = (): number => Date.now() + offsetMs;
  return {
    nowMs,
    setTimer(delayMs, callback) {
      const cancel = (): void => {
        clearTimeout(real);
        timers.delete(timer);
      };
      const fire = (): void => {
        cancel();
        callback();
      };
      const timer = { atMs: nowMs() + delayMs, fire };
      const real = setTimeout(fire, Math.min(delayMs, 2 ** 31 - 1));
      real.unref();
      timers.add(timer);
      return cancel;
    },
    advance(ms) {
      offsetMs += ms;
      for (const timer of [...timers]) if (timer.atMs <= nowMs()) timer.fire();
    },
  };
}
