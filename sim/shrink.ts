/**
 * Finds a small set of faults under which a seed still breaks the same invariant: delta debugging over the fault
 * schedule, everything else of the seed unchanged.
 *
 * @see A. Zeller, R. Hildebrandt: Simplifying and Isolating Failure-Inducing Input (2002), algorithm ddmin
 */
import { drawPlan, type Fault, type PlanOptions } from './plan.ts';
import { simulate } from './simulate.ts';
import type { Violation } from './universe.ts';

export interface Schedule extends PlanOptions {
  /** What went wrong when it was found, for the reader. */
  readonly found: string;
  readonly faults: readonly Fault[];
}

export interface Shrunk {
  readonly schedule: Schedule;
  readonly violation: Violation;
  readonly drawn: number;
  readonly runs: number;
}

/** Undefined when the seed holds. `progress` hears the number of faults left. */
export function shrink(options: PlanOptions, progress: (faults: number) => void): Shrunk | undefined {
  let runs = 0;
  const attempt = (faults: readonly Fault[]): Violation | undefined => {
    runs += 1;
    return simulate({ ...options, faults }).violation;
  };
  const all = drawPlan(options).faults;
  const first = attempt(all);
  if (!first) return undefined;
  let violation: Violation = first;
  let faults: readonly Fault[] = all;

  for (let parts = 2; faults.length > 0; ) {
    const size = Math.ceil(faults.length / parts);
    let smaller: readonly Fault[] | undefined;
    for (let from = 0; from < faults.length && !smaller; from += size) {
      const without = [...faults.slice(0, from), ...faults.slice(from + size)];
      const broken = attempt(without);
      if (broken?.checker !== first.checker) continue;
      smaller = without;
      violation = broken;
    }
    if (smaller) {
      faults = smaller;
      parts = Math.max(2, parts - 1);
      progress(faults.length);
    } else if (size === 1) break;
    else parts = Math.min(faults.length, parts * 2);
  }
  const found = `${violation.checker}: ${violation.reason.split('\n')[0]}`;
  return { schedule: { ...options, found, faults }, violation, drawn: all.length, runs };
}
