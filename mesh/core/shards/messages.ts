/** Between members: who leads which shard, and forming a shard anew. */
import type { Generation, NodeId, ReplicaId, ShardId } from '../ids.ts';
import type { Configuration } from '../raft/types.ts';

/** What a node knows of a shard's history. Higher generation, then term, then index of the configuration, replaces lower. */
export interface ShardStatus {
  readonly shard: ShardId;
  readonly generation: Generation;
  readonly term: number;
  readonly leader: NodeId | undefined;
  readonly configuration: Configuration;
  /** Where that configuration stands in the log. */
  readonly configurationIndex: number;
}

export type ShardMessage =
  /** Sent to the group's members and to who asks; spread by gossip when it changes. */
  | { readonly kind: 'shardStatus'; readonly statuses: readonly ShardStatus[] }
  | { readonly kind: 'askShards'; readonly shards: readonly ShardId[] }
  /** "May I form this shard anew?" A member consents to one formation per shard and number, durably. */
  | {
      readonly kind: 'formRequest';
      readonly shard: ShardId;
      readonly generation: Generation;
      readonly voters: readonly ReplicaId[];
      readonly because: FormReason;
    }
  | {
      readonly kind: 'formReply';
      readonly shard: ShardId;
      readonly generation: Generation;
      readonly consent: boolean;
      /** What the answering member knows, when that is why it refused. */
      readonly known: ShardStatus | undefined;
    }
  /** The majority consented: start the first term. */
  | {
      readonly kind: 'formed';
      readonly shard: ShardId;
      readonly generation: Generation;
      readonly voters: readonly ReplicaId[];
    };

export type FormReason =
  /** No majority of the group's voters has been alive for `formAfterMs`. */
  | { readonly kind: 'quorumGone' }
  /** Two histories of one number met: both are superseded by the next. */
  | { readonly kind: 'conflict'; readonly one: Generation; readonly other: Generation };

/** What the shard layer writes to disk. */
export type ShardRecord =
  | { readonly kind: 'consent'; readonly shard: ShardId; readonly generation: Generation }
  /** This history ended here: a higher generation was met. Its registers were offered when `offered` is true. */
  | {
      readonly kind: 'superseded';
      readonly shard: ShardId;
      readonly generation: Generation;
      readonly offered: boolean;
    };
