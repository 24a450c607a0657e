/** Once everything healed and settled, every blob with a live holder is found, and fetched when it is wanted. */
import { recordKeepers } from '../../../mesh/core/providers/limits.ts';
import { placeOf } from '../../../mesh/core/providers/places.ts';
import type { BlobNode } from '../node.ts';
import type { BlobCheckerFactory, Reading } from './checker.ts';

export const foundAfterHealing: BlobCheckerFactory = (world, fail) => {
  let observed = 0;
  let revived = 0;
  let reconciled = 0;
  const held = new Map<Reading, readonly BlobNode[]>();
  const afterMs = world.plan.chaosMs + world.plan.settleMs;
  const trusted = (nodes: readonly BlobNode[]): BlobNode[] => nodes.filter((node) => !world.offended(node));
  return {
    name: 'found-after-healing',
    observed: () => observed,
    sometimes: () => ({ 'generation revived': revived, 'keeper reconciled': reconciled }),
    onWork(_node, effect) {
      if (effect.kind !== 'note') return;
      if (effect.note.kind === 'revived' && effect.note.records > 0) revived += 1;
      if (effect.note.kind === 'reconciled') reconciled += 1;
    },
    onFound(asker, { blob, holders }, then) {
      const still = trusted(then).filter((node) => node.disk().blobs.get(blob)?.good === true);
      if (still.length === 0) return;
      observed += 1;
      if (still.some((node) => holders.includes(node.id))) return;
      const ring = asker.sharing()?.providers.ring();
      const keepers = ring?.nearest(placeOf(blob), recordKeepers).map((index) => ring.nodes[index]) ?? [];
      const said = world.nodes
        .filter(({ id }) => keepers.includes(id))
        .map((node) => `${node.id} names ${node.sharing()?.providers.knows(blob).join(' ') || 'nobody'}`);
      fail(
        `${asker.id} found ${holders.join(' ') || 'nobody'} with ${blob}, which ${still.map(({ id }) => id).join(' ')} hold; ${said.join(', ')}`,
      );
    },
    onRead(reading) {
      if (world.nowMs() >= afterMs) held.set(reading, trusted(world.holders(reading.blob)));
    },
    onReadEnd(reading, end) {
      const then = held.get(reading);
      held.delete(reading);
      if (!then || end === 'fetched') return;
      const still = then.filter((node) => node.disk().blobs.get(reading.blob)?.good === true);
      if (still.length === 0) return;
      observed += 1;
      fail(`${reading.node.id} could not fetch ${reading.blob} (${end}) from ${still.map(({ id }) => id).join(' ')}`);
    },
  };
};
