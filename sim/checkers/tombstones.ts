/**
 * What was found wrong stays gone, in its own history and in the one that takes it in; and a result without a claim fills
 * only an empty register. Followed write by write in the order of each history's log, by rules much simpler than the
 * registers' own.
 */
import type { ActionKey, Generation, Token } from '../../mesh/core/ids.ts';
import type { CheckerFactory } from './checker.ts';

interface Kept {
  readonly index: number;
  /** The result it names, or named before it was dropped. */
  readonly result: string;
  readonly dropped: boolean;
  /** Dropped because its blobs were gone; whoever made them again may name it again. */
  readonly lost: boolean;
  readonly token: Token | undefined;
  /** The results that this history found wrong. */
  readonly wrong: readonly string[];
}

export const tombstones: CheckerFactory = (_world, fail) => {
  // By history, then by key.
  const histories = new Map<string, Map<ActionKey, Kept>>();
  let observed = 0;

  // Offers that reached a leader and were not answered: to which history they go, and what they say is wrong.
  const offers = new Map<string, { readonly history: string; readonly wrong: Map<ActionKey, string> }>();

  return {
    name: 'tombstones',
    observed: () => observed,
    onReceive(node, from, message) {
      if (message.kind !== 'offerRegisters') return;
      const group = node.peer()?.coordination.groupOf(message.shard);
      if (!group) return;
      const wrong = new Map<ActionKey, string>();
      for (const { key, register } of message.registers) {
        if (register.kind === 'tombstone' && register.reason !== 'lost') wrong.set(key, register.result);
      }
      offers.set(`${from} ${message.id}`, { history: nameOf(message.shard, group.generation), wrong });
    },
    onSend(node, to, message) {
      if (message.kind !== 'written') return;
      const offer = offers.get(`${to} ${message.id}`);
      if (!offer) return;
      offers.delete(`${to} ${message.id}`);
      for (const [key, result] of offer.wrong) {
        observed += 1;
        const there = histories.get(offer.history)?.get(key);
        if (there && (there.result !== result || there.wrong.includes(result))) continue;
        fail(`${node.id} took in what another history knows to be wrong, and ${offer.history} does not: ${result}`);
      }
    },
    onNote(node, note) {
      if (note.kind !== 'registerWritten' || note.outcome !== 'accepted') return;
      const history = nameOf(note.shard, note.generation);
      const registers = histories.get(history) ?? new Map<ActionKey, Kept>();
      histories.set(history, registers);
      const before = registers.get(note.key);
      if (before && before.index >= note.index) return;
      const register = node.peer()?.coordination.groupOf(note.shard)?.registers.get(note.key);
      if (!register) return;
      observed += 1;
      const dropped = register.kind === 'tombstone';
      const lost = register.kind === 'tombstone' && register.reason === 'lost';
      const { result, token } = register;
      const wrong = dropped && !lost ? [...(before?.wrong ?? []), result] : (before?.wrong ?? []);
      registers.set(note.key, { index: note.index, result, dropped, lost, token, wrong });
      if (!before || dropped) return;
      const what = `${note.command} of ${register.result} at ${history} ${note.key}`;
      if (note.command === 'publish' && !before.dropped && before.result !== register.result) {
        fail(`${what} replaced ${before.result}`);
      }
      if (note.command === 'offer' && !before.dropped && before.result !== register.result) {
        fail(`${what} replaced ${before.result}`);
      }
      const again = before.dropped && !before.lost && before.result === register.result;
      if ((note.command === 'publish' || note.command === 'offer') && again) {
        fail(`${what} brought back what had been dropped`);
      }
    },
  };
};

function nameOf(shard: number, { number, hash }: Generation): string {
  return `${shard}/${number}:${hash}`;
}
