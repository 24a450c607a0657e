/**
 * Where each request runs: what the offload policy decides is carried out, and what it has to know is told to it. Runs here
 * begin and stop only here.
 */
import type { NodeId, RequestId } from '../../ids.ts';
import { createOffload, type Offload } from '../../offload/offload.ts';
import type { Decision, OffloadEffect, OffloadEvent, OffloadItem } from '../../offload/types.ts';
import { submitterLimits as limits } from '../limits.ts';
import type { Request } from './requests.ts';
import type { FailedReason, SubmitterConfig, SubmitterEffect } from './types.ts';

export interface PlacingPort {
  readonly requests: ReadonlyMap<RequestId, Request>;
  emit(effect: SubmitterEffect): void;
  nowMs(): number;
  /** It goes to the leader of its shard at the end of this step. */
  offer(request: Request): void;
  /** Whom to keep them from has changed since they were offered. */
  reofferReady(): void;
  fail(request: Request, reason: FailedReason): void;
}

export interface Placing {
  readonly policy: Offload;
  readonly dueAtMs: number;
  tell(event: OffloadEvent): void;
  /** Executors that the request is kept from. */
  avoided(request: Request): readonly NodeId[];
  place(request: Request): void;
  /** What waits for a slot here, or for a leader: the mesh may have become able to help. */
  placeAgain(max: number): void;
  /** Runs it here whatever the policy said, if this machine can. */
  runHere(request: Request, why: Decision['why']): void;
  /** The same action runs elsewhere too: the one that is likely to be done later stops. */
  merge(request: Request, node: NodeId, ageMs: number): void;
  /** The mesh does not run it: here it is tried once, unless that is hopeless. */
  giveUp(request: Request, reason: FailedReason): void;
  sayProgress(request: Request, stage: 'queued' | 'fetching' | 'executing', node: NodeId | undefined): void;
}

export function createPlacing(config: SubmitterConfig, port: PlacingPort): Placing {
  const { self, leaderOf } = config;
  const policy = createOffload(self);
  let dueAtMs = Number.POSITIVE_INFINITY;

  function tell(event: OffloadEvent): void {
    for (const effect of policy.step(event, port.nowMs())) onPolicy(effect);
  }

  function onPolicy(effect: OffloadEffect): void {
    switch (effect.kind) {
      case 'wakeAt':
        dueAtMs = effect.atMs;
        return;
      case 'drained':
        port.emit(effect);
        if (effect.drained) port.reofferReady();
        return;
      default:
        break;
    }
    const request = port.requests.get(effect.request);
    if (!request) return;
    switch (effect.kind) {
      case 'runHere':
        sayDecided(request, effect.decision);
        return queueHere(request);
      case 'offer':
        sayDecided(request, effect.decision);
        stopHere(request);
        sayProgress(request, 'queued', undefined);
        return port.offer(request);
      case 'hedgeHere':
        if (request.local) return;
        request.hedged = true;
        sayDecided(request, { where: 'here', hereMs: undefined, elsewhereMs: undefined, why: 'straggler' });
        return queueHere(request);
      case 'unmatched':
        return port.fail(request, 'unmatched');
      default:
        effect satisfies never;
    }
  }

  function offloadItem({ item, localFaults }: Request): OffloadItem {
    // What this machine could not run is better tried elsewhere.
    return { ...item, avoid: [...(item.avoid ?? []), ...(localFaults > 0 ? [self] : [])] };
  }

  function place(request: Request): void {
    tell({ kind: 'submit', item: offloadItem(request), hasLeader: leaderOf(request.item.shard) !== undefined });
  }

  function placeAgain(max: number): void {
    let left = max;
    for (const request of port.requests.values()) {
      if (request.local !== 'queued' || request.hedged || request.isForced || request.givenUp) continue;
      if (left-- === 0) return;
      const { request: id, shard } = request.item;
      tell({ kind: 'again', request: id, hasLeader: leaderOf(shard) !== undefined });
    }
  }

  function sayDecided(request: Request, decision: Decision): void {
    port.emit({ kind: 'decided', request: request.item.request, ...decision });
  }

  function sayProgress(request: Request, stage: 'queued' | 'fetching' | 'executing', node: NodeId | undefined): void {
    const told = `${stage} ${node ?? ''}`;
    if (request.told === told) return;
    request.told = told;
    port.emit({ kind: 'progress', request: request.item.request, stage, node });
  }

  function queueHere(request: Request): void {
    if (request.local) return;
    request.local = 'queued';
    const { request: id, key, spaceBytes, doNotCache } = request.item;
    if (!request.hedged) sayProgress(request, 'queued', self);
    port.emit({ kind: 'runOwn', request: id, key, spaceBytes, isMergeable: !doNotCache });
  }

  function runHere(request: Request, why: Decision['why']): void {
    if (request.local || !policy.canRunHere(request.item)) return;
    sayDecided(request, { where: 'here', hereMs: undefined, elsewhereMs: undefined, why });
    request.isForced = why !== 'noLeader';
    queueHere(request);
    tell({ kind: 'queuedHere', request: request.item.request });
  }

  function stopHere(request: Request): void {
    if (!request.local) return;
    request.local = undefined;
    request.hedged = false;
    port.emit({ kind: 'stopOwn', request: request.item.request });
  }

  function merge(request: Request, node: NodeId, ageMs: number): void {
    const { request: id } = request.item;
    if (!request.local || request.hedged || request.givenUp) return;
    const elsewhereMs = policy.remainingElsewhereMs(id, node, ageMs);
    const hereMs = policy.remainingMs(id, port.nowMs());
    const isFirst = request.local === 'running' && hereMs * 100 < elsewhereMs * limits.mergePercent;
    if (isFirst) return;
    stopHere(request);
    sayDecided(request, { where: 'mesh', hereMs, elsewhereMs, why: 'merged' });
    tell({ kind: 'offered', request: id });
  }

  function giveUp(request: Request, reason: FailedReason): void {
    request.givenUp = reason;
    request.accepted = false;
    request.claimedBy = undefined;
    if (request.local) return;
    // What killed its executors and failed here too is not tried again; what this machine broke, it broke already.
    const isHopeless = request.localFaults > 0 && (reason === 'tooManyDeaths' || reason === 'executorFault');
    if (isHopeless || !policy.canRunHere(request.item)) {
      return port.fail(request, reason);
    }
    runHere(request, 'lastTry');
  }

  return {
    policy,
    get dueAtMs() {
      return dueAtMs;
    },
    tell,
    avoided: (request) => policy.avoided(offloadItem(request)),
    place,
    placeAgain,
    runHere,
    merge,
    giveUp,
    sayProgress,
  };
}
