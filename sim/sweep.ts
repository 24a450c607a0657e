/** A sweep of whole meshes: many seeds, and what they saw, added up. */
import type { PlanOptions } from './plan.ts';
import { type Counts, countsOf, runSeeds, type SeedRange, type SeedSums, sumOf } from './seeds.ts';
import type { RunReport } from './universe.ts';

export interface SweepOptions extends SeedRange {
  readonly nodes: number;
  readonly minutes: number;
  /** Called after each seed. */
  readonly progress: (done: number, broken: number, report: RunReport) => void;
}

export interface SweepReport extends SeedSums<RunReport> {
  readonly actions: number;
  readonly actionsMin: number;
  readonly executions: number;
  readonly faultsMin: number;
  readonly faultKinds: Counts;
  /** Runs in which the checker saw nothing. */
  readonly blind: Counts;
  readonly traceHashes: readonly string[];
}

/** What one worker is asked. */
export type SeedTask = PlanOptions;

/** Runs the seeds `from..to`, both included. Rejects when a worker dies. */
export async function sweep(options: SweepOptions): Promise<SweepReport> {
  const { nodes, minutes, progress } = options;
  const taskOf = (seed: number): SeedTask => ({ seed, nodes, minutes });
  const { reports, sums } = await runSeeds<RunReport>(options, import.meta.url, taskOf, progress);
  return {
    ...sums,
    actions: sumOf(reports, ({ actions }) => actions),
    actionsMin: Math.min(...reports.map(({ actions }) => actions)),
    executions: sumOf(reports, ({ executions }) => executions),
    faultsMin: Math.min(...reports.map(({ faults }) => faults)),
    faultKinds: countsOf(reports, ({ faultKinds }) => faultKinds),
    blind: countsOf(reports, ({ observed }) =>
      Object.fromEntries(Object.entries(observed).map(([name, count]) => [name, count === 0 ? 1 : 0])),
    ),
    traceHashes: reports.map(({ traceHash }) => traceHash),
  };
}
