/** No node sends more than its upload budget: in every life, the rate times the time, one burst, and one request. */
import { uploadBurstMs } from '../../../mesh/core/fetch/limits.ts';
import type { BlobNode } from '../node.ts';
import type { BlobCheckerFactory } from './checker.ts';

export const uploadBudget: BlobCheckerFactory = (world, fail) => {
  let observed = 0;
  let refused = 0;
  const tallies = new Map<BlobNode, { life: number; bytes: number; largest: number }>();
  return {
    name: 'upload-budget',
    observed: () => observed,
    sometimes: () => ({ 'busy, try another': refused }),
    onWork(_node, effect) {
      if (effect.kind === 'refuse' && effect.tryNodes.length > 0) refused += 1;
    },
    onSent(from, _to, parts, bytes) {
      observed += 1;
      const tally = tallies.get(from) ?? { life: from.life(), bytes: 0, largest: 0 };
      tallies.set(from, tally);
      if (tally.life !== from.life()) Object.assign(tally, { life: from.life(), bytes: 0 });
      tally.bytes += bytes;
      const asked = parts.reduce((sum, { lengthBytes }) => sum + lengthBytes, 0);
      tally.largest = Math.max(tally.largest, asked + 200 * parts.length);
      const forMs = world.nowMs() - from.bootedAtMs() + uploadBurstMs;
      // Headers are not in the machine's count; they are in the network's.
      const allowed = Math.ceil((from.model.uploadBytesPerSecond * forMs) / 990) + tally.largest;
      if (tally.bytes > allowed) fail(`${from.id} sent ${tally.bytes} bytes where ${allowed} were allowed`);
    },
  };
};
