/** No node stores more than its disk is allowed to hold. */
import type { BlobCheckerFactory } from './checker.ts';

export const diskBudget: BlobCheckerFactory = (world, fail) => {
  let observed = 0;
  let evicted = 0;
  return {
    name: 'disk-budget',
    observed: () => observed,
    sometimes: () => ({ 'blob evicted': evicted }),
    onWork(_node, effect) {
      if (effect.kind === 'evict') evicted += 1;
    },
    onSecond() {
      for (const node of world.nodes) {
        if (node.state() !== 'up') continue;
        observed += 1;
        let bytes = 0;
        for (const { sizeBytes } of node.disk().blobs.values()) bytes += sizeBytes;
        if (bytes > node.model.capacityBytes) fail(`${node.id} stores ${bytes} of ${node.model.capacityBytes} bytes`);
      }
    },
  };
};
