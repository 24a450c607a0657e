import fc from 'fast-check';
import { expect, test } from 'vitest';
import { pinBudgetPercent, reachPercent } from '../../../../mesh/core/promises/limits.ts';
import {
  createPromises,
  type PromiseEffect,
  type PromiseEvent,
  type Promises,
} from '../../../../mesh/core/promises/promises.ts';

const capacityBytes = 1_000;
const budgetBytes = (capacityBytes * pinBudgetPercent) / 100;

function create(): Promises {
  let persists = 0;
  return createPromises({ capacityBytes, nextPersistId: () => ++persists });
}

function store(promises: Promises, blob: string, sizeBytes: number, nowMs = 0): readonly PromiseEffect[] {
  return promises.step({ kind: 'stored', blob, sizeBytes }, nowMs);
}

test('what is pinned outlives what is not, whatever its age', () => {
  const promises = create();
  store(promises, 'old', 300);
  promises.step({ kind: 'pin', id: 1, blob: 'old', purpose: 'ownClient', forMs: 1_000 }, 0);
  store(promises, 'middle', 300);
  store(promises, 'new', 300);
  expect(store(promises, 'newest', 300)).toEqual([{ kind: 'evict', blob: 'middle' }]);
  expect(promises.holds('old')).toBe(true);
});

test('a pin ends with its time, and the blob can go then', () => {
  const promises = create();
  store(promises, 'a', 500);
  promises.step({ kind: 'pin', id: 1, blob: 'a', purpose: 'ownClient', forMs: 1_000 }, 0);
  store(promises, 'b', 500, 999);
  expect(store(promises, 'c', 100, 999)).toEqual([{ kind: 'evict', blob: 'b' }]);
  expect(store(promises, 'd', 500, 1_000)).toEqual([{ kind: 'evict', blob: 'a' }]);
});

test('a promise to another node is given only when it is on disk', () => {
  const promises = create();
  store(promises, 'a', 100);
  const effects = promises.step({ kind: 'pin', id: 7, blob: 'a', purpose: 'handOver', forMs: 1_000 }, 0);
  expect(effects).toEqual([
    { kind: 'persist', id: 1, record: { kind: 'pin', id: 7, blob: 'a', purpose: 'handOver', forMs: 1_000 } },
  ]);
  expect(promises.step({ kind: 'persisted', id: 1 }, 5)).toEqual([
    { kind: 'pinned', id: 7, blob: 'a', purpose: 'handOver', untilMs: 1_000 },
  ]);
});

test('promises to others are kept across a restart, for their whole time again', () => {
  const promises = create();
  store(promises, 'a', 100);
  promises.step({ kind: 'pin', id: 7, blob: 'a', purpose: 'replica', forMs: 1_000 }, 0);
  const config = { capacityBytes, nextPersistId: () => 1 };
  const again = createPromises(config, 50, [['a', 100]], promises.checkpoint(600));
  expect(again.pinnedUntilMs('a')).toBe(450);
  const released = createPromises(config, 50, [['a', 100]], [...promises.checkpoint(600), { kind: 'unpin', id: 7 }]);
  expect(released.pinnedUntilMs('a')).toBeUndefined();
});

test('a purpose of lower precedence is refused first', () => {
  const promises = create();
  for (let i = 0; i < 10; i++) store(promises, `b${i}`, 60);
  let id = 0;
  for (const purpose of ['seed', 'replica', 'handOver', 'ownClient'] as const) {
    for (let i = 0; i < 10; i++) {
      promises.step({ kind: 'pin', id: ++id, blob: `b${i}`, purpose, forMs: 9_000 }, 0);
    }
    expect(promises.pinnedBytes()).toBeLessThanOrEqual((budgetBytes * reachPercent[purpose]) / 100);
    expect(promises.pinnedBytes()).toBeGreaterThan((budgetBytes * reachPercent[purpose]) / 100 - 60);
  }
  store(promises, 'late', 60);
  expect(promises.step({ kind: 'pin', id: 99, blob: 'late', purpose: 'ownClient', forMs: 1 }, 0)).toEqual([
    { kind: 'pinRefused', id: 99, blob: 'late', reason: 'budget' },
  ]);
});

test('space is set aside before it is needed, and refused when pins and reservations leave none', () => {
  const promises = create();
  store(promises, 'a', 600);
  promises.step({ kind: 'pin', id: 1, blob: 'a', purpose: 'ownClient', forMs: 1_000 }, 0);
  expect(promises.step({ kind: 'reserve', id: 1, sizeBytes: 300 }, 0)).toContainEqual({ kind: 'reserved', id: 1 });
  expect(promises.step({ kind: 'reserve', id: 2, sizeBytes: 200 }, 0)).toEqual([{ kind: 'reserveRefused', id: 2 }]);
  promises.step({ kind: 'stored', blob: 'out', sizeBytes: 250, reservation: 1 }, 0);
  expect(promises.reservedBytes()).toBe(0);
});

