/** No guest's action makes progress on a machine later than `yieldMs` after its owner came back. */
import type { SimNode } from '../node.ts';
import type { CheckerFactory } from './checker.ts';

const yieldMs = 200;

export const ownerFirst: CheckerFactory = (world, fail) => {
  let observed = 0;

  function check(node: SimNode): void {
    if (!node.ownerPresent() || node.state() !== 'up') return;
    for (const run of node.runs().values()) {
      if (!run.effect.guest) continue;
      observed += 1;
      if (run.runningSinceUs !== undefined)
        fail(`${node.id} runs ${run.effect.key} for a guest, and its owner is back`);
    }
  }

  return {
    name: 'owner-first',
    observed: () => observed,
    onOwner(node, present) {
      if (!present) return;
      observed += 1;
      world.after(yieldMs, () => check(node));
    },
    onRun(node, effect) {
      // A machine that just woke up may not have looked for its owner yet.
      if (effect.guest && node.ownerPresent()) world.after(yieldMs, () => check(node));
    },
    onSecond() {
      for (const node of world.nodes) check(node);
    },
  };
};
