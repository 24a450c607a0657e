/**
 * Reads. ReadIndex is linearizable on any clock: a majority confirms the leader after the read arrived. A lease read
 * spares the round trip and is linearizable only while no clock lies: a machine that is paused without noticing may serve
 * what was true before the pause. It is for reads to which that is harmless (section 6.4).
 */
import { quorumValue } from './quorum.ts';
import { raftLimits } from '../limits.ts';
import type { GroupState } from './state.ts';

/** The newest read round that a majority has confirmed, the leader's own confirmation included. */
function confirmedRound<Command, State>(g: GroupState<Command, State>): number {
  const { voters } = g.log.configuration;
  return quorumValue(voters, (voter) => (voter === g.self ? g.readRound : (g.progress.get(voter)?.readRound ?? 0)), 0);
}

/** Queues a read behind the next round. True when a round must be started now. */
export function queueRead<Command, State>(g: GroupState<Command, State>, id: number): boolean {
  // What a predecessor committed is known only with this term's first entry (section 6.4, step 1).
  const index = Math.max(g.commit, g.termStartIndex);
  const idle = confirmedRound(g) >= g.readRound;
  if (idle) g.readRound += 1;
  g.reads.push({ id, index, round: idle ? g.readRound : g.readRound + 1 });
  return idle;
}

/** Answers the reads that are confirmed and applied. True when others wait for a round of their own. */
export function releaseReads<Command, State>(g: GroupState<Command, State>): boolean {
  const confirmed = confirmedRound(g);
  g.reads = g.reads.filter((read) => {
    const ready = read.round <= confirmed && read.index <= g.applied;
    if (ready) g.effects.push({ kind: 'readable', id: read.id, index: read.index });
    return !ready;
  });
  const startNext = confirmed >= g.readRound && g.reads.some((read) => read.round > g.readRound);
  if (startNext) g.readRound += 1;
  return startNext;
}

/**
 * Whether this leader may read its own state machine now. Followers that answered a heartbeat give nobody else their vote
 * for an election timeout of their clock; the lease is that time, counted from when the heartbeat was sent, less what two
 * clocks may differ in rate.
 */
export function holdsLease<Command, State>(g: GroupState<Command, State>, nowMs: number): boolean {
  if (g.role !== 'leader' || g.asleep || g.leaseForfeited || g.applied < g.termStartIndex) return false;
  const { voters } = g.log.configuration;
  const startMs = quorumValue(
    voters,
    (voter) => (voter === g.self ? nowMs : (g.progress.get(voter)?.ackedSentAtMs ?? Number.NEGATIVE_INFINITY)),
    Number.NEGATIVE_INFINITY,
  );
  const leaseMs = Math.floor((raftLimits.electionTimeoutMs * (1_000 - raftLimits.clockRateErrorPerMille)) / 1_000);
  return nowMs - startMs < leaseMs;
}
