import { expect, test } from 'vitest';
import { createMutant } from './mutant.ts';
import { mutations } from './mutations.ts';

test('at least twenty bugs are planted, each under a name of its own', () => {
  expect(mutations.length).toBeGreaterThanOrEqual(20);
  expect(new Set(mutations.map(({ name }) => name)).size).toBe(mutations.length);
});

test.concurrent.for(mutations)('caught: $name', async (mutation, { expect: expectHere }) => {
  await using mutant = createMutant(mutation);
  const { violation } = await mutant.run(mutation.seed);
  expectHere(violation?.checker).toBe(mutation.checker);
});
