/** Between any member and the leader of a shard: reading and writing registers without a claim. */
import type { ActionKey, BlobKey, NodeId, ShardId } from '../ids.ts';
import type { ApplyOutcome, HolderPromise, InvalidationReason, OfferedRegister, Register } from './types.ts';

export interface FoundRegister {
  readonly key: ActionKey;
  readonly register: Register;
  /** Per holder of the register, in the same order: what is left of its pin. */
  readonly pinnedForMs: readonly number[];
}

export type RegisterMessage =
  /** Many keys of one shard. `fresh` asks for a linearizable read; otherwise a lease read may be slightly stale. */
  | {
      readonly kind: 'lookup';
      readonly id: number;
      readonly shard: ShardId;
      readonly keys: readonly ActionKey[];
      readonly fresh: boolean;
    }
  /** Keys without a register are left out. */
  | {
      readonly kind: 'lookedUp';
      readonly id: number;
      readonly shard: ShardId;
      readonly found: readonly FoundRegister[];
    }
  | {
      readonly kind: 'publish';
      readonly id: number;
      readonly shard: ShardId;
      readonly key: ActionKey;
      readonly result: BlobKey;
      readonly executor: NodeId;
      readonly promises: readonly HolderPromise[];
    }
  | {
      readonly kind: 'invalidate';
      readonly id: number;
      readonly shard: ShardId;
      readonly key: ActionKey;
      readonly result: BlobKey;
      readonly reason: InvalidationReason;
    }
  /** What a superseded history holds, offered to the one that survives. */
  | {
      readonly kind: 'offerRegisters';
      readonly id: number;
      readonly shard: ShardId;
      readonly registers: readonly { readonly key: ActionKey; readonly register: OfferedRegister }[];
    }
  /** Answers publish, invalidate (one outcome) and offerRegisters (one for each, in order): decided and replicated. */
  | {
      readonly kind: 'written';
      readonly id: number;
      readonly shard: ShardId;
      readonly outcomes: readonly ApplyOutcome[];
    }
  /** Answers any of the requests above, and any claim message for a shard: ask `leader`, or try again later. */
  | {
      readonly kind: 'redirect';
      readonly id: number;
      readonly shard: ShardId;
      readonly leader: NodeId | undefined;
      readonly reason: 'notLeader' | 'busy';
    };
