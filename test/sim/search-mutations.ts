/**
 * Looks for the first seed at which the named checker (any, when it is '') catches the bug, and that holds without it:
 * `node test/sim/search-mutations.ts [PATTERN OF NAMES] [SEEDS]`. Prints one line per mutation.
 */
import { createMutant } from './mutant.ts';
import { mutations } from './mutations.ts';

const [part = '', seedsText = '1000'] = process.argv.slice(2);
const seedsMax = Number(seedsText);

for (const mutation of mutations.filter(({ name }) => new RegExp(part).test(name))) {
  const startedAt = Date.now();
  let found = 'NOT CAUGHT';
  try {
    await using sound = createMutant({ ...mutation, edits: [] });
    await using mutant = createMutant(mutation);
    for (let seed = 1; seed <= seedsMax; seed++) {
      const { violation } = await mutant.run(seed);
      if (!violation || (mutation.checker !== '' && violation.checker !== mutation.checker)) continue;
      if ((await sound.run(seed)).violation) continue;
      found = `seed: ${seed}, checker: '${violation.checker}', // ${violation.reason.split('\n')[0]?.slice(0, 150)}`;
      break;
    }
  } catch (error) {
    found = error instanceof Error ? error.message : String(error);
  }
  console.log(`${mutation.name} (${((Date.now() - startedAt) / 1_000).toFixed(0)} s): ${found}`);
}
