/** Every queue of every node stays within its bound. */
import { submitterLimits } from '../../mesh/core/agents/limits.ts';
import { newsMax } from '../../mesh/core/membership/limits.ts';
import type { CheckerFactory } from './checker.ts';

/** Messages held back by one disk: what one slow sync can gather. */
const heldBackMax = 50_000;
const runsPerSlot = 8;

export const bounds: CheckerFactory = (world, fail) => {
  let observed = 0;
  return {
    name: 'bounds',
    observed: () => observed,
    onSecond() {
      for (const node of world.nodes) {
        const peer = node.peer();
        const driver = node.driver();
        if (!peer || !driver) continue;
        observed += 1;
        const { membership, submitter } = peer;
        if (membership.rumoursWaiting() > newsMax) fail(`${node.id}: ${membership.rumoursWaiting()} rumours wait`);
        if (submitter.waiting() > submitterLimits.requestsMax) fail(`${node.id}: ${submitter.waiting()} requests`);
        if (driver.heldBack() > heldBackMax) fail(`${node.id}: ${driver.heldBack()} messages wait for the disk`);
        if (node.runs().size > node.model.slots * runsPerSlot) fail(`${node.id}: ${node.runs().size} runs`);
      }
    },
  };
};
