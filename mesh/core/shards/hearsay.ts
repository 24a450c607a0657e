/**
 * Telling and asking who leads which shard. Leaders announce what changed to everybody; each node tells one random member
 * all that it knows from time to time, which is how histories that split come to meet; who misses a leader asks.
 */
import type { NodeId, ShardId } from '../ids.ts';
import { shardLimits } from '../limits.ts';
import type { Rng } from '../rng.ts';
import type { ShardMessage, ShardStatus } from './messages.ts';

export interface HearsayPort {
  /** Members that are alive, without this node. */
  others(): readonly NodeId[];
  statusOf(shard: ShardId): ShardStatus | undefined;
  leaderOf(shard: ShardId): NodeId | undefined;
  send(to: NodeId, message: ShardMessage): void;
}

export interface Hearsay {
  readonly dueAtMs: number;
  tell(to: NodeId, shards: readonly ShardId[]): void;
  tellAll(to: NodeId): void;
  /** To everybody, at the end of the step. */
  announce(shard: ShardId): void;
  /** Sends what was announced, and hands it over for this node's own directory. */
  flush(): readonly ShardStatus[];
  wake(nowMs: number): void;
}

export function createHearsay(shards: readonly ShardId[], port: HearsayPort, rng: Rng, startMs: number): Hearsay {
  const announced = new Set<ShardId>();
  let tellAtMs = startMs + rng.below(shardLimits.statusIntervalMs);
  let askAtMs = startMs;

  function tell(to: NodeId, about: readonly ShardId[]): void {
    const statuses = about.flatMap((shard) => port.statusOf(shard) ?? []);
    if (statuses.length > 0) port.send(to, { kind: 'shardStatus', statuses });
  }

  function somebody(): NodeId | undefined {
    const others = port.others();
    return others.length > 0 ? others[rng.below(others.length)] : undefined;
  }

  return {
    get dueAtMs() {
      return Math.min(tellAtMs, askAtMs);
    },
    tell,
    tellAll: (to) => tell(to, shards),
    announce: (shard) => void announced.add(shard),
    flush() {
      if (announced.size === 0) return [];
      const about = [...announced];
      announced.clear();
      for (const node of port.others()) tell(node, about);
      return about.flatMap((shard) => port.statusOf(shard) ?? []);
    },
    wake(nowMs) {
      if (nowMs >= askAtMs) {
        askAtMs = nowMs + shardLimits.askIntervalMs;
        const unknown = shards.filter((shard) => port.leaderOf(shard) === undefined);
        const to = unknown.length > 0 ? somebody() : undefined;
        if (to !== undefined) port.send(to, { kind: 'askShards', shards: unknown });
      }
      if (nowMs >= tellAtMs) {
        tellAtMs = nowMs + shardLimits.statusIntervalMs;
        const to = somebody();
        if (to !== undefined) tell(to, shards);
      }
    },
  };
}
