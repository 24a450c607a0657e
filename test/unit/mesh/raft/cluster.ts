/**
 * A few replicas in memory: a network that the test delivers by hand, disks that lose what was not synced, and Raft's
 * four safety properties checked after every step (dissertation, figure 3.2).
 */
import { expect } from 'vitest';
import type { ReplicaId } from '../../../../mesh/core/ids.ts';
import { createRng } from '../../../../mesh/core/rng.ts';
import { type Raft, createRaft } from '../../../../mesh/core/raft/raft.ts';
import { blankDisk, foldRecord, genesisRecords } from '../../../../mesh/core/raft/recovery.ts';
import type {
  Configuration,
  Entry,
  RaftDisk,
  RaftEffect,
  RaftEvent,
  RaftMessage,
  RaftRecord,
} from '../../../../mesh/core/raft/types.ts';

export type Command = string;
export type State = readonly string[];
type Message = RaftMessage<Command, State>;

export interface Flight {
  readonly from: ReplicaId;
  readonly to: ReplicaId;
  readonly message: Message;
}

interface Member {
  raft: Raft<Command, State>;
  synced: RaftDisk<Command, State>;
  unsynced: { id: number; record: RaftRecord<Command, State> }[];
  held: { after: number; flight: Flight }[];
  applied: { index: number; term: number; text: string }[];
  up: boolean;
}

export interface Cluster {
  nowMs: number;
  readonly network: Flight[];
  readonly members: Map<ReplicaId, Member>;
  /** Every effect so far that is no send and no persist, with who had it. */
  readonly seen: { id: ReplicaId; effect: RaftEffect<Command, State> }[];
  raft(id: ReplicaId): Raft<Command, State>;
  add(id: ReplicaId): void;
  step(id: ReplicaId, event: RaftEvent<Command, State>): readonly RaftEffect<Command, State>[];
  sync(id: ReplicaId): void;
  crash(id: ReplicaId): void;
  restart(id: ReplicaId): void;
  deliver(position: number, keep?: boolean): void;
  drop(position: number): void;
  advance(ms: number): void;
  /** Syncs and delivers everything, in order, while time passes; `cut` says which messages are lost. */
  settle(ms: number, cut?: (flight: Flight) => boolean): void;
  leader(): ReplicaId | undefined;
  applied(id: ReplicaId): string[];
  propose(id: ReplicaId, command: string): void;
  read(id: ReplicaId): number;
  change(id: ReplicaId, configuration: Configuration): readonly RaftEffect<Command, State>[];
}

