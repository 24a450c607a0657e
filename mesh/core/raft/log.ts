/**
 * The log of one replica in memory: a snapshot, and the entries behind it (and a few before it, for followers that lag).
 * Also knows which configuration is in force: the latest in the log, committed or not (section 4.1).
 */
import assert from 'node:assert';
import { emptyConfiguration } from './configuration.ts';
import type { Configuration, Entry, Snapshot } from './types.ts';

export interface RaftLog<Command, State> {
  readonly snapshot: Snapshot<State> | undefined;
  /** 0 when empty. */
  readonly lastIndex: number;
  readonly lastTerm: number;
  /** Index of the oldest entry that can still be sent. */
  readonly firstIndex: number;
  readonly configuration: Configuration;
  /** Where the configuration in force stands in the log; 0 when there is none yet. */
  readonly configurationIndex: number;
  /** Undefined when the index is not held any more, or not yet. */
  termAt(index: number): number | undefined;
  /** The configuration in force after the entry at `index`. */
  configurationAt(index: number): Configuration;
  /** Entries from..to, both included; at most `count` and about `bytes` of commands, but at least one. */
  slice(from: number, to: number, count?: number, bytes?: number): readonly Entry<Command>[];
  /** Replaces everything from the first entry's index on. Entries must follow each other and the log. */
  append(entries: readonly Entry<Command>[]): void;
  /** The highest index up to `index` whose term is not above `term`: where a leader of that term should try next. */
  lastIndexOfTermAtMost(index: number, term: number): number;
  /** Takes the snapshot in place of the entries up to it, of which `keep` stay for slow followers. */
  compact(snapshot: Snapshot<State>, keep: number): void;
  /** Starts over from a snapshot; entries behind it stay only if they follow from it. */
  install(snapshot: Snapshot<State>): 'kept' | 'dropped';
}

export function createLog<Command, State>(
  initialSnapshot: Snapshot<State> | undefined,
  initialEntries: readonly Entry<Command>[],
): RaftLog<Command, State> {
  let snapshot = initialSnapshot;
  // What stands before the first entry held.
  let baseIndex = snapshot?.index ?? 0;
  let baseTerm = snapshot?.term ?? 0;
  let entries: Entry<Command>[] = [];
  // Ascending by index; the first is the configuration at the base.
  let configurations: { index: number; configuration: Configuration }[] = [
    { index: baseIndex, configuration: snapshot?.configuration ?? emptyConfiguration },
  ];

  const lastIndex = (): number => baseIndex + entries.length;
  const termAt = (index: number): number | undefined =>
    index === baseIndex ? baseTerm : entries[index - baseIndex - 1]?.term;
  const configurationAt = (index: number) => {
    const found = configurations.findLast((known) => known.index <= index);
    assert(found, `configuration at ${index} was compacted`);
    return found;
  };

  const inForce = () => {
    const last = configurations.at(-1);
    assert(last, 'a log has a configuration at its base');
    return last;
  };

  const log: RaftLog<Command, State> = {
    get snapshot() {
      return snapshot;
    },
    get lastIndex() {
      return lastIndex();
    },
    get lastTerm() {
      return termAt(lastIndex()) ?? 0;
    },
    get firstIndex() {
      return baseIndex + 1;
    },
    get configuration() {
      return inForce().configuration;
    },
    get configurationIndex() {
      return inForce().index;
    },
    termAt,
    configurationAt: (index) => configurationAt(index).configuration,
    slice(from, to, count = Number.POSITIVE_INFINITY, bytes = Number.POSITIVE_INFINITY) {
      const taken: Entry<Command>[] = [];
      let takenBytes = 0;
      for (let index = from; index <= to && taken.length < count; index++) {
        const entry = entries[index - baseIndex - 1];
        assert(entry, `entry ${index} is not in the log`);
        takenBytes += entrySize(entry);
        if (taken.length > 0 && takenBytes > bytes) break;
        taken.push(entry);
      }
      return taken;
    },
    append(added) {
      const first = added[0];
      if (!first) return;
      assert(first.index > baseIndex && first.index <= lastIndex() + 1, `entry ${first.index} leaves a hole`);
      entries.length = first.index - baseIndex - 1;
      configurations = configurations.filter((known) => known.index < first.index);
      for (const entry of added) {
        assert(entry.index === lastIndex() + 1, 'entries must follow each other');
        entries.push(entry);
        if (entry.data.kind === 'configuration') {
          configurations.push({ index: entry.index, configuration: entry.data.configuration });
        }
      }
    },
    lastIndexOfTermAtMost(index, term) {
      let at = Math.min(index, lastIndex());
      while (at > baseIndex && (termAt(at) ?? 0) > term) at--;
      return at;
    },
    compact(taken, keep) {
      snapshot = taken;
      rebase(Math.max(baseIndex, taken.index - keep));
    },
    install(installed) {
      snapshot = installed;
      const follows = termAt(installed.index) === installed.term;
      if (follows) {
        rebase(installed.index);
      } else {
        entries = [];
        baseIndex = installed.index;
        baseTerm = installed.term;
      }
      configurations = configurations.filter((known) => follows && known.index > installed.index);
      configurations.unshift({ index: installed.index, configuration: installed.configuration });
      return follows ? 'kept' : 'dropped';
    },
  };

  function rebase(index: number): void {
    const term = termAt(index);
    assert(term !== undefined, `cannot compact to ${index}`);
    const atBase = configurationAt(index);
    configurations = [atBase, ...configurations.filter((known) => known.index > index)];
    entries = entries.slice(index - baseIndex);
    baseIndex = index;
    baseTerm = term;
  }

  log.append(initialEntries.filter((entry) => entry.index > baseIndex));
  return log;
}

/** Bytes of commands; other entries weigh nothing worth counting. */
export function entrySize<Command>(entry: Entry<Command>): number {
  return entry.data.kind === 'command' ? entry.data.sizeBytes : 0;
}
