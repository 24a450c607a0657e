/**
 * How often an action may be tried again, and when. Each submitter has a budget that its new actions fill, so that a poison
 * action costs a few runs and a fault of the whole fleet is no storm.
 */
import type { NodeId } from '../ids.ts';
import { claimLimits as limits } from '../limits.ts';
import type { Rng } from '../rng.ts';

export interface RetryBudgets {
  /** A new action of this submitter. */
  earn(submitter: NodeId): void;
  /** Takes one retry, or says that there is none left. */
  spend(submitter: NodeId): boolean;
}

export function createRetryBudgets(): RetryBudgets {
  // In thousandths of a retry, the submitter that was quiet for longest first.
  const budgets = new Map<NodeId, number>();
  return {
    earn(submitter) {
      const budget = budgets.get(submitter) ?? limits.retryBudgetPerMille;
      budgets.delete(submitter);
      budgets.set(submitter, Math.min(budget + limits.retryEarnedPerMille, limits.retryBudgetPerMille));
      const [quietest] = budgets.keys();
      if (budgets.size > limits.retryBudgets && quietest !== undefined) budgets.delete(quietest);
    },
    spend(submitter) {
      const budget = budgets.get(submitter) ?? limits.retryBudgetPerMille;
      if (budget < 1_000) return false;
      budgets.set(submitter, budget - 1_000);
      return true;
    },
  };
}

/** Doubles with each attempt from the first; half of it is jitter, so that what failed together does not return together. */
export function backoffMs(attempt: number, rng: Rng): number {
  const fullMs = Math.min(limits.backoffMs << (attempt - 1), limits.backoffMaxMs);
  return (fullMs >> 1) + rng.below(fullMs >> 1);
}
