/**
 * A log has at most one configuration that is not committed, and each differs from the one before by at most one voter
 * (Raft, section 4.1): otherwise two majorities need not meet.
 */
import type { CheckerFactory } from './checker.ts';

export const oneChange: CheckerFactory = (_world, fail) => {
  let observed = 0;
  return {
    name: 'one-change',
    observed: () => observed,
    onSend(node, _to, message) {
      if (message.kind !== 'raft' || message.message.kind !== 'append') return;
      const { entries, commit, term } = message.message;
      let open = 0;
      let before: readonly string[] | undefined;
      for (const { index, term: entryTerm, data } of entries) {
        if (data.kind !== 'configuration') continue;
        observed += 1;
        const { voters } = data.configuration;
        // Of what its predecessors left a new leader does not know at first how much is committed.
        if (index > commit && entryTerm === term) open += 1;
        const changed = before
          ? voters.filter((voter) => !before?.includes(voter)).length +
            before.filter((voter) => !voters.includes(voter)).length
          : 0;
        before = voters;
        if (open > 1) fail(`${node.id} sends two open configurations of shard ${message.shard}, up to index ${index}`);
        if (changed > 1)
          fail(`${node.id} changes ${changed} voters of shard ${message.shard} at once, at index ${index}`);
      }
    },
  };
};
