import { expect, test } from 'vitest';
import { createMutant } from './mutant.ts';
import { mutations } from './mutations.ts';

/** Seeds tried when the known one no longer catches the bug, because a change of the machines moved everything. */
const seedsMax = 60;

test('at least twenty bugs are planted, each under a name of its own', () => {
  expect(mutations.length).toBeGreaterThanOrEqual(20);
  expect(new Set(mutations.map(({ name }) => name)).size).toBe(mutations.length);
});

test.concurrent.for(mutations)('caught: $name', { timeout: 120_000 }, async (mutation, { expect: expectHere }) => {
  await using mutant = createMutant(mutation);
  const others = Array.from({ length: seedsMax }, (_, i) => i + 1);
  const found: (string | undefined)[] = [];
  for (const seed of [mutation.seed, ...others]) {
    const { violation } = await mutant.run(seed);
    found.push(violation?.checker);
    if (violation?.checker !== mutation.checker) continue;
    if (seed !== mutation.seed) console.warn(`${mutation.name}: caught at seed ${seed}, no longer at ${mutation.seed}`);
    break;
  }
  expectHere(found).toContain(mutation.checker);
});
