/** All rules in order. */
import type { Rule } from '../rule.ts';
import { actionCacheRules } from './action-cache.ts';
import { batchRules } from './batches.ts';
import { byteStreamRules } from './bytestream.ts';
import { chunkingRules } from './chunking.ts';
import { commandRules } from './commands.ts';
import { digestRules } from './digests.ts';
import { executionRules } from './execution.ts';
import { outputRules } from './outputs.ts';
import { resultRules } from './results.ts';
import { serverRules } from './server.ts';

export const allRules: readonly Rule[] = [
  ...digestRules,
  ...byteStreamRules,
  ...batchRules,
  ...chunkingRules,
  ...actionCacheRules,
  ...executionRules,
  ...commandRules,
  ...outputRules,
  ...resultRules,
  ...serverRules,
].toSorted((a, b) => Number(a.id.slice(1)) - Number(b.id.slice(1)));
