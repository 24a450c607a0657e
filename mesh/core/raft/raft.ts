/**
 * One replica of one shard group: Raft as the dissertation describes it, with pre-vote, check-quorum, leadership transfer,
 * learners, one membership change at a time, snapshots, two kinds of reads, and sleep when there is nothing to do.
 *
 * What the driver owes it: effects in order; a `send` with `after` only once that persist is durable; persists durable in
 * the order of their ids; `persisted` for each of them; a `wake` at `dueAtMs`. What it may do: lose, repeat, delay and
 * reorder messages, and lose every persist that it did not report.
 *
 * @see Ongaro, "Consensus: Bridging Theory and Practice", 2014; docs/protocol.md, "Raft"
 */
import type { ReplicaId } from '../ids.ts';
import { raftLimits } from '../limits.ts';
import type { Machine } from '../machine.ts';
import type { Rng } from '../rng.ts';
import { isSingleChange, makeConfiguration } from './configuration.ts';
import { campaign, ignoresElection, onOwnVoteDurable, onVoteAnswer, onVoteRequest, preCampaign } from './election.ts';
import { createLog } from './log.ts';
import type { Progress } from './progress.ts';
import { majority } from './quorum.ts';
import { holdsLease, queueRead, releaseReads } from './reading.ts';
import {
  advanceCommit,
  broadcastAppends,
  onAppend,
  onAppended,
  onHeartbeatCommit,
  onSnapshot,
  sendHeartbeats,
} from './replication.ts';
import {
  type GroupState,
  appendOwn,
  becomeFollower,
  followConfiguration,
  lastEver,
  mayCampaign,
  persist,
  resetElectionTimer,
  send,
  sendDurably,
} from './state.ts';
import type { Configuration, RaftDisk, RaftEffect, RaftEvent, RaftMessage, RefusalReason, Role } from './types.ts';

export interface RaftInit<Command, State> {
  readonly self: ReplicaId;
  readonly disk: RaftDisk<Command, State>;
  readonly rng: Rng;
  /** Ascending over all groups of a node. */
  readonly nextPersistId: () => number;
  readonly nowMs: number;
}

/** What others may know of a replica; for steering, tests and operators. */
export interface RaftStatus {
  readonly role: Role;
  readonly term: number;
  readonly leader: ReplicaId | undefined;
  readonly commit: number;
  readonly lastIndex: number;
  readonly configuration: Configuration;
  /** Where the configuration in force stands in the log. */
  readonly configurationIndex: number;
  /** It is committed, so the next change may be proposed. */
  readonly settled: boolean;
  readonly asleep: boolean;
  readonly transferring: boolean;
  /** Entries behind the snapshot; `compact` when it exceeds `compactAfterEntries`. */
  readonly uncompacted: number;
  /** A leader's view of the other members. */
  readonly members: ReadonlyMap<ReplicaId, Readonly<Progress>>;
}

export interface Raft<Command, State> extends Machine<RaftEvent<Command, State>, RaftEffect<Command, State>> {
  /** When it wants a `wake`; infinity while it sleeps. */
  readonly dueAtMs: number;
  readonly leader: ReplicaId | undefined;
  readonly status: RaftStatus;
  /** What its records amount to, issued and perhaps not yet durable; for rewriting a log file. */
  disk(): RaftDisk<Command, State>;
  /** Whether a lease read may be served now; see raft/reading.ts for what that promises. */
  holdsLease(nowMs: number): boolean;
}

export function createRaft<Command, State>(init: RaftInit<Command, State>): Raft<Command, State> {
  const { disk, nowMs: startMs } = init;
  const log = createLog<Command, State>(disk.snapshot, disk.entries);
  const start = disk.snapshot?.index ?? 0;
  const g: GroupState<Command, State> = {
    self: init.self,
    rng: init.rng,
    nextPersistId: init.nextPersistId,
    log,
    term: disk.term,
    vote: disk.vote,
    role: 'follower',
    leader: undefined,
    forgotten: disk.forgotten,
    commit: start,
    applied: start,
    unsynced: [],
    durableIndex: log.lastIndex,
    // It may have promised a leader not to vote for others, and forgotten: it behaves as if it had.
    heardAtMs: startMs,
    electionAtMs: 0,
    asleep: false,
    activeAtMs: startMs,
    votes: new Map(),
    ownVotePersistId: 0,
    campaignTransfer: false,
    progress: new Map(),
    heartbeatAtMs: 0,
    quorumCheckAtMs: 0,
    termStartIndex: 0,
    uncommittedBytes: 0,
    readRound: 0,
    reads: [],
    transfer: undefined,
    leaseForfeited: false,
    effects: [],
  };
  resetElectionTimer(g, startMs);
  const { voters } = log.configuration;
  // Alone, there is nobody to wait for and nobody who was promised anything.
  if (voters.length === 1 && voters[0] === init.self) g.electionAtMs = startMs;

  return {
    step(event, nowMs) {
      g.effects = [];
      onEvent(g, event, nowMs);
      return g.effects;
    },
    get dueAtMs() {
      if (g.asleep) return Number.POSITIVE_INFINITY;
      if (g.role === 'leader') return Math.min(g.heartbeatAtMs, g.quorumCheckAtMs);
      return g.leader !== undefined || mayCampaign(g) ? g.electionAtMs : Number.POSITIVE_INFINITY;
    },
    get leader() {
      return g.leader;
    },
    get status() {
      return statusOf(g);
    },
    disk: () => {
      const after = log.snapshot?.index ?? 0;
      const entries = log.slice(after + 1, log.lastIndex);
      return { term: g.term, vote: g.vote, snapshot: log.snapshot, entries, forgotten: g.forgotten };
    },
    holdsLease: (nowMs) => holdsLease(g, nowMs),
  };
}

