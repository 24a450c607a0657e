/** One seed, whole: what it expands to, run under every checker. */
import { allCheckers } from './checkers/all.ts';
import { drawPlan, type Fault, type PlanOptions } from './plan.ts';
import { type RunReport, runPlan } from './universe.ts';

export interface SimulateOptions extends PlanOptions {
  /** Instead of the faults that the seed draws. */
  readonly faults?: readonly Fault[];
  readonly trace?: (line: string) => void;
}

export function simulate(options: SimulateOptions): RunReport {
  const drawn = drawPlan(options);
  const plan = options.faults ? { ...drawn, faults: options.faults } : drawn;
  return runPlan(plan, { checkers: allCheckers, ...(options.trace ? { trace: options.trace } : {}) });
}
