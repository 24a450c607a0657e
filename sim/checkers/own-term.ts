/**
 * A leader counts replicas only for entries of its own term; what its predecessors left is committed with the first of
 * those (Raft, section 3.6.2).
 */
import { sameGeneration } from '../../mesh/core/ids.ts';
import type { CheckerFactory } from './checker.ts';

export const ownTerm: CheckerFactory = (_world, fail) => {
  let observed = 0;
  return {
    name: 'own-term',
    observed: () => observed,
    onNote(node, note) {
      if (note.kind !== 'applied') return;
      const group = node.peer()?.coordination.groupOf(note.shard);
      if (!group || !sameGeneration(group.generation, note.generation)) return;
      const { role, term, commit } = group.status;
      if (role !== 'leader' || note.term === term) return;
      const log = group.disk().entries;
      const newest = log[commit - (log[0]?.index ?? 0)];
      if (newest?.index !== commit) return;
      observed += 1;
      if (newest.term < term) {
        fail(
          `${node.id} leads shard ${note.shard} in term ${term} and committed index ${commit} of term ${newest.term}`,
        );
      }
    },
  };
};
