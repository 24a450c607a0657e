/** Many seeds of the world of blobs on several threads; what they saw, added up. */
import { Worker } from 'node:worker_threads';
import type { BlobPlanOptions } from './plan.ts';
import type { BlobRunReport } from './world.ts';

export interface BlobSweepOptions {
  readonly from: number;
  readonly to: number;
  readonly nodes: number;
  readonly minutes: number;
  readonly jobs: number;
  /** Called after each seed. */
  readonly progress: (done: number, broken: number, report: BlobRunReport) => void;
}

export interface BlobSweepReport {
  readonly seeds: number;
  readonly broken: readonly BlobRunReport[];
  readonly seconds: number;
  readonly simulatedSeconds: number;
  readonly events: number;
  readonly messages: number;
  readonly bytes: number;
  readonly blobs: number;
  readonly faults: number;
  readonly answers: { readonly [end: string]: number };
  readonly observed: { readonly [checker: string]: number };
  readonly sometimes: { readonly [name: string]: number };
  /** Of all trace hashes, in order of seeds. */
  readonly traceHash: string;
}

/** Runs the seeds `from..to`, both included. Rejects when a worker dies. */
export async function sweepBlobs(options: BlobSweepOptions): Promise<BlobSweepReport> {
  const startedNs = process.hrtime.bigint();
  const reports = new Map<number, BlobRunReport>();
  let next = options.from;
  let broken = 0;
  const { nodes, minutes } = options;
  await Promise.all(
    Array.from({ length: Math.min(options.jobs, options.to - options.from + 1) }, async () => {
      const worker = new Worker(
        new URL(import.meta.url.endsWith('.ts') ? './worker.ts' : './worker.js', import.meta.url),
      );
      try {
        while (next <= options.to) {
          const seed = next++;
          const report = await ask(worker, { seed, nodes, minutes });
          reports.set(seed, report);
          if (report.violation) broken += 1;
          options.progress(reports.size, broken, report);
        }
      } finally {
        await worker.terminate();
      }
    }),
  );
  const inOrder = [...reports.values()].sort((a, b) => a.seed - b.seed);
  return addUp(inOrder, Number(process.hrtime.bigint() - startedNs) / 1e9);
}

function ask(worker: Worker, task: BlobPlanOptions): Promise<BlobRunReport> {
  return new Promise((resolve, reject) => {
    const failed = (error: Error): void => reject(new Error(`seed ${task.seed}: ${error.message}`, { cause: error }));
    worker.once('error', failed);
    worker.once('message', (report: BlobRunReport) => {
      worker.off('error', failed);
      resolve(report);
    });
    worker.postMessage(task);
  });
}

function addUp(reports: readonly BlobRunReport[], seconds: number): BlobSweepReport {
  const sum = (of: (report: BlobRunReport) => number): number => reports.reduce((total, each) => total + of(each), 0);
  const counts = (of: (report: BlobRunReport) => { readonly [name: string]: number }): { [name: string]: number } => {
    const total: { [name: string]: number } = {};
    for (const report of reports) {
      for (const [name, count] of Object.entries(of(report))) total[name] = (total[name] ?? 0) + count;
    }
    return total;
  };
  let hash = 0x811c9dc5;
  for (const { traceHash } of reports) {
    for (let i = 0; i < traceHash.length; i++) hash = Math.imul(hash ^ traceHash.charCodeAt(i), 0x01000193);
  }
  return {
    seeds: reports.length,
    broken: reports.filter(({ violation }) => violation),
    seconds,
    simulatedSeconds: sum(({ simulatedMs }) => simulatedMs) / 1_000,
    events: sum(({ events }) => events),
    messages: sum(({ messages }) => messages),
    bytes: sum(({ bytes }) => bytes),
    blobs: sum(({ blobs }) => blobs),
    faults: sum(({ faults }) => faults),
    answers: counts(({ answers }) => answers),
    observed: counts(({ observed }) => observed),
    sometimes: counts(({ sometimes }) => sometimes),
    traceHash: (hash >>> 0).toString(16).padStart(8, '0'),
  };
}
