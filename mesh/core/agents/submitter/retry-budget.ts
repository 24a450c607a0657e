/** Retries of all requests of this node together: a burst, then a trickle, so that a fleet-wide fault is no storm. */
import { submitterLimits as limits } from '../limits.ts';

export interface RetryBudget {
  /** Takes one retry, or says that there is none left now. */
  spend(nowMs: number): boolean;
}

export function createRetryBudget(): RetryBudget {
  let left: number = limits.retryBurst;
  let refilledAtMs = 0;
  return {
    spend(nowMs) {
      const earned = Math.trunc((nowMs - refilledAtMs) / limits.retryRefillMs);
      if (earned > 0) {
        left = Math.min(limits.retryBurst, left + earned);
        refilledAtMs = nowMs;
      }
      if (left === 0) return false;
      left -= 1;
      return true;
    },
  };
}
