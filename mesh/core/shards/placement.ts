/**
 * Which members should coordinate a shard. Members are ranked by how stable they are, then by rendezvous hashing, so that
 * every node that sees the same members names the same ones, and a member that comes or goes moves only its own share.
 * All in integers. What the groups really are is in their own logs; this is only where they are steered.
 *
 * @see Thaler and Ravishankar, "Using name-based mappings to increase hit rates", 1998 (rendezvous hashing)
 */
import { hashPair, hashText } from '../hash.ts';
import { type ActionKey, compareIds, type NodeId, type ReplicaId, replicaId, type ShardId } from '../ids.ts';
import { shardLimits } from '../limits.ts';
import type { MemberView } from './types.ts';

/** The shard of an action; `shards` is the mesh's and never changes. */
export function shardOf(key: ActionKey, shards: number): ShardId {
  return hashText(key) % shards;
}

/** 1, 3 or 5: two members do not make a majority that survives either. */
export function voterCount(members: number): number {
  if (members >= shardLimits.fiveVotersFrom) return 5;
  return members >= 3 ? 3 : 1;
}

/** Higher is steadier: a role given by people, then mains power, then a wire, then hours without a break. */
export function stabilityRank(member: MemberView, nowMs: number): number {
  const { alwaysOn, mainsPower, wired } = member.stability;
  const proven = nowMs - member.aliveSinceMs >= shardLimits.provenMs;
  return (alwaysOn ? 8 : 0) + (mainsPower ? 4 : 0) + (wired ? 2 : 0) + (proven ? 1 : 0);
}

/** Every member that can coordinate the shard, the best first. Only opting out and absence exclude. */
export function ranking(shard: ShardId, members: readonly MemberView[], nowMs: number): readonly MemberView[] {
  return members
    .filter((member) => member.status === 'alive' && !member.stability.optedOut)
    .map((member) => ({ member, rank: stabilityRank(member, nowMs), weight: weightOf(shard, member.node) }))
    .sort((a, b) => b.rank - a.rank || b.weight - a.weight || compareIds(a.member.node, b.member.node))
    .map(({ member }) => member);
}

/** The replicas that should be the shard's voters, the one that should lead first. */
export function preferredVoters(shard: ShardId, members: readonly MemberView[], nowMs: number): readonly ReplicaId[] {
  const ranked = ranking(shard, members, nowMs);
  return ranked.slice(0, voterCount(ranked.length)).map(({ node, disk }) => replicaId(node, disk));
}

function weightOf(shard: ShardId, node: NodeId): number {
  return hashPair(hashText(node), shard);
}
