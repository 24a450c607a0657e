/** What leaders and executors say about requests, and what follows from it. */
import type { RequestState, Setback } from '../../claims/messages.ts';
import { compareTokens, type NodeId, type RequestId, type Token } from '../../ids.ts';
import { claimLimits } from '../../limits.ts';
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
  /** Nobody has it now: it waits at its leader, or for one. */
  unclaimed(request: Request): void;
}

export function createStates(config: SubmitterConfig, placing: Placing, fetching: Fetching, port: StatesPort): States {
  const { self, leaderOf } = config;

  function onSetback(request: Request, { executor, reason }: Setback): void {
    if (executor === self) return;
    placing.tell({ kind: isFault({ executor, reason }) ? 'fault' : 'over', node: executor });
    if (reason === 'lost' && request.lostTo !== executor) request.deaths += 1;
    request.lostTo = undefined;
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
    if (after || request.claimedBy !== undefined) unclaimed(request);
    if (request.deaths >= claimLimits.deathsMax) {
      port.cancelAtLeader(request);
      placing.giveUp(request, 'tooManyDeaths');
    }
  }

  function onClaimed(request: Request, state: Extract<RequestState, { kind: 'claimed' }>, nowMs: number): void {
    const { executor, token, running, ageMs } = state;
    const isNew = !request.highest || compareTokens(token, request.highest) > 0;
    const wasClaimed = request.claimedBy === executor;
    port.hear(request, token, nowMs);
    request.claimedBy = executor;
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

  function onState(from: NodeId, state: RequestState, nowMs: number): void {
    const request = port.requests.get(state.request);
    if (!request) return;
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

  return { onState, onStage, unclaimed };
}
