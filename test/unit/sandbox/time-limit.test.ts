import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { createRunControl } from '../../../sandbox/run-control.ts';
import { limitTime, type ProcessorTicks } from '../../../sandbox/time-limit.ts';
import { until } from '../../support/until.ts';

/** Ends after 20 ms, on a machine whose processors say this, each time they are asked. */
async function ended(...told: (ProcessorTicks | undefined)[]): Promise<boolean> {
  let isOver = false;
  using limit = limitTime(
    20,
    undefined,
    () => (isOver = true),
    () => told.shift(),
  );
  await until(() => isOver);
  return limit.crowded;
}

test('tells whether the processors had anything to spare', async () => {
  expect(await ended({ idle: 0, all: 0 }, { idle: 9, all: 100 })).toBe(true);
  expect(await ended({ idle: 500, all: 1_000 }, { idle: 511, all: 1_100 })).toBe(false);
  expect(await ended(undefined, undefined)).toBe(false);
});

test('what happens while it is frozen counts neither as time nor as idleness', async () => {
  const control = createRunControl();
  let isOver = false;
  let now: ProcessorTicks = { idle: 0, all: 0 };
  using limit = limitTime(
    40,
    control,
    () => (isOver = true),
    () => now,
  );
  now = { idle: 0, all: 50 };
  await control.freeze();
  now = { idle: 10_000, all: 10_050 };
  await sleep(60);
  expect(isOver).toBe(false);
  await control.thaw();
  now = { idle: 10_000, all: 10_100 };
  await until(() => isOver);
  expect(limit.crowded).toBe(true);
});
