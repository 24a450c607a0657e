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
  /** While paused, the phase takes no time. */
  pause(paused: boolean): void;
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
  /** The present phase: what it may take, and what is left of that since the timer was set. */
  let phase: { readonly maxMs: number; leftMs: number } | undefined;
  let sinceMs = 0;
  let isPaused = false;

  const stop = (): void => {
    cancelTimer();
    cancelTimer = clock.setTimer(abortedMaxMs, () => {
      bite = new StatusError('INTERNAL', `${current} did not stop within ${abortedMaxMs / 1000} s and was given up`);
      givenUp.reject(bite);
    });
    controller.abort();
  };
  const goOn = (): void => {
    if (!phase || isPaused) return;
    const { maxMs, leftMs } = phase;
    sinceMs = clock.nowMs();
    cancelTimer = clock.setTimer(leftMs, () => {
      bite = new StatusError('INTERNAL', `${current} took longer than ${maxMs / 1000} s`);
      stop();
    });
  };
  caller.addEventListener('abort', stop, { once: true });
  if (caller.aborted) stop();
  return {
    signal: controller.signal,
    enter(name, maxMs) {
      current = name;
      if (controller.signal.aborted) return;
      cancelTimer();
      phase = { maxMs, leftMs: maxMs };
      goOn();
    },
    pause(paused) {
      if (paused === isPaused) return;
      isPaused = paused;
      if (controller.signal.aborted || !phase) return;
      if (paused) {
        cancelTimer();
        phase.leftMs -= clock.nowMs() - sinceMs;
      } else goOn();
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
