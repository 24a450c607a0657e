/** The claims machine's events and effects, and the soft state that its files share. */
import type { ActionKey, BlobKey, InvocationId, NodeId, RequestId, ShardId, Token } from '../ids.ts';
import type { ApplyOutcome, HolderPromise, Register } from '../registers/types.ts';
import type { Capabilities, ClaimMessage, ClaimRef, LeaseHint, RevokeReason, TreeSketch } from './messages.ts';

export type ClaimsEvent =
  /** This node leads the shard and has applied everything from before its term. */
  | { readonly kind: 'lead'; readonly shard: ShardId; readonly generation: number; readonly term: number }
  /** It does not any more: what it knew of the shard's claims is worth nothing now. */
  | { readonly kind: 'unlead'; readonly shard: ShardId }
  | { readonly kind: 'message'; readonly from: NodeId; readonly message: ClaimMessage }
  /** What became of a proposed commit; `lost` when leadership was. */
  | { readonly kind: 'applied'; readonly proposal: number; readonly outcome: ApplyOutcome | 'lost' }
  /** Dead: its claims are taken away and count as deaths. Suspended: it said so, and they do not. */
  | { readonly kind: 'memberGone'; readonly node: NodeId; readonly dead: boolean }
  | { readonly kind: 'wake' };

export type ClaimsEffect =
  | { readonly kind: 'send'; readonly to: NodeId; readonly message: ClaimMessage }
  | { readonly kind: 'propose'; readonly proposal: number; readonly shard: ShardId; readonly commit: CommitProposal }
  | { readonly kind: 'hint'; readonly hint: LeaseHint }
  | {
      readonly kind: 'granted';
      readonly shard: ShardId;
      readonly key: ActionKey;
      readonly token: Token;
      readonly executor: NodeId;
    }
  | {
      readonly kind: 'revoked';
      readonly shard: ShardId;
      readonly key: ActionKey;
      readonly token: Token;
      readonly reason: DropReason;
    }
  | { readonly kind: 'staleRefused'; readonly shard: ShardId; readonly key: ActionKey; readonly token: Token }
  /** A message for a shard that this node does not lead. */
  | { readonly kind: 'notLeader'; readonly to: NodeId; readonly shard: ShardId };

/** Why a claim ended: taken away, or brought back by its executor. */
export type DropReason = RevokeReason | 'givenBack' | 'failed';

export interface CommitProposal {
  readonly key: ActionKey;
  readonly token: Token;
  readonly replaces: Token | undefined;
  readonly result: BlobKey;
  readonly executor: NodeId;
  readonly promises: readonly HolderPromise[];
}

/** What the machine may read of what others decide. */
export interface ClaimsView {
  readonly self: NodeId;
  /** The applied register of a shard that this node leads. */
  register(shard: ShardId, key: ActionKey): Register | undefined;
  isAlive(node: NodeId): boolean;
}

export interface Waiter {
  readonly request: RequestId;
  readonly node: NodeId;
  /** Its node runs the action already, until that run gave it back or failed. */
  stay: boolean;
  avoid: readonly NodeId[];
  leaseUntilMs: number;
}

export interface Claim {
  readonly token: Token;
  readonly executor: NodeId;
  /** The register's token when the claim was issued. */
  readonly replaces: Token | undefined;
  /** A reservation is not counted as running and can be given to somebody who is free. */
  reserved: boolean;
  readonly issuedAtMs: number;
  expiresAtMs: number;
  /** The proposal that is in the log and not applied yet; until then the claim neither expires nor moves. */
  committing: number | undefined;
}

/** One action that is to run once, for everybody who waits for it. */
export interface Task {
  /** The action key; with do_not_cache the request as well, so that nothing is merged. */
  readonly id: string;
  readonly shard: ShardId;
  readonly key: ActionKey;
  readonly invocation: InvocationId;
  requires: Capabilities;
  readonly spaceBytes: number;
  inputs: TreeSketch;
  readonly doNotCache: boolean;
  /** How long its first submitter thinks that it runs; 0 when nobody knows. */
  expectedMs: number;
  /** Known only from the executor that registered it: its submitter will say more. */
  adopted: boolean;
  /** Others were told that it waits. */
  hinted: boolean;
  priority: number;
  readonly waiters: Map<RequestId, Waiter>;
  claim: Claim | undefined;
  /** READY when this has passed: after a retry's backoff, or when nobody has registered it after a fail-over. */
  readyAtMs: number;
  deaths: number;
  retries: number;
  /** Executors that could not get its inputs. */
  inputsMissing: number;
  /** How often each executor gave it back. */
  readonly givenBack: Map<NodeId, number>;
  /** Who failed with it, or keeps giving it back; others come first until then. */
  readonly shunnedUntilMs: Map<NodeId, number>;
}

/** An executor that asked for work and has room left. */
export interface WaitingPull {
  readonly id: number;
  readonly node: NodeId;
  slots: number;
  reservations: number;
  readonly ownOnly: boolean;
  readonly capabilities: ReadonlySet<string>;
  freeBytes: number;
  readonly holds: ReadonlySet<number>;
  readonly untilMs: number;
}

export interface Led {
  readonly generation: number;
  readonly term: number;
  readonly rebuiltAtMs: number;
  counter: number;
}

export function claimRef(task: Task, token: Token): ClaimRef {
  return { shard: task.shard, key: task.key, token };
}
