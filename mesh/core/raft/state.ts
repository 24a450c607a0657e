/** The state of one replica, shared by the files of this folder; nobody outside sees it. */
import { type RaftLog, entrySize } from './log.ts';
import { type Progress, newProgress } from './progress.ts';
import { isMember, membersOf } from './configuration.ts';
import type { ReplicaId } from '../ids.ts';
import type { Rng } from '../rng.ts';
import { isUpToDate } from './recovery.ts';
import { raftLimits } from '../limits.ts';
import type { Entry, EntryData, LogPosition, RaftEffect, RaftMessage, RaftRecord, Role } from './types.ts';

export interface PendingRead {
  readonly id: number;
  /** Served when everything up to here is applied... */
  readonly index: number;
  /** ...and a majority has confirmed this round of heartbeats. */
  readonly round: number;
}

export interface GroupState<Command, State> {
  readonly self: ReplicaId;
  readonly rng: Rng;
  readonly nextPersistId: () => number;
  readonly log: RaftLog<Command, State>;
  term: number;
  vote: ReplicaId | undefined;
  role: Role;
  leader: ReplicaId | undefined;
  /** The end of a log that this replica once had and gave up. */
  readonly forgotten: LogPosition;
  commit: number;
  applied: number;

  /** Persists that are not known to be durable, oldest first, with the last index that each makes durable. */
  unsynced: { id: number; lastIndex: number }[];
  /** The log is durable up to here. */
  durableIndex: number;

  /** When a leader was last heard; until an election timeout later nobody else gets this replica's vote. */
  heardAtMs: number;
  electionAtMs: number;
  /** Hibernation: no timer runs until something happens. */
  asleep: boolean;
  /** When a proposal, read or touch last gave a reason to stay awake. */
  activeAtMs: number;

  // Candidates.
  votes: Map<ReplicaId, boolean>;
  /** The candidate's own vote counts when this persist is durable. */
  ownVotePersistId: number;
  /** This campaign was asked for by the leader, so its votes may break the leader's lease. */
  campaignTransfer: boolean;

  // Leaders.
  progress: Map<ReplicaId, Progress>;
  heartbeatAtMs: number;
  quorumCheckAtMs: number;
  /** The no-op of this leader's term; only with it committed does the leader know what is committed. */
  termStartIndex: number;
  uncommittedBytes: number;
  readRound: number;
  reads: PendingRead[];
  transfer: { readonly to: ReplicaId; readonly untilMs: number } | undefined;
  /** A transfer was tried in this term: its message may arrive late and break the lease at any time. */
  leaseForfeited: boolean;

  effects: RaftEffect<Command, State>[];
}

export function persist<Command, State>(
  g: GroupState<Command, State>,
  record: RaftRecord<Command, State>,
  lastIndex = 0,
): number {
  const id = g.nextPersistId();
  g.unsynced.push({ id, lastIndex });
  g.effects.push({ kind: 'persist', id, record });
  return id;
}

export function persistHardState<Command, State>(g: GroupState<Command, State>): number {
  return persist(g, { kind: 'hardState', term: g.term, vote: g.vote });
}

/** Puts entries into the log and onto the disk. What they replace is no longer durable, whatever was synced. */
export function appendEntries<Command, State>(g: GroupState<Command, State>, entries: readonly Entry<Command>[]): void {
  const first = entries[0];
  if (!first) return;
  g.log.append(entries);
  g.durableIndex = Math.min(g.durableIndex, first.index - 1);
  for (const pending of g.unsynced) pending.lastIndex = Math.min(pending.lastIndex, first.index - 1);
  persist(g, { kind: 'append', entries }, g.log.lastIndex);
}

/** Sends a message that promises nothing: it may overtake this replica's own disk. */
export function send<Command, State>(
  g: GroupState<Command, State>,
  to: ReplicaId,
  message: RaftMessage<Command, State>,
): void {
  g.effects.push({ kind: 'send', to, message });
}

/** Sends a message that promises what this replica holds, its term or its vote: only once all that is durable. */
export function sendDurably<Command, State>(
  g: GroupState<Command, State>,
  to: ReplicaId,
  message: RaftMessage<Command, State>,
): void {
  const last = g.unsynced.at(-1);
  g.effects.push(last ? { kind: 'send', to, message, after: last.id } : { kind: 'send', to, message });
}