function onEvent<Command, State>(g: GroupState<Command, State>, event: RaftEvent<Command, State>, nowMs: number): void {
  switch (event.kind) {
    case 'message':
      return onMessage(g, event.from, event.message, nowMs);
    case 'persisted':
      return onPersisted(g, event.id, nowMs);
    case 'wake':
      return onWake(g, nowMs);
    case 'gap':
      return onGap(g, nowMs);
    case 'propose': {
      const refusal = refusalOfProposal(g, event.sizeBytes);
      if (refusal) {
        g.effects.push({ kind: 'refused', id: event.id, reason: refusal });
        return;
      }
      wakeUp(g, nowMs);
      g.activeAtMs = nowMs;
      const entry = appendOwn(g, { kind: 'command', command: event.command, sizeBytes: event.sizeBytes });
      g.effects.push({ kind: 'proposed', id: event.id, index: entry.index, term: entry.term });
      return broadcastAppends(g, nowMs);
    }
    case 'changeConfiguration': {
      const target = makeConfiguration(event.configuration.voters, event.configuration.learners);
      const refusal = refusalOfChange(g, target);
      if (refusal) {
        g.effects.push({ kind: 'refused', id: event.id, reason: refusal });
        return;
      }
      wakeUp(g, nowMs);
      const entry = appendOwn(g, { kind: 'configuration', configuration: target });
      g.effects.push({ kind: 'proposed', id: event.id, index: entry.index, term: entry.term });
      followConfiguration(g, nowMs);
      return broadcastAppends(g, nowMs);
    }
    case 'read': {
      if (g.role !== 'leader' || g.reads.length >= raftLimits.pendingReads) {
        const reason = g.role === 'leader' ? 'busy' : 'notLeader';
        g.effects.push({ kind: 'refused', id: event.id, reason });
        return;
      }
      wakeUp(g, nowMs);
      g.activeAtMs = nowMs;
      if (queueRead(g, event.id)) sendHeartbeats(g, nowMs);
      releaseReads(g);
      return;
    }
    case 'transferLeadership':
      return startTransfer(g, event.to, nowMs);
    case 'compact': {
      const term = g.log.termAt(event.index);
      if (term === undefined || event.index > g.applied || event.index <= (g.log.snapshot?.index ?? 0)) return;
      const configuration = g.log.configurationAt(event.index);
      const snapshot = { index: event.index, term, configuration, state: event.state, sizeBytes: event.sizeBytes };
      g.log.compact(snapshot, raftLimits.keepEntries);
      persist(g, { kind: 'snapshot', snapshot, whole: false });
      return;
    }
    case 'touch':
      wakeUp(g, nowMs);
      g.activeAtMs = nowMs;
      return;
    case 'unreachable': {
      const progress = g.progress.get(event.replica);
      if (progress) progress.unreachable = true;
      // A sleeping follower must look for another leader; a sleeping leader, whether it still has a majority.
      if (g.role === 'leader' || event.replica === g.leader) wakeUp(g, nowMs);
      return;
    }
    default:
      event satisfies never;
  }
}

// ---- Messages ----