export function createCluster(voters: readonly ReplicaId[], seed = 1): Cluster {
  const rng = createRng(seed);
  let lastPersistId = 0;
  let lastRequestId = 0;
  const members = new Map<ReplicaId, Member>();
  const network: Flight[] = [];
  const seen: Cluster['seen'] = [];
  // The checkers' knowledge.
  const leaders = new Map<number, ReplicaId>();
  const committed = new Map<number, { term: number; text: string }>();
  const reads = new Map<number, number>();

  const boot = (id: ReplicaId, disk: RaftDisk<Command, State>): Raft<Command, State> =>
    createRaft<Command, State>({
      self: id,
      disk,
      rng: rng.fork(`${id}-${cluster.nowMs}`),
      nextPersistId: () => ++lastPersistId,
      nowMs: cluster.nowMs,
    });

  const member = (id: ReplicaId): Member => {
    const found = members.get(id);
    if (!found) throw new Error(`no member ${id}`);
    return found;
  };

  const issued = (m: Member): RaftDisk<Command, State> =>
    m.unsynced.reduce((disk, { record }) => foldRecord(disk, record), m.synced);

  const cluster: Cluster = {
    nowMs: 0,
    network,
    members,
    seen,
    raft: (id) => member(id).raft,
    add(id) {
      const disk = blankDisk<Command, State>();
      members.set(id, { raft: boot(id, disk), synced: disk, unsynced: [], held: [], applied: [], up: true });
    },
    step(id, event) {
      const m = member(id);
      if (!m.up) return [];
      const effects = m.raft.step(event, cluster.nowMs);
      for (const effect of effects) perform(id, m, effect);
      return effects;
    },
    sync(id) {
      const m = member(id);
      if (!m.up) return;
      const last = m.unsynced.at(-1);
      if (!last) return;
      m.synced = issued(m);
      m.unsynced = [];
      const release = m.held.filter(({ after }) => after <= last.id);
      m.held = m.held.filter(({ after }) => after > last.id);
      network.push(...release.map(({ flight }) => flight));
      cluster.step(id, { kind: 'persisted', id: last.id });
    },
    crash(id) {
      const m = member(id);
      m.up = false;
      m.unsynced = [];
      m.held = [];
    },
    restart(id) {
      const m = member(id);
      if (m.up) return;
      m.up = true;
      m.raft = boot(id, m.synced);
      m.applied = (m.synced.snapshot?.state ?? []).map((text) => parse(text));
    },
    deliver(position, keep = false) {
      const flight = network[position];
      if (!flight) return;
      if (!keep) network.splice(position, 1);
      if (members.get(flight.to)?.up) {
        cluster.step(flight.to, { kind: 'message', from: flight.from, message: flight.message });
      }
    },
    drop: (position) => void network.splice(position, 1),
    advance(ms) {
      cluster.nowMs += ms;
      for (const [id, m] of members) {
        if (m.up && m.raft.dueAtMs <= cluster.nowMs) cluster.step(id, { kind: 'wake' });
      }
    },
    settle(ms, cut = () => false) {
      const end = cluster.nowMs + ms;
      while (cluster.nowMs < end) {
        cluster.advance(10);
        for (let round = 0; round < 50; round++) {
          for (const id of members.keys()) cluster.sync(id);
          if (network.length === 0) break;
          for (const flight of network.splice(0)) {
            if (cut(flight) || !members.get(flight.to)?.up) continue;
            cluster.step(flight.to, { kind: 'message', from: flight.from, message: flight.message });
          }
        }
      }
    },
    leader() {
      const leading = [...members].filter(([, m]) => m.up && m.raft.status.role === 'leader');
      leading.sort(([, a], [, b]) => b.raft.status.term - a.raft.status.term);
      return leading[0]?.[0];
    },
    applied: (id) => member(id).applied.flatMap(({ text }) => (text.startsWith('!') ? [] : [text])),
    propose: (id, command) =>
      void cluster.step(id, { kind: 'propose', id: ++lastRequestId, command, sizeBytes: command.length }),
    read(id) {
      const read = ++lastRequestId;
      reads.set(read, Math.max(0, ...committed.keys()));
      cluster.step(id, { kind: 'read', id: read });
      return read;
    },
    change: (id, configuration) =>
      cluster.step(id, { kind: 'changeConfiguration', id: ++lastRequestId, configuration }),
  };

  function perform(id: ReplicaId, m: Member, effect: RaftEffect<Command, State>): void {
    switch (effect.kind) {
      case 'send': {
        const flight = { from: id, to: effect.to, message: effect.message };
        if (effect.after === undefined || !m.unsynced.some((pending) => pending.id <= (effect.after ?? 0))) {
          network.push(flight);
        } else {
          m.held.push({ after: effect.after, flight });
        }
        return;
      }
      case 'persist':
        m.unsynced.push({ id: effect.id, record: effect.record });
        return;
      case 'apply':
        for (const entry of effect.entries) apply(id, m, entry);
        break;
      case 'restore':
        m.applied = effect.snapshot.state.map((text) => parse(text));
        break;
      case 'role':
        if (effect.role === 'leader') checkLeader(id, m, effect.term);
        break;
      case 'readable': {
        // Linearizability: what anybody had applied when the read began is in what it sees.
        expect(effect.index, 'a read went back in time').toBeGreaterThanOrEqual(reads.get(effect.id) ?? 0);
        expect(m.applied.at(-1)?.index ?? 0).toBeGreaterThanOrEqual(effect.index);
        break;
      }
      case 'proposed':
      case 'refused':
      case 'removed':
        break;
      default:
        effect satisfies never;
    }
    seen.push({ id, effect });
  }

  function apply(id: ReplicaId, m: Member, entry: Entry<Command>): void {
    const text = entry.data.kind === 'command' ? entry.data.command : `!${entry.data.kind}`;
    const before = m.applied.at(-1)?.index ?? 1;
    expect(entry.index, `${id} skipped or repeated an entry`).toBe(before + 1);
    // State machine safety: no two replicas apply different entries at one index.
    const known = committed.get(entry.index);
    if (known) expect({ term: entry.term, text }, `index ${entry.index} at ${id}`).toEqual(known);
    else committed.set(entry.index, { term: entry.term, text });
    m.applied.push({ index: entry.index, term: entry.term, text });
  }

  function checkLeader(id: ReplicaId, m: Member, term: number): void {
    // Election safety: one leader a term.
    expect(leaders.get(term) ?? id, `two leaders in term ${term}`).toBe(id);
    leaders.set(term, id);
    // Leader completeness: it holds everything that was committed in terms before.
    const disk = issued(m);
    const first = disk.snapshot?.index ?? 0;
    for (const [index, known] of committed) {
      if (index <= first || known.term >= term) continue;
      const held = disk.entries.find((entry) => entry.index === index);
      expect(held?.term, `leader ${id} of term ${term} lacks index ${index}`).toBe(known.term);
    }
  }

  for (const id of voters) {
    const disk = genesisRecords<Command, State>(voters, []).reduce(foldRecord<Command, State>, blankDisk());
    members.set(id, { raft: boot(id, disk), synced: disk, unsynced: [], held: [], applied: [], up: true });
  }
  return cluster;
}

/** A snapshot's state keeps index and term with each command, so that checkers can go on comparing after a restore. */
export function snapshotOf(cluster: Cluster, id: ReplicaId): { index: number; state: State } {
  const applied = cluster.members.get(id)?.applied ?? [];
  return { index: applied.at(-1)?.index ?? 1, state: applied.map((a) => `${a.index} ${a.term} ${a.text}`) };
}

function parse(text: string): { index: number; term: number; text: string } {
  const [index = '0', term = '0', ...rest] = text.split(' ');
  return { index: Number(index), term: Number(term), text: rest.join(' ') };
}

/** Log matching: where two replicas' logs agree on index and term of an entry, they agree on everything before it. */
export function checkLogMatching(cluster: Cluster): void {
  const logs = [...cluster.members.values()].map((m) =>
    m.unsynced.reduce((disk, { record }) => foldRecord(disk, record), m.synced),
  );
  for (const [i, a] of logs.entries()) {
    for (const b of logs.slice(i + 1)) {
      let agree = false;
      for (const entry of a.entries.toReversed()) {
        const other = b.entries.find((candidate) => candidate.index === entry.index);
        if (!other) continue;
        if (agree) expect(other, `logs differ below an entry that they share`).toEqual(entry);
        if (other.term === entry.term) agree = true;
      }
    }
  }
}
