/**
 * What happens to guests when the owner comes back: nothing more is claimed, what has not begun is given back, and what
 * runs is frozen at once; it is given back and killed when the owner is still there after `freezeMs`, and goes on when not.
 */
import { executorLimits as limits } from '../limits.ts';
import type { Run } from './runs.ts';

export interface YieldingPort {
  guests(): Iterable<Run>;
  freeze(run: Run): void;
  thaw(run: Run): void;
  giveBack(run: Run): void;
}

export interface Yielding {
  /** Whether guests may be taken in. */
  readonly welcome: boolean;
  /** Guests may use this machine in principle: not on battery, for example. */
  allow(guests: boolean, nowMs: number): void;
  owner(present: boolean, nowMs: number): void;
  onTimers(nowMs: number): void;
  readonly dueAtMs: number;
}

export function createYielding(port: YieldingPort): Yielding {
  let allowed = false;
  let ownerPresent = false;
  let wasWelcome = false;
  let giveBackAtMs = Number.POSITIVE_INFINITY;

  function update(nowMs: number): void {
    const welcome = allowed && !ownerPresent;
    if (welcome === wasWelcome) return;
    wasWelcome = welcome;
    giveBackAtMs = welcome ? Number.POSITIVE_INFINITY : nowMs + limits.freezeMs;
    for (const run of [...port.guests()]) {
      if (welcome) port.thaw(run);
      else if (run.phase === 'running') port.freeze(run);
      else port.giveBack(run);
    }
  }

  return {
    get welcome() {
      return wasWelcome;
    },
    allow(guests, nowMs) {
      allowed = guests;
      update(nowMs);
    },
    owner(present, nowMs) {
      ownerPresent = present;
      update(nowMs);
    },
    onTimers(nowMs) {
      if (nowMs < giveBackAtMs) return;
      giveBackAtMs = Number.POSITIVE_INFINITY;
      for (const run of [...port.guests()]) port.giveBack(run);
    },
    get dueAtMs() {
      return giveBackAtMs;
    },
  };
}
