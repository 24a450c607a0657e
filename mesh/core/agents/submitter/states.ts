/** What leaders and executors say about requests, and what follows from it. */
import type { RequestState, Setback } from '../../claims/messages.ts';
import { compareTokens, type NodeId, type RequestId, type Token } from '../../ids.ts';
import { claimLimits } from '../../limits.ts';
import { submitterLimits as limits } from '../limits.ts';
import type { AgentMessage } from '../messages.ts';
import type { Fetching } from './fetching.ts';
import type { Placing } from './placing.ts';
import { isFault, type Request } from './requests.ts';
import type { FailedReason, SubmitterConfig } from './types.ts';

export interface StatesPort {
  readonly requests: ReadonlyMap<RequestId, Request>;
  /** Its leader, or who has it, is there and knows it. */
  hear(request: Request, token: Token | undefined, nowMs: number): void;
  offer(request: Request): void;
  fail(request: Request, reason: FailedReason): void;
  cancelAtLeader(request: Request): void;
}

export interface States {
  onState(from: NodeId, state: RequestState, nowMs: number): void;
  onStage(from: NodeId, message: Extract<AgentMessage, { kind: 'stage' }>, nowMs: number): void;
  /** A member is dead or gone, and with it whatever it had. */
  onAbsent(request: Request, node: NodeId, nowMs: number): void;
}

