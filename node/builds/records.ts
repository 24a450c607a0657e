/** What is written down about builds, and what `/api/builds` answers. Fields are only ever added. */
import type { Link } from '../peers/tally.ts';
import type { EndOutcome } from '../offload/events.ts';

/**
 * Where a result came from. `joined`: another build of this node had it run at the same time. `uploaded`: the client ran
 * the action itself and brought the result.
 */
export type ActionSource = 'hit-local' | 'hit-peer' | 'here' | 'peer' | 'joined' | 'uploaded';

/** Why a run went where it went; times until its outputs would be at hand. */
export interface Decision {
  readonly where: 'here' | 'mesh';
  /** `null`: it could not run there. */
  readonly hereMs: number | null;
  readonly elsewhereMs: number | null;
  /** A word such as `soonerElsewhere`; see reasons.ts. */
  readonly why: string;
}

/** A step on the way of a run. */
export interface Step {
  /** Since the request came. */
  readonly afterMs: number;
  readonly what: string;
  /** Who it is about; `null` when that is this node, or nobody yet. */
  readonly node: string | null;
}

export interface ActionRecord {
  /** `function/hash/size`. */
  readonly action: string;
  readonly instance: string;
  readonly mnemonic: string;
  readonly target: string;
  readonly source: ActionSource;
  /** The peer that gave the result or ran the action; `null` for this node. */
  readonly node: string | null;
  readonly outcome: EndOutcome;
  readonly error: string | null;
  /** ISO 8601. */
  readonly started: string;
  /** Until somebody began to run it, fetching inputs included. */
  readonly queuedMs: number;
  /** Fetching inputs to who ran it, as far as that was told. */
  readonly fetchMs: number;
  /** The command alone; of a hit, what it took when it ran. */
  readonly runMs: number;
  /** Fetching outputs from who ran it. */
  readonly handOverMs: number;
  readonly totalMs: number;
  /** Time that this action would have taken here besides: see docs/adr/0032-build-records.md. */
  readonly savedMs: number;
  readonly decision: Decision | null;
  readonly token: string | null;
  readonly retries: number;
  readonly history: readonly Step[];
  /** The result as a blob, `function/hash/size`. */
  readonly result: string | null;
}

export type MovedBytes = Readonly<Record<Link, { readonly receivedBytes: number; readonly servedBytes: number }>>;

/** A row of `potluck builds`. */
export interface BuildSummary {
  /** `tool_invocation_id`; of clients that give none, this node's name and when it began. */
  readonly id: string;
  /** `correlated_invocations_id`, or ''. */
  readonly correlated: string;
  /** Name and version of the client, or ''. */
  readonly tool: string;
  /** ISO 8601. */
  readonly started: string;
  /** When last something was heard of it. */
  readonly ended: string;
  readonly active: boolean;
  /** Results that clients got, by where they came from. */
  readonly sources: Readonly<Record<ActionSource, number>>;
  /** Lookups that found nothing. */
  readonly misses: number;
  readonly failed: number;
  readonly retries: number;
  /** Run time of hits and of what ran at peers: work that this machine did not do. */
  readonly workElsewhereMs: number;
  /** That work over the slots of this node: about how much longer the build would have taken alone and uncached. */
  readonly savedMs: number;
  /** What this node moved over the mesh meanwhile, other builds included. */
  readonly moved: MovedBytes;
  /** Actions that were not written down: the record was full, or the disk too slow. */
  readonly unrecorded: number;
}

/** Who ran how much of a build; `node` is `null` for this node. */
export interface NodeShare {
  readonly node: string | null;
  readonly executed: number;
  readonly hits: number;
  readonly runMs: number;
}

/** `potluck builds show`. */
export interface BuildReport extends BuildSummary {
  /** Most actions first. */
  readonly nodes: readonly NodeShare[];
  /** By time from request to answer. */
  readonly slowest: readonly ActionRecord[];
  /** The newest, oldest first. */
  readonly failures: readonly ActionRecord[];
}

/** `potluck explain`: requests for actions that the given text names, newest first. */
export interface Explanation {
  readonly requests: readonly (ActionRecord & { readonly build: string })[];
  /** Under way now. */
  readonly running: readonly RunningAction[];
}

/** An action under way. */
export interface RunningAction {
  readonly action: string;
  readonly mnemonic: string;
  readonly target: string;
  readonly stage: 'queued' | 'fetching' | 'executing';
  /** Where, once that is known; `null` for this node. */
  readonly node: string | null;
  readonly ageMs: number;
  readonly decision: Decision | null;
  readonly history: readonly Step[];
}

/** What a file of a build holds, a line each; the last summary counts. */
export type Line =
  | { readonly kind: 'build'; readonly id: string; readonly started: string }
  | ({ readonly kind: 'action' } & ActionRecord)
  | ({ readonly kind: 'summary' } & BuildReport);
