/**
 * The coordination machine of one node: every shard group it has a replica of, the claims of those it leads, and what it
 * knows of the others. `shards/coordination.ts` makes it; the peer feeds it and carries out its effects.
 */
import type { LeaseHint } from '../claims/messages.ts';
import type { ActionKey, Generation, NodeId, ShardId, Token } from '../ids.ts';
import type { CoordinationMessage, CoordinationRecord } from '../messages.ts';
import type { Configuration, Role } from '../raft/types.ts';
import type { ApplyOutcome } from '../registers/types.ts';

/** What coordination needs to know of a member; the membership machine's view, reduced. */
export interface MemberView {
  readonly node: NodeId;
  /** Number of its disk's life (see `ReplicaId`). */
  readonly disk: number;
  /** Suspended: it said goodbye for a while. Members that left for good or were revoked are not in the list. */
  readonly status: 'alive' | 'suspect' | 'dead' | 'suspended';
  /** When this node last knew it alive, on this node's clock; counts for "seen alive that day". */
  readonly lastAliveAtMs: number;
  /** Since when it is alive without a break, on this node's clock. */
  readonly aliveSinceMs: number;
  readonly stability: Stability;
}

/** What makes a good coordinator. Only `optedOut` excludes; the rest ranks. */
export interface Stability {
  readonly alwaysOn: boolean;
  readonly mainsPower: boolean;
  readonly wired: boolean;
  readonly optedOut: boolean;
}

export type CoordinationEvent =
  /** `from` is the authenticated sender; messages to itself come back through here too. */
  | { readonly kind: 'message'; readonly from: NodeId; readonly message: CoordinationMessage }
  /** Every persist up to and including this id is durable. */
  | { readonly kind: 'persisted'; readonly id: number }
  | { readonly kind: 'wake' }
  | { readonly kind: 'gap' }
  /** The whole view, sorted by node id, whenever it changed; it includes this node. */
  | { readonly kind: 'members'; readonly members: readonly MemberView[] }
  /** This node is about to suspend or stop: hand over what it leads. */
  | { readonly kind: 'goodbye' };

export type CoordinationEffect =
  | {
      readonly kind: 'send';
      readonly to: NodeId;
      readonly message: CoordinationMessage;
      readonly after?: number;
    }
  | { readonly kind: 'persist'; readonly id: number; readonly record: CoordinationRecord }
  | { readonly kind: 'wakeAt'; readonly atMs: number }
  /** To gossip, in batches, to everybody. */
  | { readonly kind: 'hint'; readonly hint: LeaseHint }
  /** Something an operator counts or reads in the log, and a simulator's checkers observe. Decides nothing. */
  | { readonly kind: 'note'; readonly note: CoordinationNote };

export type CoordinationNote =
  | {
      readonly kind: 'role';
      readonly shard: ShardId;
      readonly generation: Generation;
      readonly role: Role;
      readonly term: number;
    }
  | {
      readonly kind: 'applied';
      readonly shard: ShardId;
      readonly generation: Generation;
      readonly index: number;
      readonly term: number;
      /** Hash of the entry; equal on every replica that applied this index. */
      readonly entryHash: number;
    }
  | {
      readonly kind: 'registerWritten';
      readonly shard: ShardId;
      readonly generation: Generation;
      readonly index: number;
      readonly key: ActionKey;
      readonly command: 'commit' | 'publish' | 'invalidate' | 'offer';
      readonly token: Token | undefined;
      readonly outcome: ApplyOutcome;
    }
  | {
      readonly kind: 'configured';
      readonly shard: ShardId;
      readonly generation: Generation;
      readonly configuration: Configuration;
    }
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
      readonly reason: string;
    }
  | { readonly kind: 'staleRefused'; readonly shard: ShardId; readonly key: ActionKey; readonly token: Token }
  | { readonly kind: 'generationForced'; readonly shard: ShardId; readonly generation: Generation }
  | {
      readonly kind: 'generationsMet';
      readonly shard: ShardId;
      readonly winner: Generation;
      readonly loser: Generation;
    }
  | {
      readonly kind: 'merged';
      readonly shard: ShardId;
      readonly generation: Generation;
      readonly offered: number;
      readonly accepted: number;
    };
