/** All rules in order. */
import type { Rule } from '../rule.ts';
import { actionCacheRules } from './action-cache.ts';
import { batchRules } from './batches.ts';
import { capabilityRules } from './capabilities.ts';
import { chunkingRules } from './chunking.ts';
import { commandRules } from './commands.ts';
import { digestRules } from './digests.ts';
import { downloadRules } from './downloads.ts';
import { executionRules } from './execution.ts';
import { httpRules } from './http.ts';
import { nameRules } from './names.ts';
import { outputTreeRules } from './output-trees.ts';
import { outputRules } from './outputs.ts';
import { remoteAssetRules } from './remote-asset.ts';
import { resultRules } from './results.ts';
import { serverRules } from './server.ts';
import { treeRules } from './trees.ts';
import { uploadRules } from './uploads.ts';

export const allRules: readonly Rule[] = [
  ...digestRules,
  ...nameRules,
  ...uploadRules,
  ...downloadRules,
  ...batchRules,
  ...treeRules,
  ...capabilityRules,
  ...chunkingRules,
  ...actionCacheRules,
  ...httpRules,
  ...executionRules,
  ...commandRules,
  ...outputRules,
  ...outputTreeRules,
  ...resultRules,
  ...serverRules,
  ...remoteAssetRules,
].toSorted((a, b) => Number(a.id.slice(1)) - Number(b.id.slice(1)));
