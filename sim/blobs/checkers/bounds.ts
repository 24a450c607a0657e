/** Transfers, fetches and records of every node stay within their bounds, and hedges stay few. */
import { fetchesMax, hedgePercentOfTransfers, hedgesFree, transfersMax } from '../../../mesh/core/fetch/limits.ts';
import { recordsMax } from '../../../mesh/core/providers/limits.ts';
import type { BlobNode } from '../node.ts';
import type { BlobCheckerFactory } from './checker.ts';

export const blobBounds: BlobCheckerFactory = (world, fail) => {
  let observed = 0;
  let hedgeWon = 0;
  let failedOver = 0;
  const tallies = new Map<BlobNode, { life: number; transfers: number; hedges: number }>();
  return {
    name: 'bounds',
    observed: () => observed,
    sometimes: () => ({ 'hedge won': hedgeWon, 'stripe fail-over': failedOver }),
    onWork(node, effect) {
      if (effect.kind !== 'transfer' && effect.kind !== 'note') return;
      let tally = tallies.get(node);
      if (tally?.life !== node.life()) tallies.set(node, (tally = { life: node.life(), transfers: 0, hedges: 0 }));
      if (effect.kind === 'transfer') tally.transfers += 1;
      else if (effect.note.kind === 'hedged') tally.hedges += 1;
      else if (effect.note.kind === 'hedgeWon') hedgeWon += 1;
      else if (effect.note.kind === 'failedOver') failedOver += 1;
      const allowed = hedgesFree + (tally.transfers * hedgePercentOfTransfers) / 100;
      if (tally.hedges > allowed) fail(`${node.id} hedged ${tally.hedges} of ${tally.transfers} transfers`);
    },
    onSecond() {
      for (const node of world.nodes) {
        const sharing = node.sharing();
        if (!sharing) continue;
        observed += 1;
        const { planner, providers } = sharing;
        if (planner.transfers() > transfersMax) fail(`${node.id}: ${planner.transfers()} transfers`);
        if (planner.fetching() > fetchesMax) fail(`${node.id}: ${planner.fetching()} fetches`);
        if (providers.records() > recordsMax) fail(`${node.id}: ${providers.records()} records`);
      }
    },
  };
};
