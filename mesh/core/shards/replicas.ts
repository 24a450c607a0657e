/**
 * The replicas of shard groups on this node: how each begins (founded, formed, or brought in by a leader), to whom messages
 * belong, and how it ends (removed by its group, or superseded by a higher generation).
 */
import { type Generation, type NodeId, nodeOf, type ReplicaId, type ShardId, sameGeneration } from '../ids.ts';
import type { CoordinationRecord, GroupEnvelope } from '../messages.ts';
import { blankDisk, endOf, foldRecord, genesisRecords } from '../raft/recovery.ts';
import { offerOf } from '../registers/holders.ts';
import { createRegisters, emptyRegisters } from '../registers/registers.ts';
import type { RegisterBatch, RegistersState } from '../registers/types.ts';
import type { Rng } from '../rng.ts';
import type { Directory } from './directory.ts';
import { generationHash } from './forming.ts';
import { createGroup, type Group, type GroupDisk, type GroupPort } from './group.ts';
import type { Heirloom } from './merging.ts';
import type { ShardStatus } from './messages.ts';
import { type CoordinationDisk, type GroupOnDisk, groupKey } from './recovery.ts';
import type { CoordinationNote } from './types.ts';

export interface ReplicasPort extends Omit<GroupPort, 'persist' | 'removed'> {
  readonly nextPersistId: () => number;
  /** Issues a record under the next id. */
  persistNext(record: CoordinationRecord): void;
  /** Issues a record under an id that was taken already. */
  persist(id: number, record: CoordinationRecord): void;
  note(note: CoordinationNote): void;
  /** Tells a node that is behind what is known of a shard. */
  tell(to: NodeId, shard: ShardId): void;
  consentedTo(shard: ShardId, generation: Generation): boolean;
  /** What a superseded history leaves. */
  bequeath(heirloom: Heirloom): void;
}

export interface Replicas {
  /** The present history's replica of each shard that has one here. */
  readonly groups: ReadonlyMap<ShardId, Group>;
  /** Makes this node the only voter of every shard's first generation. */
  found(shards: readonly ShardId[], nowMs: number): void;
  /** Starts what the disk holds, and offers again what was not offered to its end. */
  recover(disk: CoordinationDisk, nowMs: number): void;
  receive(sender: NodeId, envelope: GroupEnvelope, nowMs: number): void;
  /** Takes in what is said of a shard; a history below the newest known one ends here. */
  learn(status: ShardStatus, nowMs: number): void;
  /** The first term of a history that this node consented to. */
  formed(shard: ShardId, generation: Generation, voters: readonly ReplicaId[], nowMs: number): void;
  persisted(id: number, nowMs: number): void;
  /** All that a superseded history held was answered: its log can go. */
  giveUp(shard: ShardId, generation: Generation): void;
  onDisk(): ReadonlyMap<string, GroupOnDisk>;
}

