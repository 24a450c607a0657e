/**
 * Between submitters, executors and the leaders of shards. A claims machine serves every shard that its node leads, so
 * one message can carry items of several shards.
 */
import type { ActionKey, BlobKey, InvocationId, NodeId, RequestId, ShardId, Token } from '../ids.ts';
import type { HolderPromise } from '../registers/types.ts';

/** What an action needs from its executor, and what an executor offers: sorted `name=value` texts. */
export type Capabilities = readonly string[];

/** Small hashes of the largest directories of an input tree; how many two lists share tells how much need not move. */
export type TreeSketch = readonly number[];

export interface SubmitItem {
  readonly request: RequestId;
  readonly shard: ShardId;
  readonly key: ActionKey;
  readonly invocation: InvocationId;
  /** Lower runs first, as in REAPI's ExecutionPolicy. */
  readonly priority: number;
  /** All of these must be among the executor's capabilities. */
  readonly requires: Capabilities;
  /** Space to reserve for outputs and scratch before the claim. */
  readonly spaceBytes: number;
  readonly inputs: TreeSketch;
  /** Never merged, never stored. */
  readonly doNotCache: boolean;
  /** Runs although a result is known; its result replaces that one. */
  readonly skipCacheLookup: boolean;
  /** A rough duration, for the expiry of the claim; 0 when unknown. */
  readonly expectedMs: number;
  /** True when the request was accepted by an earlier leader: it does not count against the retry budget. */
  readonly reoffer: boolean;
  /** It is started by the submitter's own node at once: granted to nobody else. */
  readonly stay: boolean;
  /** Executors that the submitter drained, at most 16. */
  readonly avoid: readonly NodeId[];
  /** Executors that were lost with it under earlier leaders, as far as the submitter heard; 0 to `deathsMax`. */
  readonly deaths: number;
}

export interface GrantedClaim {
  readonly shard: ShardId;
  readonly key: ActionKey;
  readonly token: Token;
  /** Whom to hand the outputs to: the oldest waiter's node. */
  readonly submitter: NodeId;
  readonly request: RequestId;
  readonly doNotCache: boolean;
  readonly spaceBytes: number;
  /** A reservation: fetch inputs, do not run before `start` was confirmed. It can be given to somebody else. */
  readonly reserved: boolean;
  /** For the run that its submitter, this very node, has under way already; without that run it is given back. */
  readonly stay: boolean;
  readonly expiresInMs: number;
}

export interface ClaimRef {
  readonly shard: ShardId;
  readonly key: ActionKey;
  readonly token: Token;
}

export type FailureReason =
  /** The executor broke, not the action: another node may try. */
  | 'executorFault'
  /** Inputs could not be had from anybody. */
  | 'inputsMissing'
  /** The action cannot run anywhere: malformed, or refused by the sandbox policy. */
  | 'actionInvalid';

/** Why a request ended without a result. */
export type EndReason =
  | 'cancelled'
  | 'tooManyDeaths'
  | 'tooManyRetries'
  | 'inputsMissing'
  | 'actionInvalid'
  | 'queueFull';

/** Why an action is READY again, or ended: who had it last, and what went wrong there. */
export interface Setback {
  readonly executor: NodeId;
  /** `lost`: dead, or not heard of for the length of a lease. `givenBack` is nobody's fault. */
  readonly reason: FailureReason | 'lost' | 'givenBack';
}

export type RevokeReason = 'cancelled' | 'expired' | 'stolen' | 'superseded' | 'unknown' | 'done';

