/** Looks up which seed catches each planted bug: `node test/sim/blobs/search-mutations.ts [SEEDS] [NAME]`. */
import { createMutant } from '../mutant.ts';
import { blobMutations } from './mutations.ts';

const [seeds = '40', only = ''] = process.argv.slice(2);
for (const mutation of blobMutations) {
  if (!mutation.name.includes(only)) continue;
  await using mutant = createMutant(mutation, 'sim/blobs/worker.ts');
  let caught = `not within ${seeds} seeds`;
  for (let seed = 1; seed <= Number(seeds); seed++) {
    const { violation } = await mutant.run(seed);
    if (!violation) continue;
    caught = `seed ${seed}: ${violation.checker}`;
    if (violation.checker === mutation.checker) break;
  }
  console.log(`${mutation.name}: ${caught}`);
}
