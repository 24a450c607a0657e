/** However many want one blob at once, its source sends it only a few times; the others get it from each other. */
import type { BlobKey } from '../../../mesh/core/ids.ts';
import type { BlobCheckerFactory } from './checker.ts';

/** Copies that leave the source, at most: a few at once, and one for so many readers; and when that says something. */
const copiesAtOnce = 4;
const readersPerCopy = 4;
const readersMin = 6;

export const stampedeBounded: BlobCheckerFactory = (_world, fail) => {
  let observed = 0;
  const stampedes = new Map<
    BlobKey,
    { source: number; readers: number; sizeBytes: number; sent: number; again: number }
  >();
  return {
    name: 'stampede-bounded',
    observed: () => observed,
    onWork(_node, effect) {
      // Somebody threw away what it had, because a liar's range was among it: it fetches the whole once more.
      const stampede = effect.kind === 'discard' ? stampedes.get(effect.blob) : undefined;
      if (stampede) stampede.again += 1;
    },
    onStampede({ node, readers, sizesBytes }, blob) {
      stampedes.set(blob, {
        source: node,
        readers: readers.length,
        sizeBytes: sizesBytes[0] as number,
        sent: 0,
        again: 0,
      });
    },
    onSent(from, _to, parts, bytes) {
      const blob = parts[0]?.blob as BlobKey;
      const stampede = stampedes.get(blob);
      if (stampede?.source !== from.index || parts.length > 1) return;
      stampede.sent += bytes;
      if (stampede.readers < readersMin) return;
      observed += 1;
      const copies = stampede.sent / stampede.sizeBytes;
      const allowed = copiesAtOnce + stampede.readers / readersPerCopy + stampede.again;
      if (copies > allowed) fail(`${from.id} sent ${blob} ${copies.toFixed(1)} times to ${stampede.readers} readers`);
    },
  };
};
