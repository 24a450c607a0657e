/**
 * What a rule is, and how its parts say what they saw.
 *
 * A rule is one requirement of the protocol; its parts are the situations it is tried in. A part reports through `Check`:
 * violations add up, so one run shows everything that is wrong in a part.
 */
import type { Context } from './context.ts';

/** What a part cannot do without; what the target lacks makes the part "not applicable", with the reason printed. */
export type Need =
  | 'execution'
  | 'update-action-cache'
  | 'zstd'
  | 'batch-zstd'
  | 'blake3'
  | 'instances'
  | 'http'
  | 'split'
  | 'splice'
  | 'control';

export interface Part {
  readonly name: string;
  readonly needs?: readonly Need[];
  /** Loads the target so much that no other part runs beside it. */
  readonly alone?: boolean;
  /** Waits so long that quick runs leave it out. */
  readonly slow?: boolean;
  run(context: Context, check: Check): Promise<void>;
}

export interface Rule {
  /** `P1` to `P62`. */
  readonly id: string;
  readonly title: string;
  /** What the specification says, in our words. */
  readonly says: string;
  /** Where it says so. */
  readonly source: string;
  readonly parts: readonly Part[];
}

export interface Check {
  /** A requirement: what is not so is a violation, told by `otherwise`. */
  must(holds: boolean, otherwise: string): void;
  /** The specification leaves this open: `taken` is what the target does. */
  choice(taken: string): void;
  /** Anything else worth a word in the table. */
  saw(what: string): void;
}

export type Verdict = 'pass' | 'fail' | 'choice' | 'not applicable';

export interface PartReport {
  readonly name: string;
  readonly verdict: Verdict;
  readonly violations: readonly string[];
  readonly choices: readonly string[];
  readonly seen: readonly string[];
  /** Why the part did not apply. */
  readonly reason?: string;
}

export interface RuleReport {
  readonly id: string;
  readonly title: string;
  readonly verdict: Verdict;
  readonly parts: readonly PartReport[];
  readonly elapsedMs: number;
}

/** Ends a part that does not apply to this target. */
export class NotApplicable extends Error {
  override readonly name = 'NotApplicable';
}

export function part(name: string, run: Part['run']): Part;
export function part(name: string, needs: readonly Need[], run: Part['run']): Part;
export function part(name: string, a: readonly Need[] | Part['run'], b?: Part['run']): Part {
  return typeof a === 'function' ? { name, run: a } : { name, needs: a, run: b as Part['run'] };
}

export function alone(loading: Part): Part {
  return { ...loading, alone: true };
}

export function slow(waiting: Part): Part {
  return { ...waiting, slow: true };
}
