/** Every message between nodes, and every record a node writes, as closed unions. */
import type { ClaimMessage, LeaseHint } from './claims/messages.ts';
import type { Generation, ReplicaId, ShardId } from './ids.ts';
import type { RaftMessage, RaftRecord } from './raft/types.ts';
import type { RegisterMessage } from './registers/messages.ts';
import type { RegisterBatch, RegistersState } from './registers/types.ts';
import type { ShardMessage, ShardRecord } from './shards/messages.ts';

/** The messages and records of a shard's group: Raft over batches of register commands. */
export type GroupMessage = RaftMessage<RegisterBatch, RegistersState>;
export type GroupRecord = RaftRecord<RegisterBatch, RegistersState>;

export interface GroupEnvelope {
  readonly shard: ShardId;
  readonly generation: Generation;
  readonly from: ReplicaId;
  readonly to: ReplicaId;
  readonly message: GroupMessage;
}

/** One message of one group, or the heartbeats of many groups between one pair of nodes. */
export type RaftTraffic =
  | ({ readonly kind: 'raft' } & GroupEnvelope)
  | { readonly kind: 'heartbeats'; readonly beats: readonly GroupEnvelope[] };

/** Everything that the coordination machines send. Membership and promises add their own (see peer.ts). */
export type CoordinationMessage =
  | RaftTraffic
  | RegisterMessage
  | ClaimMessage
  | ShardMessage
  | { readonly kind: 'hints'; readonly hints: readonly LeaseHint[] };

/** Everything that the coordination machines write. Records are durable in the order of their ids. */
export type CoordinationRecord =
  | { readonly kind: 'group'; readonly shard: ShardId; readonly generation: Generation; readonly record: GroupRecord }
  | { readonly kind: 'shard'; readonly record: ShardRecord };
