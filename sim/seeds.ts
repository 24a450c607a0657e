/** Many seeds on several threads, and what their reports come to together. */
import { Worker } from 'node:worker_threads';

export interface SeedRange {
  readonly from: number;
  /** Included. */
  readonly to: number;
  readonly jobs: number;
}

/** What every kind of run reports. */
export interface SeedReport {
  readonly seed: number;
  readonly simulatedMs: number;
  readonly events: number;
  readonly messages: number;
  readonly faults: number;
  readonly answers: Counts;
  readonly observed: Counts;
  readonly sometimes: Counts;
  readonly traceHash: string;
  readonly violation: object | undefined;
}

export interface Counts {
  readonly [name: string]: number;
}

/** What reports of any kind come to. */
export interface SeedSums<Report> {
  readonly seeds: number;
  readonly broken: readonly Report[];
  readonly seconds: number;
  readonly simulatedSeconds: number;
  readonly events: number;
  readonly messages: number;
  readonly faults: number;
  readonly answers: Counts;
  readonly observed: Counts;
  readonly sometimes: Counts;
  /** Of all trace hashes, in order of seeds. */
  readonly traceHash: string;
}

/**
 * Runs all seeds of the range on threads of `worker`, a module beside its caller's `base`; `taskOf` is what a thread is
 * sent for a seed. Gives the reports in order of seeds. Rejects when a thread dies.
 */
export async function runSeeds<Report extends SeedReport>(
  { from, to, jobs }: SeedRange,
  base: string,
  taskOf: (seed: number) => object,
  progress: (done: number, broken: number, report: Report) => void,
): Promise<{ readonly reports: readonly Report[]; readonly sums: SeedSums<Report> }> {
  const startedNs = process.hrtime.bigint();
  const reports = new Map<number, Report>();
  let next = from;
  let broken = 0;
  await Promise.all(
    Array.from({ length: Math.min(jobs, to - from + 1) }, async () => {
      const worker = new Worker(new URL(base.endsWith('.ts') ? './worker.ts' : './worker.js', base));
      try {
        while (next <= to) {
          const seed = next++;
          const report = await ask<Report>(worker, seed, taskOf(seed));
          reports.set(seed, report);
          if (report.violation) broken += 1;
          progress(reports.size, broken, report);
        }
      } finally {
        await worker.terminate();
      }
    }),
  );
  const inOrder = [...reports.values()].sort((a, b) => a.seed - b.seed);
  return { reports: inOrder, sums: addUp(inOrder, Number(process.hrtime.bigint() - startedNs) / 1e9) };
}

function ask<Report>(worker: Worker, seed: number, task: object): Promise<Report> {
  return new Promise((resolve, reject) => {
    const failed = (error: Error): void => reject(new Error(`seed ${seed}: ${error.message}`, { cause: error }));
    worker.once('error', failed);
    worker.once('message', (report: Report) => {
      worker.off('error', failed);
      resolve(report);
    });
    worker.postMessage(task);
  });
}

function addUp<Report extends SeedReport>(reports: readonly Report[], seconds: number): SeedSums<Report> {
  let hash = 0x811c9dc5;
  for (const { traceHash } of reports) {
    for (let i = 0; i < traceHash.length; i++) hash = Math.imul(hash ^ traceHash.charCodeAt(i), 0x01000193);
  }
  return {
    seeds: reports.length,
    broken: reports.filter(({ violation }) => violation),
    seconds,
    simulatedSeconds: sumOf(reports, ({ simulatedMs }) => simulatedMs) / 1_000,
    events: sumOf(reports, ({ events }) => events),
    messages: sumOf(reports, ({ messages }) => messages),
    faults: sumOf(reports, ({ faults }) => faults),
    answers: countsOf(reports, ({ answers }) => answers),
    observed: countsOf(reports, ({ observed }) => observed),
    sometimes: countsOf(reports, ({ sometimes }) => sometimes),
    traceHash: (hash >>> 0).toString(16).padStart(8, '0'),
  };
}

export function sumOf<Report>(reports: readonly Report[], of: (report: Report) => number): number {
  return reports.reduce((total, report) => total + of(report), 0);
}

/** Adds up counts by name. */
export function countsOf<Report>(reports: readonly Report[], of: (report: Report) => Counts): Counts {
  const total: Record<string, number> = {};
  for (const report of reports) {
    for (const [name, count] of Object.entries(of(report))) total[name] = (total[name] ?? 0) + count;
  }
  return total;
}
