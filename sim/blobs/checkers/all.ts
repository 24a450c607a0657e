/** Every checker of the world of blobs, one file each. */
import { blobBounds } from './bounds.ts';
import type { BlobCheckerFactory } from './checker.ts';
import { diskBudget } from './disk-budget.ts';
import { foundAfterHealing } from './found-after-healing.ts';
import { rightBytes } from './right-bytes.ts';
import { stampedeBounded } from './stampede-bounded.ts';
import { uploadBudget } from './upload-budget.ts';
import { withinBudget } from './within-budget.ts';

export const blobCheckers: readonly BlobCheckerFactory[] = [
  rightBytes,
  withinBudget,
  uploadBudget,
  diskBudget,
  foundAfterHealing,
  stampedeBounded,
  blobBounds,
];
