/** Which builds of this node's clients go on: nobody says when one ends, so one that is silent for long is over. */
import type { InvocationId } from '../../mesh/core/ids.ts';
import type { Clock } from '../execution/clock.ts';
import * as limits from './limits.ts';

export interface Invocations {
  /** An action of the invocation is under way until disposed. */
  enter(invocation: InvocationId): Disposable;
  close(): void;
}

export function createInvocations({
  clock,
  onEnded,
}: {
  readonly clock: Clock;
  readonly onEnded: (invocation: InvocationId) => void;
}): Invocations {
  const known = new Map<InvocationId, { open: number; lastMs: number }>();
  let cancelTimer = (): void => {};

  function sweep(): void {
    const before = clock.nowMs() - limits.invocationIdleMs;
    for (const [invocation, { open, lastMs }] of known) {
      if (open > 0 || lastMs > before) continue;
      known.delete(invocation);
      onEnded(invocation);
    }
    cancelTimer = clock.setTimer(limits.invocationSweepMs, sweep);
  }

  sweep();
  return {
    enter(invocation) {
      const entry = known.get(invocation) ?? { open: 0, lastMs: 0 };
      known.set(invocation, entry);
      entry.open += 1;
      return {
        [Symbol.dispose]() {
          entry.open -= 1;
          entry.lastMs = clock.nowMs();
        },
      };
    },
    close: () => cancelTimer(),
  };
}
