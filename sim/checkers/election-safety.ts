/** At most one leader is elected in a term of one history of a shard (Raft, figure 3.2). */
import type { CheckerFactory } from './checker.ts';

export const electionSafety: CheckerFactory = (world, fail) => {
  const leaders = new Map<string, string>();
  let elections = 0;
  let underLoad = 0;
  return {
    name: 'election-safety',
    observed: () => elections,
    sometimes: () => ({ 'leader change under load': underLoad }),
    onNote(node, note) {
      if (note.kind !== 'role' || note.role !== 'leader') return;
      elections += 1;
      const running = world.nodes.some((other) => other.runs().size > 0);
      if (running && world.nowMs() > 15_000) underLoad += 1;
      const history = `${note.shard}/${note.generation.number}:${note.generation.hash}/${note.term}`;
      const replica = `${node.id}~${node.disk().generation}`;
      const other = leaders.get(history);
      if (other !== undefined && other !== replica) fail(`${replica} and ${other} both lead ${history}`);
      leaders.set(history, replica);
    },
  };
};
