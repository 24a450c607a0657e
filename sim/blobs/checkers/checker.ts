/** What a checker of the world of blobs is told, and what it may look at. */
import type { FetchFailure, Part } from '../../../mesh/core/fetch/types.ts';
import type { BlobKey } from '../../../mesh/core/ids.ts';
import type { Found } from '../../../mesh/core/providers/types.ts';
import type { BlobNode, BlobWork } from '../node.ts';
import type { BlobFault, BlobPlan, Making } from '../plan.ts';

/** One want of one reader. */
export interface Reading {
  readonly node: BlobNode;
  readonly blob: BlobKey;
  readonly sizeBytes: number;
  readonly budgetMs: number;
  /** On the reader's clock. */
  readonly askedAtMs: number;
  readonly life: number;
  readonly stops: number;
}

export type ReadingEnd = 'fetched' | FetchFailure;

export interface BlobWorld {
  readonly plan: BlobPlan;
  readonly nodes: readonly BlobNode[];
  nowMs(): number;
  /** Nodes that lied, or whose disk rotted, at any time: others may rightly not ask them. */
  offended(node: BlobNode): boolean;
  /** Up, and holding the right bytes. */
  holders(blob: BlobKey): BlobNode[];
}

export interface BlobChecker {
  readonly name: string;
  /** How often the invariant was put to the test. */
  observed(): number;
  /** Things that should happen now and then over many seeds. */
  sometimes?(): { readonly [name: string]: number };
  onWork?(node: BlobNode, effect: BlobWork): void;
  onStored?(node: BlobNode, blob: BlobKey): void;
  onRead?(reading: Reading): void;
  onReadEnd?(reading: Reading, end: ReadingEnd): void;
  /** Bytes left a node for another; `final` once per request. */
  onSent?(from: BlobNode, to: BlobNode, parts: readonly Part[], bytes: number): void;
  onStampede?(making: Making, blob: BlobKey): void;
  /** Asked after healing, of which these held it then. */
  onFound?(asker: BlobNode, found: Found, holders: readonly BlobNode[]): void;
  onFault?(fault: BlobFault): void;
  onSecond?(): void;
  onEnd?(): void;
}

/** Makes a checker; `fail` ends the run with the reason. */
export type BlobCheckerFactory = (world: BlobWorld, fail: (reason: string) => never) => BlobChecker;