export function resetElectionTimer<Command, State>(g: GroupState<Command, State>, nowMs: number): void {
  g.electionAtMs = nowMs + raftLimits.electionTimeoutMs + g.rng.below(raftLimits.electionJitterMs);
}

/** A leader was heard less than an election timeout ago, as far as this replica's own clock can tell; or it leads. */
export function hearsLeader<Command, State>(g: GroupState<Command, State>, nowMs: number): boolean {
  return g.role === 'leader' || nowMs - g.heardAtMs < raftLimits.electionTimeoutMs;
}

/** The end of everything that this replica ever acknowledged: its log, or the one that it gave up. */
export function lastEver<Command, State>(g: GroupState<Command, State>): LogPosition {
  const own = { index: g.log.lastIndex, term: g.log.lastTerm };
  return isUpToDate(own, g.forgotten) ? own : g.forgotten;
}

/** Voters campaign; but not with less in their log than they once had, for others may have counted on it. */
export function mayCampaign<Command, State>(g: GroupState<Command, State>): boolean {
  return g.log.configuration.voters.includes(g.self) && lastEver(g) !== g.forgotten;
}

export function becomeFollower<Command, State>(
  g: GroupState<Command, State>,
  term: number,
  leader: ReplicaId | undefined,
  nowMs: number,
): void {
  const changed = g.role !== 'follower' || g.term !== term || g.leader !== leader;
  if (term > g.term) {
    g.term = term;
    g.vote = undefined;
    persistHardState(g);
  }
  if (g.role === 'leader') refuseReads(g);
  g.role = 'follower';
  g.leader = leader;
  g.votes.clear();
  g.progress.clear();
  g.transfer = undefined;
  if (!changed) return;
  resetElectionTimer(g, nowMs);
  noteRole(g);
}

export function becomeLeader<Command, State>(g: GroupState<Command, State>, nowMs: number): void {
  g.role = 'leader';
  g.leader = g.self;
  g.votes.clear();
  g.progress.clear();
  for (const member of membersOf(g.log.configuration)) {
    if (member !== g.self) g.progress.set(member, newProgress(g.log.lastIndex + 1, nowMs));
  }
  g.transfer = undefined;
  g.leaseForfeited = false;
  g.readRound = 0;
  g.reads = [];
  g.activeAtMs = nowMs;
  g.heartbeatAtMs = nowMs;
  g.quorumCheckAtMs = nowMs + raftLimits.electionTimeoutMs;
  g.uncommittedBytes = 0;
  for (const entry of g.log.slice(g.commit + 1, g.log.lastIndex)) g.uncommittedBytes += entrySize(entry);
  noteRole(g);
  g.termStartIndex = appendOwn(g, { kind: 'noop' }).index;
}

/** A leader's next entry. */
export function appendOwn<Command, State>(g: GroupState<Command, State>, data: EntryData<Command>): Entry<Command> {
  const entry: Entry<Command> = { index: g.log.lastIndex + 1, term: g.term, data };
  appendEntries(g, [entry]);
  g.uncommittedBytes += entrySize(entry);
  return entry;
}

/** Members come and go with the configuration in force; who left is no longer sent anything. */
export function followConfiguration<Command, State>(g: GroupState<Command, State>, nowMs: number): void {
  const { configuration } = g.log;
  for (const member of membersOf(configuration)) {
    // From the entry that names it, so that there is something to send and its answer tells what it holds.
    if (member !== g.self && !g.progress.has(member)) g.progress.set(member, newProgress(g.log.lastIndex, nowMs));
  }
  for (const member of [...g.progress.keys()]) {
    if (!isMember(configuration, member)) g.progress.delete(member);
  }
}

export function refuseReads<Command, State>(g: GroupState<Command, State>): void {
  for (const read of g.reads) g.effects.push({ kind: 'refused', id: read.id, reason: 'lostLeadership' });
  g.reads = [];
}

export function noteRole<Command, State>(g: GroupState<Command, State>): void {
  g.effects.push({ kind: 'role', role: g.role, term: g.term, leader: g.leader });
}