export function createStates(config: SubmitterConfig, placing: Placing, fetching: Fetching, port: StatesPort): States {
  const { self, leaderOf } = config;

  function onSetback(request: Request, { executor, reason }: Setback): void {
    if (executor === self) return;
    placing.tell({ kind: isFault({ executor, reason }) ? 'fault' : 'over', node: executor });
    if (reason === 'lost' && request.lostTo !== executor) request.deaths += 1;
    // It had only reserved it, or said that it goes.
    if (reason === 'givenBack' && request.lostTo === executor) request.deaths -= 1;
    request.lostTo = undefined;
    request.unexplained.delete(executor);
  }

  /** Leaders that follow each other do not know of those before them: whether it died is still to be heard. */
  function leaveUnexplained(request: Request, nowMs: number): void {
    const { claimedBy, unexplained } = request;
    for (const [node, untilMs] of unexplained) if (nowMs >= untilMs) unexplained.delete(node);
    if (claimedBy === undefined || claimedBy === self || unexplained.size >= claimLimits.deathsMax) return;
    unexplained.set(claimedBy, nowMs + limits.absenceNewsMs);
  }

  function endIfPoisonous(request: Request): boolean {
    if (request.deaths < claimLimits.deathsMax || request.givenUp) return false;
    port.cancelAtLeader(request);
    placing.giveUp(request, 'tooManyDeaths');
    return true;
  }

  function unclaimed(request: Request): void {
    request.claimedBy = undefined;
    // Whoever had it is gone, so that what runs here beside it is the run.
    request.hedged = false;
    if (!request.local) {
      placing.tell({ kind: 'offered', request: request.item.request });
      placing.sayProgress(request, 'queued', undefined);
    }
  }

  function onReady(request: Request, after: Setback | undefined, nowMs: number): void {
    port.hear(request, undefined, nowMs);
    if (after) onSetback(request, after);
    else leaveUnexplained(request, nowMs);
    if (after || request.claimedBy !== undefined) unclaimed(request);
    endIfPoisonous(request);
  }

  function onAbsent(request: Request, node: NodeId, nowMs: number): void {
    const untilMs = request.unexplained.get(node);
    request.unexplained.delete(node);
    const hadIt = request.claimedBy === node;
    if (!hadIt && (untilMs === undefined || nowMs >= untilMs)) return;
    request.deaths += 1;
    if (hadIt) {
      request.lostTo = node;
      unclaimed(request);
    }
    if (endIfPoisonous(request)) return;
    // Its leader says so too, if there is one.
    if (hadIt && leaderOf(request.item.shard) === undefined) placing.runHere(request, 'noLeader');
  }

  function onClaimed(request: Request, state: Extract<RequestState, { kind: 'claimed' }>, nowMs: number): void {
    const { executor, token, running, ageMs } = state;
    const isNew = !request.highest || compareTokens(token, request.highest) > 0;
    const wasClaimed = request.claimedBy === executor;
    const isOtherTerm = request.highest !== undefined && !sameTerm(token, request.highest);
    if (isNew && !wasClaimed && isOtherTerm) leaveUnexplained(request, nowMs);
    port.hear(request, token, nowMs);
    request.claimedBy = executor;
    request.unexplained.delete(executor);
    if (isNew && request.lostTo === executor) request.lostTo = undefined;
    request.idleSinceMs = undefined;
    if (executor !== self) placing.merge(request, executor, ageMs);
    // What goes on here is followed here.
    if (request.local && !request.hedged) return;
    placing.tell({ kind: 'claimed', request: request.item.request, node: executor });
    if (executor === self || request.local) return;
    // Who hands over to somebody else tells this node nothing of its stages; after a while it is surely running.
    const isUnderWay = running && wasClaimed && !isNew;
    if (!isUnderWay) placing.sayProgress(request, 'fetching', executor);
    else if (request.told !== `frozen ${executor}`) placing.sayProgress(request, 'executing', executor);
  }

  /** From who may lead ahead of the news: what earlier claims hand over does not count, and nothing else follows. */
  function onHearsay(request: Request, state: RequestState): void {
    if (state.kind !== 'claimed') return;
    if (request.highest && compareTokens(state.token, request.highest) <= 0) return;
    request.highest = state.token;
    fetching.outdate(request, state.token);
  }

  function onState(from: NodeId, state: RequestState, nowMs: number): void {
    const request = port.requests.get(state.request);
    if (!request) return;
    // Only its leader can know: who leads now, or was asked when this node still thought so.
    if (from !== leaderOf(request.item.shard) && from !== request.leader) return onHearsay(request, state);
    switch (state.kind) {
      case 'ready':
        return onReady(request, state.after, nowMs);
      case 'claimed':
        return onClaimed(request, state, nowMs);
      case 'succeeded':
      case 'finished':
        port.hear(request, undefined, nowMs);
        // Handed over at this very moment: the same outputs.
        if (state.kind === 'finished' && request.fetch) return;
        return fetching.fetchFound(request, state, state.kind === 'succeeded', nowMs);
      case 'ended':
        if (state.after) onSetback(request, state.after);
        if (!port.requests.has(state.request)) return;
        if (state.reason === 'actionInvalid') return port.fail(request, state.reason);
        request.accepted = false;
        request.claimedBy = undefined;
        if (state.reason === 'queueFull' || state.reason === 'cancelled') return placing.runHere(request, 'nobodyElse');
        return placing.giveUp(request, state.reason);
      case 'unknown':
        if (leaderOf(request.item.shard) !== from || request.givenUp) return;
        request.known = true;
        port.offer(request);
        return;
      default:
        state satisfies never;
    }
  }

  function onStage(from: NodeId, message: Extract<AgentMessage, { kind: 'stage' }>, nowMs: number): void {
    const request = port.requests.get(message.request);
    if (!request) return;
    const { token, stage } = message;
    if (!token) {
      if (from !== self || !request.local) return;
      request.local = 'running';
      placing.tell({ kind: 'startedHere', request: message.request });
      if (!request.hedged) placing.sayProgress(request, 'executing', self);
      // Merging and storing are what a claim is for.
      if (!request.item.doNotCache && !request.hedged && !request.givenUp) port.offer(request);
      return;
    }
    if (request.highest && compareTokens(token, request.highest) < 0) return;
    port.hear(request, token, nowMs);
    request.claimedBy = from;
    if (request.local && !request.hedged) return;
    placing.tell({ kind: 'claimed', request: message.request, node: from });
    if (from === self) placing.tell({ kind: 'startedHere', request: message.request });
    else placing.tell({ kind: 'frozen', request: message.request, frozen: stage === 'frozen' });
    if (stage === 'frozen') request.told = `frozen ${from}`;
    else if (!request.local) placing.sayProgress(request, 'executing', from);
  }

  return { onState, onStage, onAbsent };
}

function sameTerm(a: Token, b: Token): boolean {
  return a.generation === b.generation && a.term === b.term;
}
