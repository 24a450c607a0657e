/** What a node's coordination records amount to; see raft/recovery.ts for the records of one group. */
import { type Generation, sameGeneration, type ShardId } from '../ids.ts';
import type { CoordinationRecord } from '../messages.ts';
import { blankDisk, foldRecord, recordsOf } from '../raft/recovery.ts';
import type { GroupDisk } from './group.ts';

export interface GroupOnDisk {
  readonly shard: ShardId;
  readonly generation: Generation;
  readonly disk: GroupDisk;
  /** A higher generation was met; `offered` when its registers were handed on. */
  readonly superseded: 'no' | 'yes' | 'offered';
}

export interface CoordinationDisk {
  /** By `groupKey`, in order of first record. */
  readonly groups: ReadonlyMap<string, GroupOnDisk>;
  /** The newest formation that this node consented to, per shard. */
  readonly consents: ReadonlyMap<ShardId, Generation>;
}

export function groupKey(shard: ShardId, generation: Generation): string {
  return `${shard}/${generation.number}/${generation.hash}`;
}

/** Folds records in the order in which they were issued. */
export function recoverCoordination(records: Iterable<CoordinationRecord>): CoordinationDisk {
  const groups = new Map<string, GroupOnDisk>();
  const consents = new Map<ShardId, Generation>();
  const change = (shard: ShardId, generation: Generation, how: (group: GroupOnDisk) => GroupOnDisk): void => {
    const key = groupKey(shard, generation);
    groups.set(key, how(groups.get(key) ?? { shard, generation, disk: blankDisk(), superseded: 'no' }));
  };
  for (const record of records) {
    if (record.kind === 'group') {
      const { shard, generation } = record;
      change(shard, generation, (group) => ({ ...group, disk: foldRecord(group.disk, record.record) }));
      continue;
    }
    const { shard, generation } = record.record;
    if (record.record.kind === 'consent') {
      const known = consents.get(shard);
      if (!known || sameGeneration(known, generation) || known.number < generation.number) {
        consents.set(shard, generation);
      }
    } else {
      const superseded = record.record.offered ? 'offered' : 'yes';
      change(shard, generation, (group) => ({ ...group, superseded }));
    }
  }
  return { groups, consents };
}

/** The fewest records that recover to this; what a log file is rewritten to. */
export function coordinationRecordsOf(disk: CoordinationDisk): CoordinationRecord[] {
  const records: CoordinationRecord[] = [];
  for (const { shard, generation, disk: group, superseded } of disk.groups.values()) {
    for (const record of recordsOf(group)) records.push({ kind: 'group', shard, generation, record });
    if (superseded === 'no') continue;
    const offered = superseded === 'offered';
    records.push({ kind: 'shard', record: { kind: 'superseded', shard, generation, offered } });
  }
  for (const [shard, generation] of disk.consents) {
    records.push({ kind: 'shard', record: { kind: 'consent', shard, generation } });
  }
  return records;
}
