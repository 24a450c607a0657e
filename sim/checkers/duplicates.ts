/** An action runs once; again only because of a fault. Without any fault there is no duplicate at all. */
import { keyOf } from '../node.ts';
import type { CheckerFactory } from './checker.ts';

/** Runs that one fault, or one owner's return, can waste: a machine full of work, or the claims of the shards that it led. */
const perFault = 24;

export const duplicates: CheckerFactory = (world, fail) => {
  const wanted = new Map<string, number>();
  const runs = new Map<string, number>();
  const dropped = new Set<string>();
  const requestKeys = new Map<string, string>();
  let observed = 0;
  let twice = 0;
  return {
    name: 'duplicates',
    observed: () => observed,
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
    onRun(_node, effect) {
      observed += 1;
      const count = (runs.get(effect.key) ?? 0) + 1;
      runs.set(effect.key, count);
      if (count <= (wanted.get(effect.key) ?? 0)) return;
      twice += 1;
      const allowed = world.disturbances() * perFault;
      if (twice > allowed)
        fail(`${effect.key} ran ${count} times; ${twice} duplicates after ${world.disturbances()} disturbances`);
    },
  };
};
