/** A sweep of the world of blobs: many seeds, and what they saw, added up. */
import { runSeeds, type SeedRange, type SeedSums, sumOf } from '../seeds.ts';
import type { BlobPlanOptions } from './plan.ts';
import type { BlobRunReport } from './world.ts';

export interface BlobSweepOptions extends SeedRange {
  readonly nodes: number;
  readonly minutes: number;
  /** Called after each seed. */
  readonly progress: (done: number, broken: number, report: BlobRunReport) => void;
}

export interface BlobSweepReport extends SeedSums<BlobRunReport> {
  readonly bytes: number;
  readonly blobs: number;
}

/** Runs the seeds `from..to`, both included. Rejects when a worker dies. */
export async function sweepBlobs(options: BlobSweepOptions): Promise<BlobSweepReport> {
  const { nodes, minutes, progress } = options;
  const taskOf = (seed: number): BlobPlanOptions => ({ seed, nodes, minutes });
  const { reports, sums } = await runSeeds<BlobRunReport>(options, import.meta.url, taskOf, progress);
  return { ...sums, bytes: sumOf(reports, ({ bytes }) => bytes), blobs: sumOf(reports, ({ blobs }) => blobs) };
}
