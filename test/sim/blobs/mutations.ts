/**
 * Planted bugs in what shares blobs: each is a small edit of the machines, the seed that catches it, and the checker that
 * says so. `node test/sim/blobs/search-mutations.ts` looks the seeds up anew; docs/testing.md lists them.
 */
import type { Mutation } from '../mutations.ts';

export const blobMutationNodes = 8;
export const blobMutationMinutes = 3;

const planner = 'mesh/core/fetch/planner.ts';
const uploads = 'mesh/core/fetch/uploads.ts';
const hedging = 'mesh/core/fetch/hedging.ts';
const announcer = 'mesh/core/providers/announcer.ts';
const keeper = 'mesh/core/providers/keeper.ts';
const providers = 'mesh/core/providers/providers.ts';
const sharing = 'mesh/core/sharing.ts';

function plant(name: string, file: string, find: string, replace: string, checker: string, seed: number): Mutation {
  const sized = { nodes: blobMutationNodes, minutes: blobMutationMinutes };
  return { name, edits: [{ file, find, replace }], checker, seed, ...sized };
}

export const blobMutations: readonly Mutation[] = [
  plant(
    'a wrong whole is given to the reader',
    planner,
    "    if (outcome === 'stored') return complete(fetch, first);",
    "    if (outcome !== 'noRoom') return complete(fetch, first);",
    'right-bytes',
    2,
  ),
  plant(
    'a wrong blob of a batch is given to the reader',
    planner,
    "        effects.push({ kind: 'blame', node, reason: 'wrong' });\n        return drop(node);",
    '        return complete(fetch, node);',
    'right-bytes',
    1,
  ),
  plant(
    'the budget of a want is not watched',
    planner,
    '    earliestEndMs = Math.min(earliestEndMs, nowInStepMs + budgetMs);\n',
    '',
    'within-budget',
    1,
  ),
  plant(
    'only the first want of a blob is answered',
    planner,
    "    for (const want of fetch.wants.keys()) effects.push({ kind: 'fetched', want, blob: fetch.blob, from });",
    "    for (const want of [...fetch.wants.keys()].slice(0, 1)) effects.push({ kind: 'fetched', want, blob: fetch.blob, from });",
    'within-budget',
    1,
  ),
  plant('uploads are not charged', uploads, '    budgetBytes -= bytes;\n', '', 'upload-budget', 2),
  plant(
    'one blob is served to everybody at once',
    uploads,
    '    const crowded = crowd >= limits.uploadsPerBlob;',
    '    const crowded = crowd < 0;',
    'stampede-bounded',
    28,
  ),
  plant(
    'a refusal names nobody',
    uploads,
    'tryNodes: others.slice(-limits.tryNodesMax)',
    'tryNodes: others.slice(0, 0)',
    'stampede-bounded',
    1,
  ),
  plant('hedges are not counted', hedging, '      hedges += 1;\n', '', 'bounds', 10),
  plant(
    'fetched blobs do not count towards the disk',
    sharing,
    "    errands.add('promises', { kind: 'stored', blob, sizeBytes });\n    errands.add('providers'",
    "    errands.add('providers'",
    'disk-budget',
    1,
  ),
  plant(
    'fetched blobs are not announced',
    sharing,
    "    errands.add('promises', { kind: 'stored', blob, sizeBytes });\n    errands.add('providers', { kind: 'stored', blobs: [blob] });",
    "    errands.add('promises', { kind: 'stored', blob, sizeBytes });",
    'found-after-healing',
    1,
  ),
  plant(
    'a keeper that was started anew is told nothing',
    announcer,
    '      if (before && (jumped || swapped)) hangUp(node, context.nowMs());\n',
    '      void (jumped && swapped);\n',
    'found-after-healing',
    51,
  ),
  plant(
    'an announcement that nobody answered is forgotten',
    announcer,
    '    talks.delete(node);\n    doubt(node, notBeforeMs);',
    '    talks.delete(node);\n    void notBeforeMs;',
    'found-after-healing',
    2,
  ),
  plant(
    'records do not move to new keepers',
    announcer,
    '          told += 1;\n          tell(node, place, true);',
    '          told += 1;',
    'found-after-healing',
    4,
  ),
  plant(
    'keepers that hold something else are not given what they lack',
    announcer,
    '      for (const place of places) tell(node, place, true);\n',
    '',
    'found-after-healing',
    1,
  ),
  plant(
    'records of a member that went away are dropped and not revived',
    keeper,
    '        provider.absentSinceMs ??= context.nowMs();\n        return;',
    '        provider.absentSinceMs ??= context.nowMs();\n        clear(provider);\n        return;',
    'found-after-healing',
    2,
  ),
  plant(
    'keepers stay those of the first minute',
    providers,
    '      if (now >= ringDueMs()) renewRing();',
    '      if (now >= ringDueMs() && !ring) renewRing();\n      else if (now >= ringDueMs()) unsettledSinceMs = undefined;\n      absentSinceMs.clear();',
    'found-after-healing',
    3,
  ),
];
