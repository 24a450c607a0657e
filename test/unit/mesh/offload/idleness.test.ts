import { expect, test } from 'vitest';
import { createIdleness, type MachineSample } from '../../../../mesh/core/offload/idleness.ts';
import * as limits from '../../../../mesh/core/offload/limits.ts';

const quiet: MachineSample = {
  ownerPermille: 20,
  inputAgoMs: 10 * 60_000,
  onBattery: false,
  hot: false,
  memoryBytes: 16 * 2 ** 30,
  freeMemoryBytes: 8e9,
  memoryPressed: false,
  metered: false,
};

/** Samples once a second; returns when the answer first was `until`, or undefined. */
function sampleUntil(
  sample: MachineSample,
  until: boolean,
  fromMs: number,
  of = createIdleness('idle'),
): number | undefined {
  for (let nowMs = fromMs; nowMs < fromMs + 600_000; nowMs += 1_000) {
    if (of.sample(sample, nowMs) === until) return nowMs - fromMs;
  }
  return undefined;
}

test('idle is entered slowly and left at least twice as fast', () => {
  const idleness = createIdleness('idle');
  const enteredMs = sampleUntil(quiet, true, 0, idleness) as number;
  expect(enteredMs).toBe(limits.enterIdleMs);
  const leftMs = sampleUntil({ ...quiet, ownerPermille: 500 }, false, enteredMs + 1_000, idleness) as number;
  expect(leftMs).toBe(limits.leaveIdleMs);
  expect(leftMs * 2).toBeLessThanOrEqual(enteredMs);
});

test('a short peak of load does not end idleness, a load between the two bounds does not begin it', () => {
  const idleness = createIdleness('idle');
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
  const idleness = createIdleness('idle');
  const nowMs = sampleUntil(quiet, true, 0, idleness) as number;
  expect(idleness.sample({ ...quiet, ...change }, nowMs + 1_000)).toBe(false);
});

test.for([
  ['the processors', { ownerPermille: undefined }, 'processors'],
  ['input', { inputAgoMs: undefined }, 'input'],
  ['memory', { freeMemoryBytes: undefined }, 'memory'],
] as const)('a machine that cannot tell of %s counts as in use', ([, unknown, reason]) => {
  const idleness = createIdleness('idle');
  expect(sampleUntil({ ...quiet, ...unknown }, true, 0, idleness)).toBeUndefined();
  expect(idleness.unrest(599_000)).toBe(reason);
});

test('what only some machines have need not be told; a machine without keys has no input', () => {
  const bare = { ...quiet, inputAgoMs: Number.POSITIVE_INFINITY, onBattery: undefined, hot: undefined };
  expect(sampleUntil({ ...bare, metered: undefined, memoryPressed: undefined }, true, 0)).toBe(limits.enterIdleMs);
});

test('a small machine has to leave less memory free', () => {
  const small = { ...quiet, memoryBytes: 4 * 2 ** 30, freeMemoryBytes: 1 * 2 ** 30 };
  expect(sampleUntil(small, true, 0)).toBe(limits.enterIdleMs);
  expect(sampleUntil({ ...small, freeMemoryBytes: 2 ** 28 }, true, 0)).toBeUndefined();
  expect(sampleUntil({ ...small, memoryPressed: true }, true, 0)).toBeUndefined();
});

test('a machine that is always lent is so from the first sample, and minds heat, memory and what its owner says', () => {
  const busyOwner = { ...quiet, ownerPermille: 990, inputAgoMs: 10, onBattery: true, metered: true };
  const idleness = createIdleness('always');
  expect(idleness.sample(busyOwner, 0)).toBe(true);
  expect(idleness.sample(busyOwner, 3_600_000)).toBe(true);
  expect(idleness.sample({ ...busyOwner, hot: true }, 3_601_000)).toBe(false);
  expect(sampleUntil(busyOwner, true, 3_602_000, idleness)).toBe(limits.enterIdleMs);
  expect(idleness.sample({ ...busyOwner, freeMemoryBytes: 1e9 }, 3_700_000)).toBe(false);
  const other = createIdleness('always');
  other.sample(busyOwner, 0);
  other.back(500);
  expect(other.idle(500)).toBe(false);
  expect(other.unrest(500)).toBe('signal');
  expect(other.sample(busyOwner, 1_000)).toBe(false);
});

test('an owner who says "away" is believed at once, until the machine is touched again', () => {
  const idleness = createIdleness('idle');
  idleness.sample({ ...quiet, inputAgoMs: 10 }, 0);
  idleness.away(500);
  expect(idleness.sample({ ...quiet, inputAgoMs: 510 }, 1_000)).toBe(true);
  // The key that locked the screen is let go.
  expect(idleness.sample({ ...quiet, inputAgoMs: 0 }, 1_500)).toBe(true);
  expect(idleness.sample({ ...quiet, inputAgoMs: 0 }, 20_000)).toBe(false);
  expect(sampleUntil(quiet, true, 21_000, idleness)).toBe(limits.enterIdleMs);
});

test('"away" does not lend what is busy, hot or on battery; it holds where input cannot be seen', () => {
  for (const change of [{ ownerPermille: 900 }, { hot: true }, { onBattery: true }]) {
    const idleness = createIdleness('idle');
    idleness.away(0);
    expect(idleness.sample({ ...quiet, ...change }, 1)).toBe(false);
  }
  const blind = createIdleness('idle');
  blind.away(0);
  expect(blind.sample({ ...quiet, inputAgoMs: undefined }, 1)).toBe(true);
  blind.back(2);
  expect(sampleUntil({ ...quiet, inputAgoMs: undefined }, true, 3, blind)).toBeUndefined();
});

test('an owner who says "back" and nothing more counts as somebody who pressed a key', () => {
  const idleness = createIdleness('idle');
  idleness.away(0);
  expect(idleness.sample(quiet, 1)).toBe(true);
  idleness.back(1_000);
  expect(idleness.idle(1_000)).toBe(false);
  expect(sampleUntil(quiet, true, 1_000, idleness)).toBe(limits.inputMs + limits.enterIdleMs);
});

test('without samples the machine counts as in use, and quiet before the gap proves nothing', () => {
  const idleness = createIdleness('idle');
  const nowMs = sampleUntil(quiet, true, 0, idleness) as number;
  expect(idleness.idle(nowMs + limits.sampleMsMax + 1)).toBe(false);
  const other = createIdleness('idle');
  other.sample(quiet, 0);
  expect(other.sample(quiet, limits.enterIdleMs)).toBe(false);
  // Who opens the lid again is there.
  expect(idleness.sample(quiet, nowMs + 3_600_000)).toBe(false);
});
