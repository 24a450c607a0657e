/**
 * A replica stands by what it said: it votes once a term and keeps the entries that it acknowledged; and after a power cut
 * it remembers its term, its vote and those entries (Raft, figure 3.1: updated on stable storage before responding).
 */
import type { Checker, CheckerFactory } from './checker.ts';

interface Said {
  readonly term: number;
  readonly votedFor: string | undefined;
  readonly ackedIndex: number;
  readonly ackedTerm: number;
}

interface Kept {
  term: number;
  vote: string | undefined;
  lastIndex: number;
  superseded: boolean;
}

export const nothingForgotten: CheckerFactory = (_world, fail) => {
  const said = new Map<string, Map<string, Said>>();
  let observed = 0;

  function remember(replica: string, history: string, what: Partial<Said> & { readonly term: number }): void {
    const histories = said.get(replica) ?? new Map<string, Said>();
    const before = histories.get(history) ?? { term: 0, votedFor: undefined, ackedIndex: 0, ackedTerm: 0 };
    const twice = what.term === before.term && what.votedFor !== undefined && before.votedFor !== undefined;
    if (twice && what.votedFor !== before.votedFor) {
      fail(`${replica} voted for ${before.votedFor} and for ${what.votedFor} in term ${what.term} of ${history}`);
    }
    const votedFor = what.term > before.term ? what.votedFor : (what.votedFor ?? before.votedFor);
    const term = Math.max(what.term, before.term);
    if (what.term >= before.term) histories.set(history, { ...before, ...what, votedFor, term });
    said.set(replica, histories);
  }

  const checker: Checker = {
    name: 'nothing-forgotten',
    observed: () => observed,
    onSend(node, _to, message) {
      if (message.kind !== 'raft') return;
      const { shard, generation, from, to, message: inner } = message;
      const history = `${shard}/${generation.number}:${generation.hash}`;
      if (inner.kind === 'voted' && inner.granted && !inner.pre) {
        remember(from, history, { term: inner.term, votedFor: to });
      } else if (inner.kind === 'appended' && inner.accepted) {
        remember(from, history, { term: inner.term, ackedIndex: inner.index, ackedTerm: inner.term });
      } else if (inner.kind === 'appended' && inner.refusedIndex > 0) {
        // What it has in common with this term's leader does not shrink while the term lasts, unless it left the group, and
        // remembers where its log ended.
        const before = said.get(from)?.get(history);
        if (before?.ackedTerm !== inner.term || inner.index >= before.ackedIndex) return;
        const forgotten = node.peer()?.coordination.groupOf(shard)?.disk().forgotten.index ?? 0;
        if (forgotten < before.ackedIndex) {
          fail(
            `${from} acknowledged ${before.ackedIndex} of ${history} in term ${inner.term} and holds ${inner.index}`,
          );
        }
      }
    },
    onBoot(node) {
      const replica = `${node.id}~${node.disk().generation}`;
      const histories = said.get(replica);
      const peer = node.peer();
      if (!histories || !peer) return;
      const kept = new Map<string, Kept>();
      const newest = new Map<number, number>();
      for (const { of, record } of peer.checkpoint(node.clock.nowMs())) {
        if (of !== 'coordination') continue;
        const inner = record.record;
        const { shard, generation } = record.kind === 'group' ? record : record.record;
        const history = `${shard}/${generation.number}:${generation.hash}`;
        const group = kept.get(history) ?? { term: 0, vote: undefined, lastIndex: 0, superseded: false };
        kept.set(history, group);
        newest.set(shard, Math.max(newest.get(shard) ?? 0, generation.number));
        if (inner.kind === 'hardState') {
          group.term = inner.term;
          group.vote = inner.vote;
        } else if (inner.kind === 'append') group.lastIndex = inner.entries.at(-1)?.index ?? group.lastIndex;
        else if (inner.kind === 'snapshot') group.lastIndex = Math.max(group.lastIndex, inner.snapshot.index);
        else if (inner.kind === 'removed') group.lastIndex = Math.max(group.lastIndex, inner.forgotten.index);
        else if (inner.kind === 'superseded') group.superseded = true;
      }
      for (const [history, one] of histories) {
        const group = kept.get(history) ?? { term: 0, vote: undefined, lastIndex: 0, superseded: false };
        const [shard, number] = history.split(/[/:]/).map(Number) as [number, number];
        // No older history than the newest that it knows begins again there, so nothing of them has to be kept.
        if (group.superseded || number < (newest.get(shard) ?? 0)) continue;
        observed += 1;
        if (group.term < one.term)
          fail(`${replica} spoke in term ${one.term} of ${history} and came back in ${group.term}`);
        if (group.term === one.term && one.votedFor !== undefined && group.vote !== one.votedFor) {
          fail(`${replica} voted for ${one.votedFor} in term ${one.term} of ${history} and remembers ${group.vote}`);
        }
        if (group.term === one.ackedTerm && group.lastIndex < one.ackedIndex) {
          fail(`${replica} acknowledged ${one.ackedIndex} of ${history} and has ${group.lastIndex}`);
        }
      }
    },
  };
  return checker;
};