function onMessage<Command, State>(
  g: GroupState<Command, State>,
  from: ReplicaId,
  message: RaftMessage<Command, State>,
  nowMs: number,
): void {
  if (!(message.kind === 'heartbeat' && message.sleep)) wakeUp(g, nowMs);
  if (message.kind === 'removed') return onRemoved(g, message.index);
  if (message.term < g.term) return onOlderTerm(g, from, message);
  if (message.term > g.term) {
    const pollOnly =
      (message.kind === 'vote' && message.pre) || (message.kind === 'voted' && message.pre && message.granted);
    if (message.kind === 'vote' && ignoresElection(g, message, nowMs)) return;
    if (!pollOnly) becomeFollower(g, message.term, undefined, nowMs);
  }
  const leads = message.kind === 'append' || message.kind === 'heartbeat' || message.kind === 'snapshot';
  // A term has one leader; who else claims to be it is not believed.
  if (leads && g.leader !== undefined && g.leader !== from) return;
  const progress = g.role === 'leader' ? g.progress.get(from) : undefined;
  if (progress) {
    progress.heardAtMs = nowMs;
    progress.unreachable = false;
  }
  switch (message.kind) {
    case 'vote':
      return onVoteRequest(g, from, message, nowMs);
    case 'voted':
      return onVoteAnswer(g, from, message, nowMs);
    case 'append':
      hearLeader(g, from, nowMs);
      return onAppend(g, from, message);
    case 'heartbeat': {
      hearLeader(g, from, nowMs);
      onHeartbeatCommit(g, message.commit);
      const { term, sentAtMs, readRound } = message;
      g.asleep = message.sleep && g.commit === g.log.lastIndex;
      return sendDurably(g, from, { kind: 'heartbeatAck', term, sentAtMs, readRound, asleep: g.asleep });
    }
    case 'snapshot':
      hearLeader(g, from, nowMs);
      return onSnapshot(g, from, message);
    case 'appended':
      if (progress) onAppended(g, from, progress, message, nowMs);
      return;
    case 'heartbeatAck':
      if (progress) onHeartbeatAck(g, progress, message, nowMs);
      return;
    case 'timeoutNow':
      if (g.leader === from && mayCampaign(g)) campaign(g, true, nowMs);
      return;
    default:
      message satisfies never;
  }
}

/** Who is behind learns of the term from the answer: an old leader steps down, an old candidate gives up. */
function onOlderTerm<Command, State>(
  g: GroupState<Command, State>,
  from: ReplicaId,
  message: RaftMessage<Command, State>,
): void {
  if (message.kind === 'vote') {
    sendDurably(g, from, { kind: 'voted', term: g.term, pre: message.pre, granted: false });
  } else if (message.kind === 'append' || message.kind === 'heartbeat' || message.kind === 'snapshot') {
    sendDurably(g, from, { kind: 'appended', term: g.term, accepted: false, index: 0, refusedIndex: 0 });
  }
}

function hearLeader<Command, State>(g: GroupState<Command, State>, from: ReplicaId, nowMs: number): void {
  becomeFollower(g, g.term, from, nowMs);
  g.heardAtMs = nowMs;
  resetElectionTimer(g, nowMs);
}

function onHeartbeatAck<Command, State>(
  g: GroupState<Command, State>,
  progress: Progress,
  ack: Extract<RaftMessage<Command, State>, { kind: 'heartbeatAck' }>,
  nowMs: number,
): void {
  progress.ackedSentAtMs = Math.max(progress.ackedSentAtMs, ack.sentAtMs);
  progress.readRound = Math.max(progress.readRound, ack.readRound);
  progress.asleep = ack.asleep;
  if (releaseReads(g)) sendHeartbeats(g, nowMs);
  if (
    ack.asleep &&
    canSleep(g, nowMs) &&
    [...g.progress.values()].every((other) => other.asleep || other.unreachable)
  ) {
    g.asleep = true;
  }
}

/** A peer says that a committed configuration is without this replica; an older one than it has itself says nothing. */
function onRemoved<Command, State>(g: GroupState<Command, State>, index: number): void {
  if (index <= g.log.configurationIndex) return;
  persist(g, { kind: 'removed', forgotten: lastEver(g) });
  g.effects.push({ kind: 'removed' });
}

// ---- Disk ----

function onPersisted<Command, State>(g: GroupState<Command, State>, id: number, nowMs: number): void {
  if (!g.unsynced[0] || g.unsynced[0].id > id) return;
  while (g.unsynced[0] && g.unsynced[0].id <= id) {
    const done = g.unsynced.shift();
    g.durableIndex = Math.max(g.durableIndex, done?.lastIndex ?? 0);
    if (g.role === 'candidate' && done?.id === g.ownVotePersistId) onOwnVoteDurable(g, nowMs);
  }
  if (g.role === 'leader') advanceCommit(g, nowMs);
}

// ---- Time ----

function onWake<Command, State>(g: GroupState<Command, State>, nowMs: number): void {
  if (g.asleep) return;
  if (g.role !== 'leader') {
    if (nowMs < g.electionAtMs) return;
    if (mayCampaign(g)) preCampaign(g, nowMs);
    // Who must not stand for election at least does not take the silent one for its leader any more.
    else becomeFollower(g, g.term, undefined, nowMs);
    return;
  }
  if (g.transfer && nowMs >= g.transfer.untilMs) g.transfer = undefined;
  if (nowMs >= g.quorumCheckAtMs && !keepsQuorum(g, nowMs)) {
    becomeFollower(g, g.term, undefined, nowMs);
    return;
  }
  if (nowMs >= g.heartbeatAtMs) sendHeartbeats(g, nowMs, canSleep(g, nowMs));
  if (g.progress.size === 0 && canSleep(g, nowMs)) g.asleep = true;
}

