/** Who coordinates which shard, as this node knows it. Fields are only ever added. */
import { nodeOf, type NodeId } from '../../mesh/core/ids.ts';
import type { ShardStatus } from '../../mesh/core/shards/messages.ts';
import type { ActiveMesh } from './active-mesh.ts';

export interface CoordinationStatus {
  readonly shards: number;
  /** Shards that this node leads, and those in which it votes. */
  readonly led: number;
  readonly voting: number;
  /** Shards whose leader this node does not know; their actions are decided by each node alone. */
  readonly leaderless: number;
  /** Shards whose present history was formed anew, because most of their coordinators were gone. */
  readonly formedByForce: number;
  /** Results that this node stored as a leader, and refused because their executor had lost its claim. */
  readonly commits: { readonly accepted: number; readonly stale: number };
  /** How many shards each member leads. */
  readonly leaders: Readonly<Record<NodeId, number>>;
  readonly list: readonly ShardLine[];
}

export interface ShardLine {
  readonly shard: number;
  readonly leader: NodeId | null;
  readonly voters: readonly NodeId[];
  /** Of the shard's history; above 1 when it was formed anew. */
  readonly generation: number;
  readonly forced: boolean;
}

export function coordinationStatusOf({ identity, machine, coordinationLog }: ActiveMesh): CoordinationStatus {
  const { coordination } = machine;
  const known = new Map(coordination.statuses().map((status) => [status.shard, status]));
  const list = Array.from({ length: identity.mesh.shards }, (_, shard) =>
    lineOf(shard, coordination.leaderOf(shard), known.get(shard)),
  );
  const leaders: Record<NodeId, number> = {};
  for (const { leader } of list) if (leader !== null) leaders[leader] = (leaders[leader] ?? 0) + 1;
  return {
    shards: list.length,
    led: leaders[identity.peerId] ?? 0,
    voting: list.filter(({ voters }) => voters.includes(identity.peerId)).length,
    leaderless: list.filter(({ leader }) => leader === null).length,
    formedByForce: list.filter(({ forced }) => forced).length,
    commits: coordinationLog.commits(),
    leaders,
    list,
  };
}

function lineOf(shard: number, leader: NodeId | undefined, known: ShardStatus | undefined): ShardLine {
  return {
    shard,
    leader: leader ?? null,
    voters: (known?.configuration.voters ?? []).map(nodeOf),
    generation: known?.generation.number ?? 0,
    forced: known?.generation.forced ?? false,
  };
}