test('a blob that is not here cannot be promised, and one that was lost is promised no longer', () => {
  const promises = create();
  expect(promises.step({ kind: 'pin', id: 1, blob: 'x', purpose: 'handOver', forMs: 1 }, 0)).toEqual([
    { kind: 'pinRefused', id: 1, blob: 'x', reason: 'absent' },
  ]);
  store(promises, 'x', 100);
  promises.step({ kind: 'pin', id: 2, blob: 'x', purpose: 'handOver', forMs: 1_000 }, 0);
  // Whoever waits for the disk is told at once.
  expect(promises.step({ kind: 'gone', blob: 'x' }, 1)).toEqual([
    { kind: 'pinRefused', id: 2, blob: 'x', reason: 'absent' },
  ]);
  expect(promises.pinnedBytes()).toBe(0);
  expect(promises.step({ kind: 'persisted', id: 1 }, 2)).toEqual([]);
});

test('whatever happens, sums are right, budgets hold and no pinned blob is evicted', () => {
  const blob = fc.constantFrom('a', 'b', 'c', 'd', 'e', 'f');
  const id = fc.integer({ min: 1, max: 8 });
  const event: fc.Arbitrary<PromiseEvent> = fc.oneof(
    fc.record({ kind: fc.constant('stored' as const), blob, sizeBytes: fc.integer({ min: 1, max: 400 }) }),
    fc.record({ kind: fc.constant('gone' as const), blob }),
    fc.record({
      kind: fc.constant('pin' as const),
      id: fc.integer({ min: 1, max: 1_000_000 }),
      blob,
      purpose: fc.constantFrom('ownClient' as const, 'handOver' as const, 'replica' as const, 'seed' as const),
      forMs: fc.integer({ min: 1, max: 50 }),
    }),
    fc.record({ kind: fc.constant('unpin' as const), id }),
    fc.record({ kind: fc.constant('reserve' as const), id, sizeBytes: fc.integer({ min: 1, max: 400 }) }),
    fc.record({ kind: fc.constant('release' as const), id }),
  );
  fc.assert(
    fc.property(fc.array(event, { maxLength: 80 }), (events) => {
      const promises = create();
      const sizes = new Map<string, number>();
      for (const [nowMs, one] of events.entries()) {
        const pinnedBefore = new Set(
          [...promises.pins()].filter(({ untilMs }) => untilMs > nowMs).map((pin) => pin.blob),
        );
        if (one.kind === 'stored' && !sizes.has(one.blob)) sizes.set(one.blob, one.sizeBytes);
        if (one.kind === 'gone') sizes.delete(one.blob);
        for (const effect of promises.step(one, nowMs)) {
          if (effect.kind !== 'evict') continue;
          expect(pinnedBefore.has(effect.blob)).toBe(false);
          sizes.delete(effect.blob);
        }
        const held = [...promises.blobs()];
        expect(promises.heldBytes()).toBe(held.reduce((sum, key) => sum + (sizes.get(key) ?? Number.NaN), 0));
        const pinned = new Set([...promises.pins()].map((pin) => pin.blob));
        expect(promises.pinnedBytes()).toBe([...pinned].reduce((sum, key) => sum + (sizes.get(key) ?? 0), 0));
        expect(promises.pinnedBytes()).toBeLessThanOrEqual(budgetBytes);
        expect(promises.pinnedBytes() + promises.reservedBytes()).toBeLessThanOrEqual(capacityBytes);
      }
    }),
    { numRuns: 300 },
  );
});

test('a pin of a result counts with all that the result names, after a restart too', () => {
  let persists = 0;
  const promises = createPromises({ capacityBytes: 1_000, nextPersistId: () => ++persists });
  promises.step({ kind: 'stored', blob: 'result', sizeBytes: 1 }, 0);
  promises.step({ kind: 'stored', blob: 'result', sizeBytes: 300, closureBytes: 300 }, 0);
  expect(promises.heldBytes()).toBe(1);
  const [persist] = promises.step({ kind: 'pin', id: 1, blob: 'result', purpose: 'replica', forMs: 1_000 }, 0);
  expect(promises.pinnedBytes()).toBe(300);
  const record = persist?.kind === 'persist' ? [persist.record] : [];
  for (const records of [record, promises.checkpoint(0)]) {
    const again = createPromises({ capacityBytes: 1_000, nextPersistId: () => 1 }, 0, [['result', 1]], records);
    expect(again.pinnedBytes()).toBe(300);
  }
  promises.step({ kind: 'unpin', id: 1 }, 1);
  expect(promises.pinnedBytes()).toBe(0);
});
