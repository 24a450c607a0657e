/**
 * An action runs to its end once; again only because of a fault. Without any fault there is no duplicate at all, but for
 * races: two that want the same at the same moment may both begin at once, each on its own machine and without a claim,
 * and the one that is likely to be done first does not stop; and a short one may be over before a known result is here.
 */
import { keyOf, type SimNode } from '../node.ts';
import type { CheckerFactory } from './checker.ts';

/** Runs that one fault, or one owner's return, can waste: a machine full of work, or the claims of the shards that it led. */
const perFault = 24;
/** To publish a result, to learn of it and to ask for it: a few round trips between two sites, and disks. */
const answerMs = 500;
/** What one of a few transfers gets of the way between two sites. */
const slowestBytesPerMs = 1_000;

interface Run {
  readonly node: SimNode;
  readonly key: string;
  readonly claimed: boolean;
  readonly fromMs: number;
  toMs: number;
}

function nameOf(node: SimNode, run: number): string {
  return `${node.index} ${run}`;
}

export const duplicates: CheckerFactory = (world, fail) => {
  const wanted = new Map<string, number>();
  const runs = new Map<string, Run[]>();
  const open = new Map<string, Run>();
  const done = new Map<string, number>();
  const dropped = new Set<string>();
  const requestKeys = new Map<string, string>();
  let observed = 0;
  let twice = 0;
  let raced = 0;
  /** Its result could not have been here before the run was over: it ran elsewhere then, or was farther away than a run. */
  function isRace(run: Run, others: readonly Run[]): boolean {
    const beside = others.some((other) => {
      if ((other.claimed && run.claimed) || other.toMs + answerMs <= run.fromMs) return false;
      // A node merges what its own clients ask for at once before its peer hears of it; the clients here do not. Beside
      // a claim of its own it runs nothing.
      const overlap = other.toMs > run.fromMs;
      return other.node !== run.node || !overlap || !(other.claimed || run.claimed);
    });
    const bringMs = answerMs + (world.action(run.key)?.outputBytes ?? 0) / slowestBytesPerMs;
    return beside || (!run.claimed && run.toMs - run.fromMs < bringMs);
  }

  return {
    name: 'duplicates',
    observed: () => observed,
    sometimes: () => ({ 'began at once in two places': raced }),
    onExecute(_node, item, action) {
      requestKeys.set(item.request, item.key);
      // Who refuses the cache, looked for a cancelled action, or for one that fails, asks for a run of its own.
      const own = item.doNotCache || item.skipCacheLookup || action.fails || !wanted.has(item.key);
      if (own) wanted.set(item.key, (wanted.get(item.key) ?? 0) + 1);
    },
    onCancel(_node, request) {
      const key = requestKeys.get(request);
      if (key !== undefined) wanted.set(key, (wanted.get(key) ?? 0) + 1);
    },
    onNote(_node, note) {
      // Nobody may have room to keep the result; then it is made again for whoever asks next.
      if (note.kind === 'pinRefused' && note.reason === 'budget') {
        const key = keyOf(note.blob);
        wanted.set(key, (wanted.get(key) ?? 0) + 1);
      }
      // A dropped result has to be made again; the first replica to say so counts.
      if (note.kind !== 'registerWritten' || note.command !== 'invalidate' || note.outcome !== 'accepted') return;
      const write = `${note.shard}/${note.generation.number}:${note.generation.hash}/${note.index} ${note.key}`;
      if (dropped.has(write)) return;
      dropped.add(write);
      wanted.set(note.key, (wanted.get(note.key) ?? 0) + 1);
    },
    onRun(node, effect) {
      const claimed = effect.token !== undefined;
      const run = { node, key: effect.key, claimed, fromMs: world.nowMs(), toMs: Number.POSITIVE_INFINITY };
      open.set(nameOf(node, effect.run), run);
      const known = runs.get(effect.key);
      if (known) known.push(run);
      else runs.set(effect.key, [run]);
    },
    onRunEnd(node, number, end) {
      const run = open.get(nameOf(node, number));
      open.delete(nameOf(node, number));
      if (!run) return;
      run.toMs = world.nowMs();
      const others = (runs.get(run.key) as Run[]).filter((other) => other !== run);
      if (end !== 'done') {
        runs.set(run.key, others);
        return;
      }
      observed += 1;
      const ended = (done.get(run.key) ?? 0) + 1;
      done.set(run.key, ended);
      if (ended <= (wanted.get(run.key) ?? 0)) return;
      if (isRace(run, others)) {
        raced += 1;
        return;
      }
      twice += 1;
      const allowed = world.disturbances() * perFault;
      if (twice > allowed)
        fail(`${run.key} ran ${ended} times; ${twice} duplicates after ${world.disturbances()} disturbances`);
    },
  };
};
