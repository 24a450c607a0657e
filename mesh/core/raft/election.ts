/** Elections: pre-vote, votes, and the leadership transfer that skips the waiting (sections 3.4, 3.10, 4.2.3, 9.6). */
import { isMember } from './configuration.ts';
import { tally } from './quorum.ts';
import { isUpToDate } from './recovery.ts';
import type { ReplicaId } from '../ids.ts';
import { broadcastAppends, sendHeartbeats } from './replication.ts';
import {
  type GroupState,
  becomeFollower,
  becomeLeader,
  hearsLeader,
  lastEver,
  noteRole,
  persistHardState,
  resetElectionTimer,
  send,
  sendDurably,
} from './state.ts';
import type { RaftMessage } from './types.ts';

type VoteRequest = Extract<RaftMessage<unknown, unknown>, { kind: 'vote' }>;
type VoteAnswer = Extract<RaftMessage<unknown, unknown>, { kind: 'voted' }>;

/** Asks whether an election could be won, before any term is raised: a returning laptop must not depose a leader. */
export function preCampaign<Command, State>(g: GroupState<Command, State>, nowMs: number): void {
  g.role = 'preCandidate';
  g.leader = undefined;
  g.votes = new Map([[g.self, true]]);
  resetElectionTimer(g, nowMs);
  noteRole(g);
  askForVotes(g, true, false);
  countPreVotes(g, nowMs);
}

/** Raises the term and stands for it. The own vote counts when it is durable, like everybody's. */
export function campaign<Command, State>(g: GroupState<Command, State>, transfer: boolean, nowMs: number): void {
  g.role = 'candidate';
  g.leader = undefined;
  g.term += 1;
  g.vote = g.self;
  g.votes = new Map();
  g.campaignTransfer = transfer;
  g.ownVotePersistId = persistHardState(g);
  resetElectionTimer(g, nowMs);
  noteRole(g);
  askForVotes(g, false, transfer);
}

function askForVotes<Command, State>(g: GroupState<Command, State>, pre: boolean, transfer: boolean): void {
  const request: VoteRequest = {
    kind: 'vote',
    term: pre ? g.term + 1 : g.term,
    pre,
    transfer,
    lastIndex: g.log.lastIndex,
    lastTerm: g.log.lastTerm,
  };
  for (const voter of g.log.configuration.voters) if (voter !== g.self) sendDurably(g, voter, request);
}

/** `request.term` was compared with ours already: a lower one was answered, a higher real one was adopted. */
export function onVoteRequest<Command, State>(
  g: GroupState<Command, State>,
  from: ReplicaId,
  request: VoteRequest,
  nowMs: number,
): void {
  const upToDate = isUpToDate({ index: request.lastIndex, term: request.lastTerm }, lastEver(g));
  if (request.pre) {
    const granted = request.term > g.term && upToDate && !hearsLeader(g, nowMs);
    sendDurably(g, from, { kind: 'voted', term: granted ? request.term : g.term, pre: true, granted });
    if (!granted) tellIfRemoved(g, from);
    return;
  }
  const free = g.vote === undefined || g.vote === from;
  const granted = free && upToDate && g.leader === undefined;
  if (granted) {
    if (g.vote !== from) {
      g.vote = from;
      persistHardState(g);
    }
    if (g.role === 'preCandidate') becomeFollower(g, g.term, undefined, nowMs);
    resetElectionTimer(g, nowMs);
  }
  sendDurably(g, from, { kind: 'voted', term: g.term, pre: false, granted });
}

/** While a leader is heard, an election that it did not ask for is not even looked at (section 4.2.3). */
export function ignoresElection<Command, State>(
  g: GroupState<Command, State>,
  request: VoteRequest,
  nowMs: number,
): boolean {
  return !request.pre && !request.transfer && hearsLeader(g, nowMs);
}

export function onVoteAnswer<Command, State>(
  g: GroupState<Command, State>,
  from: ReplicaId,
  answer: VoteAnswer,
  nowMs: number,
): void {
  if (answer.pre) {
    if (g.role !== 'preCandidate' || (answer.granted && answer.term !== g.term + 1)) return;
    g.votes.set(from, answer.granted);
    countPreVotes(g, nowMs);
  } else {
    if (g.role !== 'candidate') return;
    g.votes.set(from, answer.granted);
    countVotes(g, nowMs);
  }
}

function countPreVotes<Command, State>(g: GroupState<Command, State>, nowMs: number): void {
  const result = tally(g.log.configuration.voters, g.votes);
  if (result === 'won') campaign(g, false, nowMs);
  else if (result === 'lost') becomeFollower(g, g.term, undefined, nowMs);
}

/** The candidate's own vote became durable. */
export function onOwnVoteDurable<Command, State>(g: GroupState<Command, State>, nowMs: number): void {
  g.votes.set(g.self, true);
  countVotes(g, nowMs);
}

function countVotes<Command, State>(g: GroupState<Command, State>, nowMs: number): void {
  const result = tally(g.log.configuration.voters, g.votes);
  if (result === 'won') {
    becomeLeader(g, nowMs);
    sendHeartbeats(g, nowMs);
    broadcastAppends(g, nowMs);
  } else if (result === 'lost') {
    becomeFollower(g, g.term, undefined, nowMs);
  }
}

/** A replica that a committed configuration has left out would campaign for ever: it is told. */
function tellIfRemoved<Command, State>(g: GroupState<Command, State>, from: ReplicaId): void {
  const { configuration, configurationIndex } = g.log;
  if (configuration.voters.length === 0 || configurationIndex > g.commit || isMember(configuration, from)) return;
  send(g, from, { kind: 'removed', term: g.term, index: configurationIndex });
}