export function createReplicas(
  self: ReplicaId,
  shards: number,
  directory: Directory,
  rng: Rng,
  port: ReplicasPort,
): Replicas {
  const groups = new Map<ShardId, Group>();
  // Replicas that are no more: what must be remembered of them, and superseded ones whose registers are still offered.
  const past = new Map<string, GroupOnDisk>();
  // Which group waits for which persist, in the order of ids.
  const unsynced: { readonly id: number; readonly shard: ShardId }[] = [];

  function start(shard: ShardId, generation: Generation, disk: GroupDisk, nowMs: number): Group {
    const group = createGroup(
      {
        shard,
        generation,
        self,
        disk,
        rng: rng.fork(groupKey(shard, generation)),
        nextPersistId: port.nextPersistId,
        port: {
          ...port,
          persist(id, record) {
            port.persist(id, record);
            unsynced.push({ id, shard });
          },
          removed,
        },
      },
      nowMs,
    );
    groups.set(shard, group);
    forgetOlder(shard);
    return group;
  }

  /** The newest history of the shard that this disk remembers; no older one begins again here. */
  function newestOf(shard: ShardId): number {
    let newest = groups.get(shard)?.generation.number ?? 0;
    for (const one of past.values()) if (one.shard === shard) newest = Math.max(newest, one.generation.number);
    return newest;
  }

  /** So that a disk remembers of each shard no more than its newest history, and those whose registers are still offered. */
  function forgetOlder(shard: ShardId): void {
    const newest = newestOf(shard);
    for (const [key, one] of past) {
      if (one.shard === shard && one.generation.number < newest && one.superseded !== 'yes') past.delete(key);
    }
  }

  function begin(shard: ShardId, generation: Generation, voters: readonly ReplicaId[], nowMs: number): void {
    let disk: GroupDisk = blankDisk();
    for (const record of genesisRecords<RegisterBatch, RegistersState>(voters, emptyRegisters)) {
      port.persistNext({ kind: 'group', shard, generation, record });
      disk = foldRecord(disk, record);
    }
    start(shard, generation, disk, nowMs);
  }

  function removed(shard: ShardId): void {
    const group = groups.get(shard);
    if (!group) return;
    group.stop();
    groups.delete(shard);
    const { generation } = group;
    past.set(groupKey(shard, generation), { shard, generation, disk: forget(group.disk()), superseded: 'no' });
  }

  function learn(status: ShardStatus, nowMs: number): void {
    const { shard, generation } = status;
    if (shard >= shards) return;
    const before = directory.get(shard);
    const learned = directory.learn(status);
    if (learned === 'conflict' && before) {
      port.note({ kind: 'generationsMet', shard, winner: before.generation, loser: generation });
    }
    const group = groups.get(shard);
    if (learned === 'newer' && group && group.generation.number < generation.number) {
      supersede(group, generation, nowMs);
    }
  }

  function supersede(group: Group, winner: Generation, nowMs: number): void {
    const { shard, generation } = group;
    port.note({ kind: 'generationsMet', shard, winner, loser: generation });
    // What was applied must survive a crash until it was offered, and only a snapshot says what was.
    group.compact(nowMs);
    group.stop();
    groups.delete(shard);
    port.persistNext({ kind: 'shard', record: { kind: 'superseded', shard, generation, offered: false } });
    const onDisk: GroupOnDisk = { shard, generation, disk: group.disk(), superseded: 'yes' };
    past.set(groupKey(shard, generation), onDisk);
    bequeath(onDisk);
  }

  /**
   * Offers what the log says beyond what is known to be committed, too: a leader may have answered for it, and the disk does
   * not remember how far the others were. Where it was never decided, writing it if absent does no harm.
   */
  function bequeath({ shard, generation, disk: { snapshot, entries } }: GroupOnDisk): void {
    const registers = createRegisters(snapshot?.state);
    for (const { index, term, data } of entries) {
      if (index <= (snapshot?.index ?? 0) || data.kind !== 'command') continue;
      registers.apply(data.command, { generation: generation.number, term });
    }
    const { shardMs } = registers;
    const offered = [...registers.entries()].map(([key, register]) => ({ key, register: offerOf(register, shardMs) }));
    port.bequeath({ shard, generation, registers: offered });
  }

  return {
    groups,
    found(all, nowMs) {
      for (const shard of all) {
        const generation = { number: 1, hash: generationHash(shard, 1, [self]), forced: false };
        directory.learn(firstHeardOf(shard, generation, [self]));
        begin(shard, generation, [self], nowMs);
      }
    },
    recover(disk, nowMs) {
      for (const [key, group] of disk.groups) {
        const { shard, generation, superseded } = group;
        if (superseded !== 'no' || (!group.disk.snapshot && group.disk.entries.length === 0)) past.set(key, group);
        else start(shard, generation, group.disk, nowMs);
        if (superseded === 'yes') bequeath(group);
        const voters = group.disk.snapshot?.configuration.voters ?? [];
        if (superseded === 'no') directory.learn(firstHeardOf(shard, generation, voters));
      }
      for (let shard = 0; shard < shards; shard++) forgetOlder(shard);
    },
    receive(sender, envelope, nowMs) {
      const { shard, generation, from, to, message } = envelope;
      if (nodeOf(from) !== sender || to !== self || shard >= shards) return;
      const group = groups.get(shard);
      if (group && sameGeneration(group.generation, generation)) return group.receive(from, message, nowMs);
      const known = directory.get(shard)?.generation ?? group?.generation;
      if (known && generation.number < known.number) return port.tell(sender, shard);
      learn(firstHeardOf(shard, generation, []), nowMs);
      const before = past.get(groupKey(shard, generation));
      // A leader brings this replica in; whoever else writes to it cannot know better than the directory.
      const brings = message.kind === 'append' || message.kind === 'snapshot' || message.kind === 'heartbeat';
      // A voter that gave up its log still counts in the majority: it answers by what it remembers of where that ended.
      const votes = message.kind === 'vote' && directory.get(shard)?.configuration.voters.includes(self) === true;
      const over = (before && before.superseded !== 'no') || generation.number < newestOf(shard);
      if (groups.has(shard) || !(brings || votes) || over) return;
      past.delete(groupKey(shard, generation));
      start(shard, generation, before?.disk ?? blankDisk(), nowMs).receive(from, message, nowMs);
    },
    learn,
    formed(shard, generation, voters, nowMs) {
      const group = groups.get(shard);
      if (!port.consentedTo(shard, generation) || !voters.includes(self)) return;
      if (generation.hash !== generationHash(shard, generation.number, voters)) return;
      if (group && group.generation.number >= generation.number) return;
      if (past.has(groupKey(shard, generation)) || generation.number < newestOf(shard)) return;
      learn(firstHeardOf(shard, generation, voters), nowMs);
      const known = directory.get(shard);
      if (known && sameGeneration(known.generation, generation)) begin(shard, generation, voters, nowMs);
    },
    persisted(id, nowMs) {
      const waiting = new Set<ShardId>();
      for (let first = unsynced[0]; first && first.id <= id; first = unsynced[0]) {
        waiting.add(first.shard);
        unsynced.shift();
      }
      for (const shard of waiting) groups.get(shard)?.step({ kind: 'persisted', id }, nowMs);
    },
    giveUp(shard, generation) {
      const known = past.get(groupKey(shard, generation));
      if (!known) return;
      const disk = forget(known.disk);
      port.persistNext({ kind: 'shard', record: { kind: 'superseded', shard, generation, offered: true } });
      const record = { kind: 'removed' as const, forgotten: disk.forgotten };
      port.persistNext({ kind: 'group', shard, generation, record });
      past.set(groupKey(shard, generation), { ...known, superseded: 'offered', disk });
      forgetOlder(shard);
    },
    onDisk() {
      const all = new Map<string, GroupOnDisk>(past);
      for (const group of groups.values()) {
        const { shard, generation } = group;
        all.set(groupKey(shard, generation), { shard, generation, disk: group.disk(), superseded: 'no' });
      }
      return all;
    },
  };
}

/** Of a history of which nothing but its first voters is known; any status of it is fresher. */
function firstHeardOf(shard: ShardId, generation: Generation, voters: readonly ReplicaId[]): ShardStatus {
  const configuration = { voters, learners: [] };
  return { shard, generation, term: 0, leader: undefined, configuration, configurationIndex: 0 };
}

/** What a replica keeps when it gives up its log. */
function forget(disk: GroupDisk): GroupDisk {
  return foldRecord(disk, { kind: 'removed', forgotten: endOf(disk) });
}
