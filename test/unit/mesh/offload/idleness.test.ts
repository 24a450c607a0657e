import { expect, test } from 'vitest';
import { createIdleness, type MachineSample } from '../../../../mesh/core/offload/idleness.ts';
import * as limits from '../../../../mesh/core/offload/limits.ts';
import { createYielding, type YieldingEffect } from '../../../../mesh/core/offload/yielding.ts';

const quiet: MachineSample = {
  ownerPermille: 20,
  inputAgoMs: 10 * 60_000,
  onBattery: false,
  hot: false,
  freeMemoryBytes: 8e9,
  metered: false,
};

/** Samples once a second; returns when the answer first was `until`, or undefined. */
function sampleUntil(
  sample: MachineSample,
  until: boolean,
  fromMs: number,
  of = createIdleness(false),
): number | undefined {
  for (let nowMs = fromMs; nowMs < fromMs + 600_000; nowMs += 1_000) {
    if (of.sample(sample, nowMs) === until) return nowMs - fromMs;
  }
  return undefined;
}

test('idle is entered slowly and left at least twice as fast', () => {
  const idleness = createIdleness(false);
  const enteredMs = sampleUntil(quiet, true, 0, idleness) as number;
  expect(enteredMs).toBe(limits.enterIdleMs);
  const leftMs = sampleUntil({ ...quiet, ownerPermille: 500 }, false, enteredMs + 1_000, idleness) as number;
  expect(leftMs).toBe(limits.leaveIdleMs);
  expect(leftMs * 2).toBeLessThanOrEqual(enteredMs);
});

test('a short peak of load does not end idleness, a load between the two bounds does not begin it', () => {
  const idleness = createIdleness(false);
  const fromMs = sampleUntil(quiet, true, 0, idleness) as number;
  for (let i = 1; i <= 120; i++) {
    const ownerPermille = i % 10 < 3 ? 900 : 20;
    expect(idleness.sample({ ...quiet, ownerPermille }, fromMs + i * 1_000)).toBe(true);
  }
  expect(sampleUntil({ ...quiet, ownerPermille: 150 }, true, 0)).toBeUndefined();
});

test.for([
  ['a key', { inputAgoMs: 100 }],
  ['battery', { onBattery: true }],
  ['heat', { hot: true }],
  ['little memory', { freeMemoryBytes: 1e9 }],
  ['a metered network', { metered: true }],
] as const)('%s ends idleness at once', ([, change]) => {
  const idleness = createIdleness(false);
  const nowMs = sampleUntil(quiet, true, 0, idleness) as number;
  expect(idleness.sample({ ...quiet, ...change }, nowMs + 1_000)).toBe(false);
});

test('a dedicated machine minds neither keyboard nor battery, but heat', () => {
  const idleness = createIdleness(true);
  const busyOwner = { ...quiet, inputAgoMs: 10, onBattery: true, metered: true };
  const nowMs = sampleUntil(busyOwner, true, 0, idleness);
  expect(nowMs).toBe(limits.enterIdleMs);
  expect(idleness.sample({ ...busyOwner, hot: true }, limits.enterIdleMs + 1_000)).toBe(false);
});

test('without samples the machine counts as in use, and quiet before the gap proves nothing', () => {
  const idleness = createIdleness(false);
  const nowMs = sampleUntil(quiet, true, 0, idleness) as number;
  expect(idleness.idle(nowMs + limits.sampleMsMax + 1)).toBe(false);
  const other = createIdleness(false);
  other.sample(quiet, 0);
  expect(other.sample(quiet, limits.enterIdleMs)).toBe(false);
});

const kinds = (effects: readonly YieldingEffect[]): string[] =>
  effects.filter(({ kind }) => kind !== 'wakeAt').map(({ kind }) => kind);

test('the owner returns: claiming stops and guests freeze at once, then they are given back, then killed', () => {
  const yielding = createYielding();
  yielding.step({ kind: 'guestStarted', run: 1 }, 0);
  const at = yielding.step({ kind: 'owner', present: true }, 1_000);
  expect(kinds(at)).toEqual(['claiming', 'freeze']);
  expect(at).toContainEqual({ kind: 'wakeAt', atMs: 1_000 + limits.giveBackAfterMs });
  expect(kinds(yielding.step({ kind: 'wake' }, 1_000 + limits.giveBackAfterMs))).toEqual(['giveBack']);
  expect(kinds(yielding.step({ kind: 'wake' }, 1_000 + limits.killAfterMs))).toEqual(['kill']);
  expect(kinds(yielding.step({ kind: 'owner', present: false }, 60_000))).toEqual(['claiming']);
});

test('an owner who goes again soon lets guests go on', () => {
  const yielding = createYielding();
  yielding.step({ kind: 'guestStarted', run: 1 }, 0);
  yielding.step({ kind: 'owner', present: true }, 1_000);
  expect(kinds(yielding.step({ kind: 'owner', present: false }, 2_000))).toEqual(['claiming', 'thaw']);
});

test('what was given back is killed, also when the owner goes before that', () => {
  const yielding = createYielding();
  yielding.step({ kind: 'guestStarted', run: 1 }, 0);
  yielding.step({ kind: 'owner', present: true }, 0);
  yielding.step({ kind: 'wake' }, limits.giveBackAfterMs);
  expect(kinds(yielding.step({ kind: 'owner', present: false }, limits.giveBackAfterMs + 10))).toEqual([
    'claiming',
    'kill',
  ]);
});

test('a guest that begins while the owner is there is frozen at once', () => {
  const yielding = createYielding();
  yielding.step({ kind: 'owner', present: true }, 0);
  expect(kinds(yielding.step({ kind: 'guestStarted', run: 7 }, 10))).toEqual(['freeze']);
});
