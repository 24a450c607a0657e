/** What was promised to another node is not evicted before the promise ends, and pins stay within their budget. */
import { pinBudgetPercent } from '../../mesh/core/promises/limits.ts';
import type { SimNode } from '../node.ts';
import type { CheckerFactory } from './checker.ts';

export const pinsKept: CheckerFactory = (world, fail) => {
  const promisedUntilMs = new Map<string, number>();
  let observed = 0;
  let refused = 0;
  return {
    name: 'pins-kept',
    observed: () => observed,
    sometimes: () => ({ 'promise refused': refused }),
    onFault(fault) {
      // What the disk lost is promised no more; made again, it is a new blob.
      if (fault.kind !== 'blobsLost') return;
      world.after(0, () => {
        for (const index of fault.nodes) {
          const node = world.nodes[index] as SimNode;
          const disk = `${node.id} ${node.disk().generation} `;
          for (const name of promisedUntilMs.keys()) {
            if (name.startsWith(disk) && !node.disk().blobs.has(name.slice(disk.length))) promisedUntilMs.delete(name);
          }
        }
      });
    },
    onNote(node, note) {
      if (note.kind === 'pinRefused' && note.reason === 'budget') refused += 1;
      if (note.kind !== 'pinned' || note.purpose === 'ownClient') return;
      observed += 1;
      const blob = `${node.id} ${node.disk().generation} ${note.blob}`;
      // Clocks may run fast by some percent; that much earlier the promise may end.
      const forMs = Math.trunc((note.untilMs - node.clock.nowMs()) * 0.95);
      promisedUntilMs.set(blob, Math.max(promisedUntilMs.get(blob) ?? 0, world.nowMs() + forMs));
    },
    onEvicted(node, blob) {
      observed += 1;
      const untilMs = promisedUntilMs.get(`${node.id} ${node.disk().generation} ${blob}`) ?? 0;
      if (world.nowMs() < untilMs) fail(`${node.id} evicted ${blob}, promised for ${untilMs - world.nowMs()} ms more`);
    },
    onSecond() {
      for (const node of world.nodes) {
        const promises = node.peer()?.promises;
        if (!promises) continue;
        const budgetBytes = (node.model.capacityBytes / 100) * pinBudgetPercent;
        if (promises.pinnedBytes() > budgetBytes)
          fail(`${node.id} pinned ${promises.pinnedBytes()} of ${budgetBytes} bytes`);
        if (promises.pinnedBytes() + promises.reservedBytes() > node.model.capacityBytes) {
          fail(`${node.id} promised more than its disk holds`);
        }
      }
    },
  };
};