/** A leader that no majority answers makes room, so that its clients look elsewhere (section 6.2). */
function keepsQuorum<Command, State>(g: GroupState<Command, State>, nowMs: number): boolean {
  const { electionTimeoutMs } = raftLimits;
  g.quorumCheckAtMs = nowMs + electionTimeoutMs;
  const { voters } = g.log.configuration;
  const heard = voters.filter((voter) => {
    const progress = g.progress.get(voter);
    return voter === g.self || (progress && nowMs - progress.heardAtMs <= electionTimeoutMs);
  });
  return heard.length >= majority(voters.length);
}

/** The machine was suspended: nothing heard before the gap says anything about now. */
function onGap<Command, State>(g: GroupState<Command, State>, nowMs: number): void {
  g.asleep = false;
  g.heardAtMs = nowMs;
  g.activeAtMs = nowMs;
  resetElectionTimer(g, nowMs);
  g.heartbeatAtMs = nowMs;
  g.quorumCheckAtMs = nowMs + raftLimits.electionTimeoutMs;
  for (const progress of g.progress.values()) {
    progress.ackedSentAtMs = Number.NEGATIVE_INFINITY;
    progress.heardAtMs = nowMs;
  }
}

// ---- Sleep ----

/** Everybody has everything, and nobody has asked for anything for a while. */
function canSleep<Command, State>(g: GroupState<Command, State>, nowMs: number): boolean {
  if (nowMs - g.activeAtMs < raftLimits.hibernateAfterMs) return false;
  if (g.commit !== g.log.lastIndex || g.reads.length > 0 || g.transfer) return false;
  return [...g.progress.values()].every((progress) => progress.unreachable || progress.match === g.log.lastIndex);
}

/** Ends the sleep as if the leader had just been heard: a sleeper does not know what it missed, and does not rush. */
function wakeUp<Command, State>(g: GroupState<Command, State>, nowMs: number): void {
  if (!g.asleep) return;
  g.asleep = false;
  g.heardAtMs = nowMs;
  g.activeAtMs = nowMs;
  resetElectionTimer(g, nowMs);
  if (g.role !== 'leader') return;
  g.quorumCheckAtMs = nowMs + raftLimits.electionTimeoutMs;
  for (const progress of g.progress.values()) {
    progress.heardAtMs = nowMs;
    progress.asleep = false;
  }
  sendHeartbeats(g, nowMs);
}

// ---- Requests to a leader ----

function refusalOfProposal<Command, State>(
  g: GroupState<Command, State>,
  sizeBytes: number,
): RefusalReason | undefined {
  if (g.role !== 'leader') return 'notLeader';
  if (g.transfer) return 'transferring';
  if (sizeBytes > raftLimits.commandBytes) return 'invalid';
  if (g.uncommittedBytes + sizeBytes > raftLimits.uncommittedBytes) return 'busy';
  return undefined;
}

function refusalOfChange<Command, State>(
  g: GroupState<Command, State>,
  target: Configuration,
): RefusalReason | undefined {
  if (g.role !== 'leader') return 'notLeader';
  if (g.transfer) return 'transferring';
  // Without an entry of its own term committed, a leader may not know of a change that still can win.
  if (g.commit < g.termStartIndex) return 'tooEarly';
  if (g.log.configurationIndex > g.commit) return 'changePending';
  if (!isSingleChange(g.log.configuration, target)) return 'invalid';
  return undefined;
}

function startTransfer<Command, State>(g: GroupState<Command, State>, to: ReplicaId, nowMs: number): void {
  const progress = g.progress.get(to);
  if (g.role !== 'leader' || !progress || !g.log.configuration.voters.includes(to)) return;
  wakeUp(g, nowMs);
  g.transfer = { to, untilMs: nowMs + raftLimits.transferTimeoutMs };
  g.leaseForfeited = true;
  if (progress.match === g.log.lastIndex) send(g, to, { kind: 'timeoutNow', term: g.term });
}

function statusOf<Command, State>(g: GroupState<Command, State>): RaftStatus {
  return {
    role: g.role,
    term: g.term,
    leader: g.leader,
    commit: g.commit,
    lastIndex: g.log.lastIndex,
    configuration: g.log.configuration,
    configurationIndex: g.log.configurationIndex,
    settled: g.log.configurationIndex <= g.commit,
    asleep: g.asleep,
    transferring: g.transfer !== undefined,
    uncompacted: g.log.lastIndex - (g.log.snapshot?.index ?? 0),
    members: g.progress,
  };
}
