// Goal: everything that a superseded history holds is offered until it was answered, and waiting for that costs nothing.
// Method: the machine alone; the test is the other history's leader.
import { expect, test } from 'vitest';
import type { NodeId } from '../../../../mesh/core/ids.ts';
import { registerLimits, shardLimits } from '../../../../mesh/core/limits.ts';
import type { RegisterMessage } from '../../../../mesh/core/registers/messages.ts';
import { createMerging, type Heirloom } from '../../../../mesh/core/shards/merging.ts';

const tombstone = {
  kind: 'tombstone',
  result: 'r',
  reason: 'wrong',
  token: undefined,
  nonDeterministic: false,
} as const;
const heirloom = (count: number): Heirloom => ({
  shard: 0,
  generation: { number: 1, hash: 1, forced: false },
  registers: Array.from({ length: count }, (_, i) => ({ key: `k${i}`, register: tombstone })),
});

function boot(start: { leader?: NodeId; known?: boolean }) {
  const world = { known: true, leader: undefined as NodeId | undefined, ...start };
  const sent: Extract<RegisterMessage, { kind: 'offerRegisters' }>[] = [];
  const done: number[] = [];
  let id = 0;
  const merging = createMerging(
    {
      leaderOf: () => world.leader,
      survivorKnown: () => world.known,
      send: (_, message) => void (message.kind === 'offerRegisters' && sent.push(message)),
      done: (_, accepted) => void done.push(accepted),
    },
    () => ++id,
  );
  return { world, sent, done, merging };
}

test('batches follow each other as they are answered; an unanswered one is sent again', () => {
  const { sent, done, merging } = boot({ leader: 'ann' });
  merging.add(heirloom(registerLimits.registersPerOffer + 3), 0);
  merging.advance(0);
  expect(sent[0]?.registers).toHaveLength(registerLimits.registersPerOffer);
  merging.advance(shardLimits.offerRetryMs - 1);
  expect(sent).toHaveLength(1);
  merging.advance(shardLimits.offerRetryMs);
  expect(sent).toHaveLength(2);
  expect(merging.onWritten(sent[0]?.id ?? 0, 0, [], 4_000)).toBe(false);
  // Somebody else's answer under the same number, of another shard or of another size.
  expect(merging.onWritten(sent[1]?.id ?? 0, 1, ['accepted'], 4_000)).toBe(false);
  expect(merging.onWritten(sent[1]?.id ?? 0, 0, ['accepted'], 4_000)).toBe(false);
  merging.onWritten(
    sent[1]?.id ?? 0,
    0,
    Array.from({ length: registerLimits.registersPerOffer }, () => 'accepted' as const),
    4_000,
  );
  expect(sent[2]?.registers.map(({ key }) => key)).toEqual(['k256', 'k257', 'k258']);
  merging.onWritten(sent[2]?.id ?? 0, 0, ['accepted', 'occupied', 'same'], 4_000);
  expect(done).toEqual([registerLimits.registersPerOffer + 1]);
  expect(merging.dueAtMs).toBe(Number.POSITIVE_INFINITY);
});

test('without a leader, or before the surviving history is known, it waits and does not ask to be woken at once', () => {
  for (const start of [{ known: true }, { known: false, leader: 'ann' }]) {
    const { world, sent, done, merging } = boot(start);
    merging.add(heirloom(1), 100);
    merging.advance(100);
    expect(sent).toEqual([]);
    expect(merging.dueAtMs).toBe(100 + shardLimits.offerRetryMs);
    world.known = true;
    world.leader = 'ann';
    merging.advance(merging.dueAtMs);
    merging.onWritten(sent[0]?.id ?? 0, 0, ['accepted'], 9_000);
    expect(done).toEqual([1]);
  }
});

test('a history without registers is done once the surviving one is known', () => {
  const { world, done, merging } = boot({ known: false });
  merging.add(heirloom(0), 0);
  merging.advance(0);
  expect(done).toEqual([]);
  world.known = true;
  merging.advance(merging.dueAtMs);
  expect(done).toEqual([0]);
});
