/** Many seeds on several threads; what they saw, added up. */
import { Worker } from 'node:worker_threads';
import type { PlanOptions } from './plan.ts';
import type { RunReport } from './universe.ts';

export interface SweepOptions {
  readonly from: number;
  readonly to: number;
  readonly nodes: number;
  readonly minutes: number;
  readonly jobs: number;
  /** Called after each seed. */
  readonly progress: (done: number, broken: number, report: RunReport) => void;
}

export interface SweepReport {
  readonly seeds: number;
  readonly broken: readonly RunReport[];
  readonly seconds: number;
  readonly simulatedSeconds: number;
  readonly events: number;
  readonly messages: number;
  readonly actions: number;
  readonly actionsMin: number;
  readonly executions: number;
  readonly faults: number;
  readonly faultsMin: number;
  readonly answers: { readonly [source: string]: number };
  readonly faultKinds: { readonly [kind: string]: number };
  readonly observed: { readonly [checker: string]: number };
  /** Runs in which the checker saw nothing. */
  readonly blind: { readonly [checker: string]: number };
  readonly sometimes: { readonly [name: string]: number };
  /** Of all trace hashes, in order of seeds. */
  readonly traceHash: string;
  readonly traceHashes: readonly string[];
}

/** What one worker is asked and answers. */
export type SeedTask = PlanOptions;

/** Runs the seeds `from..to`, both included. Rejects when a worker dies. */
export async function sweep(options: SweepOptions): Promise<SweepReport> {
  const startedNs = process.hrtime.bigint();
  const reports = new Map<number, RunReport>();
  let next = options.from;
  let broken = 0;
  const jobs = Math.min(options.jobs, options.to - options.from + 1);

  await Promise.all(
    Array.from({ length: jobs }, async () => {
      const worker = new Worker(
        new URL(import.meta.url.endsWith('.ts') ? './worker.ts' : './worker.js', import.meta.url),
      );
      try {
        while (next <= options.to) {
          const seed = next++;
          const report = await ask(worker, { seed, nodes: options.nodes, minutes: options.minutes });
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

function ask(worker: Worker, task: SeedTask): Promise<RunReport> {
  return new Promise((resolve, reject) => {
    const failed = (error: Error): void => reject(new Error(`seed ${task.seed}: ${error.message}`, { cause: error }));
    worker.once('error', failed);
    worker.once('message', (report: RunReport) => {
      worker.off('error', failed);
      resolve(report);
    });
    worker.postMessage(task);
  });
}

function addUp(reports: readonly RunReport[], seconds: number): SweepReport {
  const sum = (of: (report: RunReport) => number): number => reports.reduce((total, report) => total + of(report), 0);
  const least = (of: (report: RunReport) => number): number => Math.min(...reports.map(of));
  const counts = (of: (report: RunReport) => { readonly [name: string]: number }): { [name: string]: number } => {
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
    actions: sum(({ actions }) => actions),
    actionsMin: least(({ actions }) => actions),
    executions: sum(({ executions }) => executions),
    faults: sum(({ faults }) => faults),
    faultsMin: least(({ faults }) => faults),
    answers: counts(({ answers }) => answers),
    faultKinds: counts(({ faultKinds }) => faultKinds),
    observed: counts(({ observed }) => observed),
    blind: counts(({ observed }) =>
      Object.fromEntries(Object.entries(observed).map(([name, count]) => [name, count === 0 ? 1 : 0])),
    ),
    sometimes: counts(({ sometimes }) => sometimes),
    traceHash: (hash >>> 0).toString(16).padStart(8, '0'),
    traceHashes: reports.map(({ traceHash }) => traceHash),
  };
}
