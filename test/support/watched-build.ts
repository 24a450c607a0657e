/** Actions under way at one node, and what was seen of each meanwhile. */
import type { ActionClient, ActionRun, ActionSpec } from './actions.ts';

export interface Sighting {
  readonly name: string;
  readonly worker: string;
  /** When it was first said to run there; milliseconds of `performance.now()`. */
  readonly atMs: number;
}

export interface WatchedBuild {
  /** All runs, in the order of their answers. */
  readonly done: Promise<readonly ActionRun[]>;
  answered(): number;
  /** Actions that run now where the worker's name has this in it. */
  runningAt(worker: string): string[];
  /** Whoever was said to run something, in order. */
  sightings(): readonly Sighting[];
  /** When an action was answered; undefined while it is not. */
  answeredAtMs(name: string): number | undefined;
}

/** Uploads, then executes all at once. */
export async function startBuild(client: ActionClient, specs: readonly ActionSpec[]): Promise<WatchedBuild> {
  await client.upload(specs);
  const answers = new Map<string, number>();
  const at = new Map<string, string>();
  const seen: Sighting[] = [];
  const runs: ActionRun[] = [];
  const onProgress = (name: string, stage: string, worker: string): void => {
    if (stage === 'executing' && at.get(name) !== worker) {
      at.set(name, worker);
      seen.push({ name, worker, atMs: performance.now() });
    } else if (stage !== 'executing') {
      at.delete(name);
    }
  };
  const done = Promise.all(
    specs.map(async (spec) => {
      runs.push(await client.execute(spec, { onProgress }));
      answers.set(spec.name, performance.now());
      at.delete(spec.name);
    }),
  ).then(() => runs);
  return {
    done,
    answered: () => answers.size,
    runningAt: (worker) => [...at].flatMap(([name, where]) => (where.includes(worker) ? [name] : [])),
    sightings: () => seen,
    answeredAtMs: (name) => answers.get(name),
  };
}
