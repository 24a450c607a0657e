import { expect, test } from 'vitest';
import { runBlobs } from '../../../sim/blobs/world.ts';
import { createMutant } from '../mutant.ts';
import { blobMutations } from './mutations.ts';

test('the world of blobs holds, every checker sees something, and what should happen now and then does', () => {
  const seen = new Map<string, number>();
  for (let seed = 1; seed <= 8; seed++) {
    const report = runBlobs({ seed, nodes: 8, minutes: 3 });
    expect([seed, report.violation]).toEqual([seed, undefined]);
    for (const [name, count] of Object.entries({ ...report.observed, ...report.sometimes })) {
      seen.set(name, (seen.get(name) ?? 0) + count);
    }
  }
  expect([...seen].filter(([, count]) => count === 0)).toEqual([]);
});

test('one seed is one history', () => {
  const [one, other, different] = [5, 5, 6].map((seed) => runBlobs({ seed, nodes: 5, minutes: 1 }));
  expect(one?.traceHash).toBe(other?.traceHash);
  expect(one?.traceHash).not.toBe(different?.traceHash);
});

test('every planted bug has a name of its own', () => {
  expect(blobMutations.length).toBeGreaterThanOrEqual(8);
  expect(new Set(blobMutations.map(({ name }) => name)).size).toBe(blobMutations.length);
});

test.concurrent.for(blobMutations)('caught: $name', async (mutation, { expect: expectHere }) => {
  await using mutant = createMutant(mutation, 'sim/blobs/worker.ts');
  const { violation } = await mutant.run(mutation.seed);
  expectHere(violation?.checker).toBe(mutation.checker);
});
