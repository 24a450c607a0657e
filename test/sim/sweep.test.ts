import { existsSync, readdirSync } from 'node:fs';
import { expect, test } from 'vitest';
import { readSchedule } from '../../sim/schedule.ts';
import { simulate } from '../../sim/simulate.ts';
import { sweep } from '../../sim/sweep.ts';

test('a short sweep holds, under faults, with every checker at work', async () => {
  const report = await sweep({ from: 1, to: 8, nodes: 20, minutes: 4, jobs: 2, progress: () => {} });
  expect(report.broken.map(({ seed, violation }) => ({ seed, violation }))).toEqual([]);
  expect(report.faultsMin).toBeGreaterThanOrEqual(30);
  expect(report.actionsMin).toBeGreaterThanOrEqual(128);
  // A forced generation is rare; everything else is looked at in a few seeds.
  const blind = Object.entries(report.observed).filter(([, seen]) => seen === 0);
  expect(blind).toEqual([]);
});

// What is over here before its claim came is answered as local, and no sign of a mesh that did not carry it: that would be
// a decision with such a reason, which the checkers look for in a calm world.
test.each([3, 6, 7, 15])('without faults nothing runs twice, and the mesh carries every action (seed %i)', (seed) => {
  const report = simulate({ seed, nodes: 8, minutes: 5, calm: true });
  expect(report.violation).toBeUndefined();
  expect(report.answers.mesh ?? 0).toBeGreaterThan(10);
});

test.each([1, 2, 3])('a mesh of %i nodes holds under faults', (nodes) => {
  for (const seed of [1, 2, 3]) {
    expect({ seed, violation: simulate({ seed, nodes, minutes: 4 }).violation }).toEqual({
      seed,
      violation: undefined,
    });
  }
});

const schedules = new URL('../schedules/', import.meta.url);
const files = existsSync(schedules) ? readdirSync(schedules).filter((file) => file.endsWith('.json')) : [];

test.each(files)('the schedule %s, which once broke, holds', (file) => {
  expect(simulate(readSchedule(new URL(file, schedules).pathname)).violation).toBeUndefined();
});
