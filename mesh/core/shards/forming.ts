/**
 * Forming a shard anew, when the quorum of its group is gone for good as far as anybody can tell. This is the only way one
 * history becomes two, so it takes the consent of a majority of all members that were alive that day, two at least, and a
 * member consents durably to one formation for each shard and number. A node alone never forces.
 *
 * @see docs/protocol.md, "Generations"
 */
import { hashPair, hashText } from '../hash.ts';
import {
  type Generation,
  type NodeId,
  nodeOf,
  type ReplicaId,
  replicaId,
  sameGeneration,
  type ShardId,
} from '../ids.ts';
import { shardLimits } from '../limits.ts';
import { majority } from '../raft/quorum.ts';
import type { FormReason, ShardMessage, ShardRecord, ShardStatus } from './messages.ts';
import { preferredVoters, ranking } from './placement.ts';
import type { Directory } from './directory.ts';
import type { MemberView } from './types.ts';

export interface FormingPort {
  members(): readonly MemberView[];
  /** The freshest that is known, by this node's own replica or by hearsay. */
  statusOf(shard: ShardId): ShardStatus | undefined;
  /** With `record`: only once that is durable. */
  send(to: NodeId, message: ShardMessage, record?: ShardRecord): void;
  /** This node has a replica of the shard's present group that hears a leader, or leads. */
  hasLeader(shard: ShardId): boolean;
  /** The majority consented, and the voters were told. */
  forced(shard: ShardId, generation: Generation): void;
}

export interface Forming {
  /** Looks for shards whose quorum is away, and forms those that this node is first in line for. */
  check(shards: number, nowMs: number): void;
  onRequest(from: NodeId, message: Extract<ShardMessage, { kind: 'formRequest' }>, nowMs: number): void;
  onReply(from: NodeId, message: Extract<ShardMessage, { kind: 'formReply' }>, nowMs: number): void;
  /** Whether this node consented to the generation, and so may take part in its first term. */
  consentedTo(shard: ShardId, generation: Generation): boolean;
  /** Time stood still for this node: nobody was away for long as far as it knows. */
  gap(): void;
  readonly consents: ReadonlyMap<ShardId, Generation>;
}

interface Attempt {
  readonly generation: Generation;
  readonly voters: readonly ReplicaId[];
  readonly consents: Set<NodeId>;
  readonly untilMs: number;
}

