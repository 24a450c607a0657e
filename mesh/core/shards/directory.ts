/** What this node knows of every shard's history: the newest generation that it heard of, its voters and its leader. */
import { type Generation, type NodeId, sameGeneration, type ShardId } from '../ids.ts';
import type { ShardStatus } from './messages.ts';

export type Learned =
  | 'nothing'
  | 'newer'
  /** Another history of the same number: both are superseded by the next one. */
  | 'conflict';

export interface Directory {
  get(shard: ShardId): ShardStatus | undefined;
  /** All that is known, by shard. */
  all(): readonly ShardStatus[];
  learn(status: ShardStatus): Learned;
  /** The other history of the known number, while both are known. */
  conflictOf(shard: ShardId): Generation | undefined;
  /** A leader that is gone leads nothing, whatever was heard of it. */
  forgetLeader(node: NodeId): void;
}

export function createDirectory(): Directory {
  const known = new Map<ShardId, ShardStatus>();
  const conflicts = new Map<ShardId, Generation>();
  return {
    get: (shard) => known.get(shard),
    all: () => [...known.values()].sort((a, b) => a.shard - b.shard),
    conflictOf: (shard) => conflicts.get(shard),
    learn(status) {
      const { shard, generation } = status;
      const old = known.get(shard);
      if (old && generation.number < old.generation.number) return 'nothing';
      if (old && generation.number === old.generation.number) {
        if (!sameGeneration(generation, old.generation)) {
          const other = conflicts.get(shard);
          conflicts.set(shard, generation);
          return other && sameGeneration(other, generation) ? 'nothing' : 'conflict';
        }
        if (!isFresher(status, old)) return 'nothing';
      } else {
        conflicts.delete(shard);
      }
      known.set(shard, status);
      return 'newer';
    },
    forgetLeader(node) {
      for (const [shard, status] of known) {
        if (status.leader === node) known.set(shard, { ...status, leader: undefined });
      }
    },
  };
}

/** In one history: a later term, then a later configuration, then a leader where none was known. */
function isFresher(status: ShardStatus, than: ShardStatus): boolean {
  if (status.term !== than.term) return status.term > than.term;
  if (status.configurationIndex !== than.configurationIndex) return status.configurationIndex > than.configurationIndex;
  return status.leader !== undefined && than.leader === undefined;
}
