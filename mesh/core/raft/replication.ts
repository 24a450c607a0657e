/** Copying the log: appends, snapshots, what is committed, and heartbeats (sections 3.5, 3.6, 5.1, 10.2). */
import { isMember, membersOf } from './configuration.ts';
import { type Progress, probeFrom } from './progress.ts';
import { quorumValue } from './quorum.ts';
import type { ReplicaId } from '../ids.ts';
import { raftLimits } from '../limits.ts';
import { type GroupState, appendEntries, becomeFollower, persist, send, sendDurably } from './state.ts';
import { entrySize } from './log.ts';
import { releaseReads } from './reading.ts';
import type { Entry, RaftMessage } from './types.ts';

type Append<Command> = Extract<RaftMessage<Command, unknown>, { kind: 'append' }>;
type Appended = Extract<RaftMessage<unknown, unknown>, { kind: 'appended' }>;
type SnapshotMessage<State> = Extract<RaftMessage<unknown, State>, { kind: 'snapshot' }>;

// ---- Leader ----

export function broadcastAppends<Command, State>(g: GroupState<Command, State>, nowMs: number): void {
  for (const [to, progress] of g.progress) sendAppends(g, to, progress, nowMs);
}

/** Sends what the follower lacks, as far as its phase and the appends under way allow. */
function sendAppends<Command, State>(
  g: GroupState<Command, State>,
  to: ReplicaId,
  progress: Progress,
  nowMs: number,
): void {
  const allowed = progress.phase === 'replicating' ? raftLimits.inflightAppends : 1;
  while (progress.phase !== 'restoring' && progress.inflight.length < allowed && progress.next <= g.log.lastIndex) {
    const prevIndex = progress.next - 1;
    const prevTerm = g.log.termAt(prevIndex);
    if (prevTerm === undefined) {
      sendSnapshot(g, to, progress, nowMs);
      return;
    }
    const { entriesPerAppend, bytesPerAppend } = raftLimits;
    const entries = g.log.slice(progress.next, g.log.lastIndex, entriesPerAppend, bytesPerAppend);
    const lastIndex = prevIndex + entries.length;
    if (progress.inflight.length === 0) progress.sentAtMs = nowMs;
    progress.inflight.push(lastIndex);
    if (progress.phase === 'replicating') progress.next = lastIndex + 1;
    // The leader may send before its own disk is done: it counts itself only when it is (section 10.2.1).
    send(g, to, { kind: 'append', term: g.term, prevIndex, prevTerm, entries, commit: g.commit });
  }
}

function sendSnapshot<Command, State>(
  g: GroupState<Command, State>,
  to: ReplicaId,
  progress: Progress,
  nowMs: number,
): void {
  const { snapshot } = g.log;
  if (!snapshot) return;
  progress.phase = 'restoring';
  progress.inflight = [];
  progress.next = snapshot.index + 1;
  progress.sentAtMs = nowMs;
  send(g, to, { kind: 'snapshot', term: g.term, snapshot });
}

/** Appends or a snapshot that got no answer are tried again, from what is known to agree. */
function retryUnanswered<Command, State>(
  g: GroupState<Command, State>,
  to: ReplicaId,
  progress: Progress,
  nowMs: number,
): void {
  const waitMs = progress.phase === 'restoring' ? raftLimits.snapshotRetryMs : raftLimits.appendRetryMs;
  const waiting = progress.phase === 'restoring' || progress.inflight.length > 0;
  if (waiting && nowMs - progress.sentAtMs >= waitMs) probeFrom(progress, progress.match + 1);
  sendAppends(g, to, progress, nowMs);
}

export function sendHeartbeats<Command, State>(g: GroupState<Command, State>, nowMs: number, sleep = false): void {
  const { heartbeatIntervalMs } = raftLimits;
  // On a grid that all groups of a node share, so that their heartbeats travel together.
  g.heartbeatAtMs = (Math.floor(nowMs / heartbeatIntervalMs) + 1) * heartbeatIntervalMs;
  for (const [to, progress] of g.progress) {
    const commit = Math.min(g.commit, progress.match);
    send(g, to, {
      kind: 'heartbeat',
      term: g.term,
      commit,
      sentAtMs: nowMs,
      readRound: g.readRound,
      sleep,
    });
    if (!sleep) retryUnanswered(g, to, progress, nowMs);
  }
}

