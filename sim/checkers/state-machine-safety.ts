/** Every replica applies the same entry at an index, in order and without holes (Raft, figure 3.2). */
import { sameGeneration } from '../../mesh/core/ids.ts';
import type { CheckerFactory } from './checker.ts';

export const stateMachineSafety: CheckerFactory = (_world, fail) => {
  const applied = new Map<string, { readonly term: number; readonly hash: number; readonly by: string }>();
  // By replica: one that left its group and came back begins anew.
  const lastIndex = new WeakMap<object, number>();
  let observed = 0;
  return {
    name: 'state-machine-safety',
    observed: () => observed,
    onNote(node, note) {
      if (note.kind !== 'applied') return;
      observed += 1;
      const history = `${note.shard}/${note.generation.number}:${note.generation.hash}`;
      const at = `${history}/${note.index}`;
      const known = applied.get(at);
      if (!known) applied.set(at, { term: note.term, hash: note.entryHash, by: node.id });
      else if (known.term !== note.term || known.hash !== note.entryHash) {
        fail(`${node.id} applied term ${note.term} at ${at}, ${known.by} applied term ${known.term} there`);
      }
      const group = node.peer()?.coordination.groupOf(note.shard);
      if (!group || !sameGeneration(group.generation, note.generation)) return;
      const last = lastIndex.get(group);
      if (last !== undefined && note.index <= last) fail(`${node.id} applied ${at} after index ${last}`);
      lastIndex.set(group, note.index);
    },
  };
};
