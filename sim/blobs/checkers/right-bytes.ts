/** No wrong byte reaches a reader: what is said to be fetched is in the store, and is what its digest says. */
import type { BlobCheckerFactory } from './checker.ts';

export const rightBytes: BlobCheckerFactory = (_world, fail) => {
  let observed = 0;
  let wrong = 0;
  let benched = 0;
  return {
    name: 'right-bytes',
    observed: () => observed,
    sometimes: () => ({ 'wrong bytes refused': wrong, 'liar benched': benched }),
    onWork(_node, effect) {
      if (effect.kind === 'note' && effect.note.kind === 'benched' && effect.note.reason === 'wrong') benched += 1;
      if (effect.kind === 'discard') wrong += 1;
    },
    onReadEnd({ node, blob }, end) {
      if (end !== 'fetched') return;
      observed += 1;
      const stored = node.disk().blobs.get(blob);
      if (!stored) fail(`${node.id} was told that ${blob} is here, and it is not`);
      if (!stored?.good) fail(`${node.id} reads wrong bytes as ${blob}`);
    },
  };
};
