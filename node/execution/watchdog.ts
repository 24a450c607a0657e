/**
 * Ends work that does not end by itself: every phase has its time, and what was told to stop is given up when it does not.
 *
 * Without it, one sandbox that hangs (a disk that does not answer, a process that cannot be killed) would keep its slot, and
 * the node from closing, for ever.
 */
import { StatusError } from '../../protos/status.ts';
import type { Clock } from './clock.ts';
import { abortedMaxMs } from './limits.ts';

export interface Watchdog extends Disposable {
  /** Aborted with the caller's, and when a phase takes too long. */
  readonly signal: AbortSignal;
  /** Begins a phase, which ends the one before. */
  enter(phase: string, maxMs: number): void;
  /** The outcome of `work`; throws INTERNAL when it was aborted and did not stop within `abortedMaxMs`. */
  guard<T>(work: Promise<T>): Promise<T>;
  /** Set once the work was ended or given up by the watchdog: INTERNAL, and in which phase. */
  readonly bite: StatusError | undefined;
}

export function createWatchdog(clock: Clock, caller: AbortSignal): Watchdog {
  const controller = new AbortController();
  const givenUp = Promise.withResolvers<never>();
  // Whoever guards sees it; at the moment nobody may.
  givenUp.promise.catch(() => {});
  let current = 'starting';
  let bite: StatusError | undefined;
  let cancelTimer = (): void => {};

  const stop = (): void => {
    cancelTimer();
    cancelTimer = clock.setTimer(abortedMaxMs, () => {
      bite = new StatusError('INTERNAL', `${current} did not stop within ${abortedMaxMs / 1000} s and was given up`);
      givenUp.reject(bite);
    });
    controller.abort();
  };
  caller.addEventListener('abort', stop, { once: true });
  if (caller.aborted) stop();
  return {
    signal: controller.signal,
    enter(phase, maxMs) {
      current = phase;
      if (controller.signal.aborted) return;
      cancelTimer();
      cancelTimer = clock.setTimer(maxMs, () => {
        bite = new StatusError('INTERNAL', `${phase} took longer than ${maxMs / 1000} s`);
        stop();
      });
    },
    guard: (work) => Promise.race([work, givenUp.promise]),
    get bite() {
      return bite;
    },
    [Symbol.dispose]() {
      cancelTimer();
      caller.removeEventListener('abort', stop);
    },
  };
}