export type ClaimMessage =
  // From a submitter to a leader.
  | { readonly kind: 'submit'; readonly items: readonly SubmitItem[] }
  | {
      readonly kind: 'renewRequests';
      readonly requests: readonly { readonly shard: ShardId; readonly request: RequestId }[];
    }
  | {
      readonly kind: 'cancelRequests';
      readonly requests: readonly { readonly shard: ShardId; readonly request: RequestId }[];
    }
  // From a leader to a submitter.
  | { readonly kind: 'requestState'; readonly states: readonly RequestState[] }
  // From an executor to a leader.
  | {
      readonly kind: 'pull';
      /** Rises with each pull of this executor: the newest replaces those before it. 0 slots withdraws. */
      readonly id: number;
      readonly slots: number;
      /** Further actions to reserve, for prefetching. */
      readonly reservations: number;
      /** Only actions that this executor's own node submitted: its owner is there, or guests are not wanted. */
      readonly ownOnly: boolean;
      readonly capabilities: Capabilities;
      readonly freeBytes: number;
      readonly holds: TreeSketch;
    }
  | { readonly kind: 'start'; readonly claim: ClaimRef }
  | { readonly kind: 'renewClaims'; readonly claims: readonly ClaimRef[] }
  | { readonly kind: 'giveBack'; readonly claims: readonly ClaimRef[] }
  | { readonly kind: 'fail'; readonly claim: ClaimRef; readonly reason: FailureReason }
  | {
      readonly kind: 'commit';
      readonly claim: ClaimRef;
      readonly result: BlobKey;
      /** False for what must not be stored: its waiters are told where it is, and no register names it. */
      readonly cacheable: boolean;
      readonly promises: readonly HolderPromise[];
    }
  /** After a change of leader: "this is what I run", with the tokens of the leader before. */
  | { readonly kind: 'register'; readonly claims: readonly RunningClaim[] }
  // From a leader to an executor.
  | { readonly kind: 'granted'; readonly pull: number; readonly claims: readonly GrantedClaim[] }
  | { readonly kind: 'started'; readonly claim: ClaimRef; readonly expiresInMs: number }
  | { readonly kind: 'renewed'; readonly claims: readonly ClaimRef[]; readonly expiresInMs: number }
  | { readonly kind: 'revoked'; readonly claims: readonly (ClaimRef & { readonly reason: RevokeReason })[] }
  /** The running action may go on, under this token instead of the old one. */
  | { readonly kind: 'adopted'; readonly old: Token; readonly claim: ClaimRef; readonly expiresInMs: number }
  | { readonly kind: 'committed'; readonly claim: ClaimRef; readonly outcome: CommitOutcome };

export type CommitOutcome = 'accepted' | 'stale' | 'notPromised' | 'lost';

export interface RunningClaim extends ClaimRef {
  readonly request: RequestId;
  readonly submitter: NodeId;
  readonly doNotCache: boolean;
  readonly requires: Capabilities;
  readonly spaceBytes: number;
}

export type RequestState =
  | {
      readonly kind: 'ready';
      readonly shard: ShardId;
      readonly request: RequestId;
      readonly leaseMs: number;
      /** Set once, when a claim was just lost. */
      readonly after: Setback | undefined;
    }
  | {
      readonly kind: 'claimed';
      readonly shard: ShardId;
      readonly request: RequestId;
      readonly executor: NodeId;
      readonly token: Token;
      readonly running: boolean;
      /** Since the claim was made, at the leader. */
      readonly ageMs: number;
    }
  /** The register's result; `token` is undefined when it was known before anybody ran anything. */
  | {
      readonly kind: 'succeeded';
      readonly shard: ShardId;
      readonly request: RequestId;
      readonly result: BlobKey;
      readonly executor: NodeId;
      readonly token: Token | undefined;
    }
  /** It ran to its end and nothing was stored: do_not_cache, or a result that is not cacheable. The executor still has it. */
  | {
      readonly kind: 'finished';
      readonly shard: ShardId;
      readonly request: RequestId;
      readonly token: Token;
      readonly result: BlobKey;
      readonly executor: NodeId;
    }
  | {
      readonly kind: 'ended';
      readonly shard: ShardId;
      readonly request: RequestId;
      readonly reason: EndReason;
      readonly after: Setback | undefined;
    }
  /** The leader does not know this request: submit it again. */
  | { readonly kind: 'unknown'; readonly shard: ShardId; readonly request: RequestId };

/** Gossiped in batches so that idle nodes learn where work waits. Nothing is decided from it. */
export interface LeaseHint {
  readonly shard: ShardId;
  readonly key: ActionKey;
  readonly state: 'ready' | 'claimed' | 'done';
  readonly leader: NodeId;
  readonly requires: Capabilities;
}
