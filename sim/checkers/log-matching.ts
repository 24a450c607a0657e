/**
 * Two logs of one history that have an entry of the same index and term are equal up to it; and a new leader's log has
 * every entry that was committed before its term (Raft, figure 3.2: log matching and leader completeness).
 */
import type { SimNode } from '../node.ts';
import type { CheckerFactory } from './checker.ts';

/** Newest entries looked at in each log; older ones were looked at before. */
const depth = 16;
const everySeconds = 3;

export const logMatching: CheckerFactory = (world, fail) => {
  const entries = new Map<string, string>();
  const committed = new Map<string, Map<number, number>>();
  const texts = new WeakMap<object, string>();
  // The last entry of each replica's log when it was looked at; a log with the same end has not changed.
  const ends = new WeakMap<object, object>();
  let observed = 0;
  let seconds = 0;

  function textOf(data: object): string {
    let text = texts.get(data);
    if (text === undefined) texts.set(data, (text = JSON.stringify(data)));
    return text;
  }

  function look(node: SimNode, shard: number): void {
    const group = node.peer()?.coordination.groupOf(shard);
    if (!group) return;
    const history = `${shard}/${group.generation.number}:${group.generation.hash}`;
    const log = group.disk().entries;
    const end = log.at(-1);
    if (!end || ends.get(group) === end) return;
    ends.set(group, end);
    for (let at = Math.max(1, log.length - depth); at < log.length; at++) {
      const [before, entry] = [log[at - 1], log[at]];
      if (!before || !entry) continue;
      observed += 1;
      const place = `${history} ${entry.index} ${entry.term}`;
      const content = `${before.term} ${textOf(entry.data)}`;
      const known = entries.get(place);
      if (known === undefined) entries.set(place, content);
      else if (known !== content) fail(`${node.id} has another entry at ${place} than somebody had before`);
    }
  }

  return {
    name: 'log-matching',
    observed: () => observed,
    onNote(node, note) {
      if (note.kind === 'applied') {
        const history = `${note.shard}/${note.generation.number}:${note.generation.hash}`;
        const terms = committed.get(history) ?? new Map<number, number>();
        terms.set(note.index, note.term);
        committed.set(history, terms);
      }
      if (note.kind !== 'role' || note.role !== 'leader') return;
      const history = `${note.shard}/${note.generation.number}:${note.generation.hash}`;
      const group = node.peer()?.coordination.groupOf(note.shard);
      if (!group) return;
      const { snapshot, entries: log } = group.disk();
      const first = snapshot?.index ?? 0;
      for (const [index, term] of committed.get(history) ?? []) {
        if (index <= first || term >= note.term) continue;
        observed += 1;
        const held = log[index - (log[0]?.index ?? 0)];
        if (held?.index !== index || held.term !== term) {
          fail(`${node.id} leads ${history} in term ${note.term} without entry ${index} of term ${term}`);
        }
      }
    },
    onSecond() {
      seconds += 1;
      if (seconds % everySeconds !== 0) return;
      for (const node of world.nodes) for (let shard = 0; shard < world.shards; shard++) look(node, shard);
    },
  };
};
