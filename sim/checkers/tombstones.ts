/**
 * What was found wrong stays gone, and a result without a claim fills only an empty register. Followed write by write in
 * the order of each history's log, by rules much simpler than the registers' own.
 */
import type { Token } from '../../mesh/core/ids.ts';
import type { CheckerFactory } from './checker.ts';

interface Kept {
  readonly index: number;
  /** The result it names, or named before it was dropped. */
  readonly result: string;
  readonly dropped: boolean;
  /** Dropped because its blobs were gone; whoever made them again may name it again. */
  readonly lost: boolean;
  readonly token: Token | undefined;
}

export const tombstones: CheckerFactory = (_world, fail) => {
  const registers = new Map<string, Kept>();
  let observed = 0;
  return {
    name: 'tombstones',
    observed: () => observed,
    onNote(node, note) {
      if (note.kind !== 'registerWritten' || note.outcome !== 'accepted') return;
      const name = `${note.shard}/${note.generation.number}:${note.generation.hash} ${note.key}`;
      const before = registers.get(name);
      if (before && before.index >= note.index) return;
      const register = node.peer()?.coordination.groupOf(note.shard)?.registers.get(note.key);
      if (!register) return;
      observed += 1;
      const dropped = register.kind === 'tombstone';
      const lost = register.kind === 'tombstone' && register.reason === 'lost';
      registers.set(name, { index: note.index, result: register.result, dropped, lost, token: register.token });
      if (!before || dropped) return;
      const what = `${note.command} of ${register.result} at ${name}`;
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
