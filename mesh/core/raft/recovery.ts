/**
 * What a replica's records on disk amount to. A crash loses a tail of records that were not synced, so every prefix of
 * what was issued must fold into a state that the replica may continue from: it promised nothing that is behind it.
 */
import { makeConfiguration } from './configuration.ts';
import type { ReplicaId } from '../ids.ts';
import type { LogPosition, RaftDisk, RaftRecord } from './types.ts';

/** A replica that never wrote anything. */
export function blankDisk<Command, State>(): RaftDisk<Command, State> {
  return { term: 0, vote: undefined, snapshot: undefined, entries: [], forgotten: { index: 0, term: 0 } };
}

/** The disk after one more record; records are folded in the order in which they were issued. */
export function foldRecord<Command, State>(
  disk: RaftDisk<Command, State>,
  record: RaftRecord<Command, State>,
): RaftDisk<Command, State> {
  switch (record.kind) {
    case 'hardState':
      return { ...disk, term: record.term, vote: record.vote };
    case 'append': {
      const first = record.entries[0];
      if (!first) return disk;
      return { ...disk, entries: [...disk.entries.filter((entry) => entry.index < first.index), ...record.entries] };
    }
    case 'snapshot': {
      const { snapshot } = record;
      const entries = record.whole ? [] : disk.entries.filter((entry) => entry.index > snapshot.index);
      return { ...disk, snapshot, entries };
    }
    case 'removed':
      return { ...disk, snapshot: undefined, entries: [], forgotten: record.forgotten };
  }
}

/** The end of everything that a replica with this disk ever acknowledged. */
export function endOf<Command, State>(disk: RaftDisk<Command, State>): LogPosition {
  const last = disk.entries.at(-1) ?? disk.snapshot;
  const own = { index: last?.index ?? 0, term: last?.term ?? 0 };
  return isUpToDate(own, disk.forgotten) ? own : disk.forgotten;
}

/** Whether a log that ends at `position` has at least what one that ends at `other` has (section 3.6.1). */
export function isUpToDate(position: LogPosition, other: LogPosition): boolean {
  return position.term > other.term || (position.term === other.term && position.index >= other.index);
}

/** The fewest records that fold into this disk: what remains of a log file when it is rewritten. */
export function recordsOf<Command, State>(disk: RaftDisk<Command, State>): RaftRecord<Command, State>[] {
  const records: RaftRecord<Command, State>[] = [{ kind: 'hardState', term: disk.term, vote: disk.vote }];
  if (disk.forgotten.index > 0) records.push({ kind: 'removed', forgotten: disk.forgotten });
  if (disk.snapshot) records.push({ kind: 'snapshot', snapshot: disk.snapshot, whole: true });
  if (disk.entries.length > 0) records.push({ kind: 'append', entries: disk.entries });
  return records;
}

/** The records that found a group: every first voter writes the same ones before it takes part. */
export function genesisRecords<Command, State>(
  voters: readonly ReplicaId[],
  state: State,
): RaftRecord<Command, State>[] {
  const snapshot = { index: 1, term: 1, configuration: makeConfiguration(voters), state, sizeBytes: 0 };
  return recordsOf({ ...blankDisk<Command, State>(), term: 1, snapshot });
}
