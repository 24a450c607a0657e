/** Every checker; a run uses them all. */
import { bounds } from './bounds.ts';
import type { CheckerFactory } from './checker.ts';
import { duplicates } from './duplicates.ts';
import { electionSafety } from './election-safety.ts';
import { everyActionEnds } from './every-action-ends.ts';
import { freshReads } from './fresh-reads.ts';
import { generations } from './generations.ts';
import { logMatching } from './log-matching.ts';
import { nothingForgotten } from './nothing-forgotten.ts';
import { oneChange } from './one-change.ts';
import { oneClaim } from './one-claim.ts';
import { outputsPromised } from './outputs-promised.ts';
import { ownTerm } from './own-term.ts';
import { ownerFirst } from './owner-first.ts';
import { pinsKept } from './pins-kept.ts';
import { stateMachineSafety } from './state-machine-safety.ts';
import { tokenOrder } from './token-order.ts';
import { tombstones } from './tombstones.ts';
import { viewsConverge } from './views-converge.ts';

export const allCheckers: readonly CheckerFactory[] = [
  electionSafety,
  logMatching,
  nothingForgotten,
  oneChange,
  ownTerm,
  stateMachineSafety,
  freshReads,
  generations,
  tombstones,
  tokenOrder,
  oneClaim,
  outputsPromised,
  pinsKept,
  ownerFirst,
  duplicates,
  everyActionEnds,
  bounds,
  viewsConverge,
];