export function onAppended<Command, State>(
  g: GroupState<Command, State>,
  from: ReplicaId,
  progress: Progress,
  answer: Appended,
  nowMs: number,
): void {
  if (answer.accepted) {
    progress.match = Math.max(progress.match, answer.index);
    progress.next = Math.max(progress.next, progress.match + 1);
    progress.inflight = progress.inflight.filter((lastIndex) => lastIndex > progress.match);
    progress.sentAtMs = nowMs;
    const caughtUp = progress.phase === 'restoring' && progress.match >= (g.log.snapshot?.index ?? 0);
    if (progress.phase === 'probing' || caughtUp) {
      probeFrom(progress, progress.match + 1);
      progress.phase = 'replicating';
    }
    advanceCommit(g, nowMs);
    // Committing may have ended this leadership, or this member's part in the group.
    if (g.role !== 'leader' || g.progress.get(from) !== progress) return;
    if (g.transfer?.to === from && progress.match === g.log.lastIndex) {
      send(g, from, { kind: 'timeoutNow', term: g.term });
    }
  } else if (progress.phase !== 'restoring') {
    const isLearner = g.log.configuration.learners.includes(from);
    // A learner that forgot its log has no vote that could have counted, and may start over.
    if (isLearner && answer.index < progress.match) progress.match = 0;
    const late = answer.refusedIndex <= progress.match || answer.refusedIndex >= progress.next;
    if (late) return;
    probeFrom(progress, Math.max(progress.match, Math.min(answer.index, answer.refusedIndex - 1)) + 1);
  }
  sendAppends(g, from, progress, nowMs);
}

/**
 * Counts copies on disk, the leader's own among them. Only an entry of the leader's own term is committed by counting;
 * what stands before it is committed with it (section 3.6.2).
 */
export function advanceCommit<Command, State>(g: GroupState<Command, State>, nowMs: number): void {
  const { voters } = g.log.configuration;
  const replicated = quorumValue(
    voters,
    (voter) => (voter === g.self ? g.durableIndex : (g.progress.get(voter)?.match ?? 0)),
    0,
  );
  if (replicated <= g.commit) return;
  if (g.log.termAt(replicated) !== g.term) return;
  const committedBefore = g.commit;
  commitTo(g, replicated);
  for (const entry of g.log.slice(committedBefore + 1, replicated)) {
    g.uncommittedBytes -= entrySize(entry);
    if (entry.data.kind === 'configuration') onConfigurationCommitted(g, entry.index, nowMs);
    if (g.role !== 'leader') return;
  }
  releaseReads(g);
}

function onConfigurationCommitted<Command, State>(g: GroupState<Command, State>, index: number, nowMs: number): void {
  const before = g.log.configurationAt(index - 1);
  const after = g.log.configurationAt(index);
  for (const member of membersOf(before)) {
    if (member !== g.self && !isMember(after, member)) send(g, member, { kind: 'removed', term: g.term, index });
  }
  if (!after.voters.includes(g.self)) {
    // A leader that removed itself led until the change was committed (section 4.2.2); the others learn of it here.
    sendHeartbeats(g, nowMs);
    becomeFollower(g, g.term, undefined, nowMs);
  }
}

/** Hands newly committed entries to the state machine. */
function commitTo<Command, State>(g: GroupState<Command, State>, index: number): void {
  if (index <= g.commit) return;
  g.commit = index;
  const entries = g.log.slice(g.applied + 1, index);
  g.applied = index;
  g.effects.push({ kind: 'apply', entries });
}

// ---- Follower ----

export function onAppend<Command, State>(
  g: GroupState<Command, State>,
  from: ReplicaId,
  message: Append<Command>,
): void {
  const { prevIndex, prevTerm, entries } = message;
  const lastNew = prevIndex + entries.length;
  // Everything committed agrees with every leader, so an append that starts before it needs no comparison.
  const known = prevIndex <= g.commit || g.log.termAt(prevIndex) === prevTerm;
  if (!known) {
    const index = g.log.lastIndexOfTermAtMost(prevIndex, prevTerm);
    sendDurably(g, from, { kind: 'appended', term: g.term, accepted: false, index, refusedIndex: prevIndex });
    return;
  }
  appendEntries(g, newEntries(g, entries));
  commitTo(g, Math.min(message.commit, lastNew));
  const index = Math.max(lastNew, g.commit);
  sendDurably(g, from, { kind: 'appended', term: g.term, accepted: true, index, refusedIndex: 0 });
}

/** From the first entry that this log lacks or has of another term; a repeated append changes nothing. */
function newEntries<Command, State>(
  g: GroupState<Command, State>,
  entries: readonly Entry<Command>[],
): readonly Entry<Command>[] {
  const first = entries.findIndex((entry) => entry.index > g.commit && g.log.termAt(entry.index) !== entry.term);
  return first < 0 ? [] : entries.slice(first);
}

export function onHeartbeatCommit<Command, State>(g: GroupState<Command, State>, commit: number): void {
  commitTo(g, Math.min(commit, g.log.lastIndex));
}

export function onSnapshot<Command, State>(
  g: GroupState<Command, State>,
  from: ReplicaId,
  message: SnapshotMessage<State>,
): void {
  const { snapshot } = message;
  if (snapshot.index > g.commit) {
    const whole = g.log.install(snapshot) === 'dropped';
    g.commit = snapshot.index;
    g.applied = snapshot.index;
    if (whole) {
      g.durableIndex = 0;
      for (const pending of g.unsynced) pending.lastIndex = 0;
    }
    persist(g, { kind: 'snapshot', snapshot, whole }, snapshot.index);
    g.effects.push({ kind: 'restore', snapshot });
  }
  sendDurably(g, from, { kind: 'appended', term: g.term, accepted: true, index: g.commit, refusedIndex: 0 });
}