export function createForming(
  self: NodeId,
  directory: Directory,
  port: FormingPort,
  restored: ReadonlyMap<ShardId, Generation>,
): Forming {
  const consents = new Map(restored);
  const attempts = new Map<ShardId, Attempt>();
  const awaySinceMs = new Map<ShardId, number>();

  /** Fewer than a majority of the known voters are alive, or nobody can say which of two histories counts. */
  function quorumAway(shard: ShardId): boolean {
    const status = port.statusOf(shard);
    if (!status) return false;
    const { voters } = status.configuration;
    const present = new Set(
      port
        .members()
        .filter((member) => member.status === 'alive' || member.status === 'suspect')
        .map((member) => replicaId(member.node, member.disk)),
    );
    const alive = voters.filter((voter) => present.has(voter));
    return voters.length > 0 && alive.length < majority(voters.length);
  }

  /**
   * A voter that hears no leader for so long cannot be helped by its quorum, whoever seems to be there: the others may know
   * of a later configuration whose voters are gone.
   */
  function leaderless(shard: ShardId): boolean {
    const voters = port.statusOf(shard)?.configuration.voters ?? [];
    return voters.some((voter) => nodeOf(voter) === self) && !port.hasLeader(shard);
  }

  function reasonNow(shard: ShardId, nowMs: number): FormReason | undefined {
    const other = directory.conflictOf(shard);
    const status = port.statusOf(shard);
    const away = other !== undefined || quorumAway(shard) || leaderless(shard);
    const sinceMs = away ? (awaySinceMs.get(shard) ?? nowMs) : undefined;
    if (sinceMs === undefined) awaySinceMs.delete(shard);
    else awaySinceMs.set(shard, sinceMs);
    if (!status || sinceMs === undefined) return undefined;
    const waitMs = other ? shardLimits.conflictAfterMs : shardLimits.formAfterMs;
    if (nowMs - sinceMs < waitMs) return undefined;
    return other ? { kind: 'conflict', one: status.generation, other } : { kind: 'quorumGone' };
  }

  /** Alive members, and those alive within the last day: who is asked, and who is counted. */
  function electorate(nowMs: number): { readonly alive: readonly MemberView[]; readonly seen: number } {
    const members = port.members();
    const alive = members.filter((member) => member.status === 'alive');
    const seen = members.filter(
      (member) => member.status === 'alive' || nowMs - member.lastAliveAtMs < shardLimits.dayMs,
    );
    return { alive, seen: seen.length };
  }

  function mayForce(consenting: number, seen: number): boolean {
    return consenting >= 2 && consenting >= majority(seen);
  }

  function attempt(
    shard: ShardId,
    status: ShardStatus,
    because: FormReason,
    before: Attempt | undefined,
    nowMs: number,
  ): void {
    const { alive, seen } = electorate(nowMs);
    if (!mayForce(alive.length, seen)) return;
    const number = Math.max(status.generation.number, consents.get(shard)?.number ?? 0) + 1;
    // Every voter has to consent, so who did not the last time is none of them now; steering can bring it in later.
    const consented = before && mayForce(before.consents.size, seen) ? before.consents : undefined;
    const willing = port.members().filter(({ node }) => !consented || consented.has(node));
    const voters = preferredVoters(shard, willing, nowMs);
    if (voters.length === 0) return;
    const generation: Generation = { number, hash: generationHash(shard, number, voters), forced: true };
    const untilMs = nowMs + shardLimits.formTimeoutMs;
    attempts.set(shard, { generation, voters, consents: new Set(), untilMs });
    for (const member of alive) port.send(member.node, { kind: 'formRequest', shard, generation, voters, because });
  }

  /** A member believes its own eyes only: the request is no evidence, except for a history that it did not know. */
  function agrees(shard: ShardId, generation: Generation, because: FormReason, nowMs: number): boolean {
    const status = port.statusOf(shard);
    const consented = consents.get(shard);
    if (consented && sameGeneration(consented, generation)) return true;
    if (consented && consented.number >= generation.number) return false;
    if (!status || status.generation.number >= generation.number) return false;
    if (because.kind === 'conflict') {
      const { one, other } = because;
      const { number } = status.generation;
      return one.number === number && other.number === number && !sameGeneration(one, other);
    }
    return !port.hasLeader(shard) && reasonNow(shard, nowMs) !== undefined;
  }

  return {
    consents,
    consentedTo(shard, generation) {
      const consented = consents.get(shard);
      return consented !== undefined && sameGeneration(consented, generation);
    },
    check(shards, nowMs) {
      for (let shard = 0; shard < shards; shard++) {
        const because = reasonNow(shard, nowMs);
        const running = attempts.get(shard);
        if (running && running.untilMs > nowMs) continue;
        attempts.delete(shard);
        const status = port.statusOf(shard);
        if (!because || !status) continue;
        const [first] = ranking(shard, port.members(), nowMs);
        if (first?.node === self) attempt(shard, status, because, running, nowMs);
      }
    },
    onRequest(from, message, nowMs) {
      const { shard, generation, voters, because } = message;
      const genuine = generation.forced && generation.hash === generationHash(shard, generation.number, voters);
      const consent = genuine && agrees(shard, generation, because, nowMs);
      const known = consent ? undefined : port.statusOf(shard);
      const reply: ShardMessage = { kind: 'formReply', shard, generation, consent, known };
      if (!consent) return port.send(from, reply);
      consents.set(shard, generation);
      port.send(from, reply, { kind: 'consent', shard, generation });
    },
    onReply(from, message, nowMs) {
      const { shard, generation } = message;
      const running = attempts.get(shard);
      if (!running || !sameGeneration(running.generation, generation)) return;
      if (!message.consent) {
        // It may have told of a history, or of voters, that were not known here.
        if (reasonNow(shard, nowMs) === undefined) attempts.delete(shard);
        return;
      }
      running.consents.add(from);
      const { voters } = running;
      const all = voters.every((voter) => running.consents.has(nodeOf(voter)));
      if (!all || !mayForce(running.consents.size, electorate(nowMs).seen)) return;
      attempts.delete(shard);
      for (const voter of voters) port.send(nodeOf(voter), { kind: 'formed', shard, generation, voters });
      port.forced(shard, generation);
    },
    gap() {
      awaySinceMs.clear();
      attempts.clear();
    },
  };
}

/** Names one history among those of a number: by its shard and its first voters. */
export function generationHash(shard: ShardId, number: number, voters: readonly ReplicaId[]): number {
  return hashPair(hashPair(shard, number), hashText(voters.join(' ')));
}
