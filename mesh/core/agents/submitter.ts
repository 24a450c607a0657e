/**
 * Keeps every action request of this node's own clients until it is answered. Where each runs is decided by the offload
 * policy: what stays starts here at once and is offered to the leader of its shard at the same time, so that everybody
 * else can merge with it; what is offered waits for a claim of anybody, this node among them. Outputs that were handed over
 * or found are fetched, and everything runs here when the mesh is slow or gone.
 *
 * The client is answered as soon as the outputs are durable here and no later claim was heard of; publishing the result
 * is the executor's business and may still lose.
 *
 * @see docs/protocol.md, "Submitters and executors"; docs/adr/0026-stayed-actions.md
 */
import type { SubmitItem } from '../claims/messages.ts';
import { backoffMs } from '../claims/retries.ts';
import { compareTokens, type NodeId, type RequestId, type ShardId, type Token } from '../ids.ts';
import { claimLimits } from '../limits.ts';
import { submitterLimits as limits } from './limits.ts';
import type { Outcome } from './messages.ts';
import { createFetching } from './submitter/fetching.ts';
import { createPlacing } from './submitter/placing.ts';
import { createPublishing } from './submitter/publishing.ts';
import { createRequest, type Request } from './submitter/requests.ts';
import { createRetryBudget } from './submitter/retry-budget.ts';
import { createStates } from './submitter/states.ts';
import type {
  Answer,
  ExecuteItem,
  Submitter,
  SubmitterConfig,
  SubmitterEffect,
  SubmitterEvent,
  SubmitterMessage,
} from './submitter/types.ts';

const tickMs = 500;

/** Creates the machine. It asks `leaderOf` only inside `step`. */
export function createSubmitter(config: SubmitterConfig): Submitter {
  const { self, leaderOf, rng } = config;
  const requests = new Map<RequestId, Request>();
  const budget = createRetryBudget();
  // Offers of one step leave together.
  const outgoing = new Set<Request>();
  let redecideAtMs = 0;
  let toldWaiting = false;
  let tickAtMs = Number.POSITIVE_INFINITY;
  let wakeAtMs = Number.POSITIVE_INFINITY;
  let lastId = 0;
  let nowInStepMs = 0;
  let effects: SubmitterEffect[] = [];

  const emit = (effect: SubmitterEffect): void => void effects.push(effect);
  const send = (to: NodeId, message: SubmitterMessage): void => emit({ kind: 'send', to, message });
  const nextId = (): number => ++lastId;
  const placing = createPlacing(config, {
    requests,
    emit,
    nowMs: () => nowInStepMs,
    offer: (request) => void outgoing.add(request),
    reofferReady,
    fail: (request, reason) => answer(request, { kind: 'failed', reason }, true),
  });
  const { policy } = placing;
  const publishing = createPublishing(config, { emit, send, nextId });
  const fetching = createFetching(config, publishing, {
    emit,
    send,
    nextId,
    requestOf: (id) => requests.get(id),
    hear,
    answer(request, with_, runMs) {
      if (runMs !== undefined) sayEnded(request, with_.executor, with_.outcome, runMs);
      // A waiter that leaves would revoke a claim that is still being published, so the leader is not told.
      answer(request, with_, false);
    },
    retry,
    lied(request, node) {
      placing.tell({ kind: 'fault', node });
      placing.runHere(request, 'badResult');
    },
  });

  const states = createStates(config, placing, fetching, {
    requests,
    hear,
    offer: (request) => void outgoing.add(request),
    fail: (request, reason) => answer(request, { kind: 'failed', reason }, false),
    cancelAtLeader,
  });

  // ---- Here ----

  function sayEnded(request: Request, node: NodeId, outcome: Outcome, runMs: number): void {
    // A failed action is often over early, which says nothing about the next time.
    const learned = outcome.cacheable ? runMs : undefined;
    const { sizeBytes } = outcome;
    placing.tell({ kind: 'ended', request: request.item.request, node, runMs: learned, sizeBytes });
  }

  function onOwnEnded(event: Extract<SubmitterEvent, { kind: 'ownEnded' }>): void {
    const request = requests.get(event.request);
    if (!request) return;
    const { outcome, token, runMs, reason } = event;
    const { shard, key, doNotCache } = request.item;
    if (!token) Object.assign(request, { local: undefined, hedged: false });
    if (!outcome) return onOwnFailed(request, reason ?? 'executorFault', token);
    // A later claim was made under another leader: what this one made no longer counts.
    if (token && request.highest && compareTokens(token, request.highest) < 0) return;
    if (!token && !doNotCache && outcome.cacheable) publishing.publish(shard, key, outcome.result);
    sayEnded(request, self, outcome, runMs);
    const source = token ? 'mesh' : 'local';
    answer(request, { kind: 'result', outcome, source, token, executor: self }, !token);
  }

  function onOwnFailed(request: Request, reason: 'executorFault' | 'inputsMissing' | 'actionInvalid', token?: Token) {
    if (reason !== 'executorFault') return answer(request, { kind: 'failed', reason }, true);
    if (request.givenUp) {
      // Others could not get its inputs; this machine had them.
      const last = request.givenUp === 'inputsMissing' ? reason : request.givenUp;
      return answer(request, { kind: 'failed', reason: last }, true);
    }
    // Its leader was told, and says who is next; or another runs it anyway.
    if (token || request.claimedBy !== undefined) return;
    request.localFaults += 1;
    if (request.localFaults >= limits.localFaultsMax) return placing.giveUp(request, reason);
    retry(request, nowInStepMs);
  }

  // ---- The leader ----

  function flushOffers(): void {
    const byLeader = new Map<NodeId, SubmitItem[]>();
    for (const request of outgoing) {
      if (!requests.has(request.item.request)) continue;
      request.offeredAtMs = nowInStepMs;
      const to = leaderOf(request.item.shard);
      if (to === undefined) continue;
      request.leader = to;
      request.offered = true;
      const { mnemonic: _, family: __, inputBytes: ___, ...item } = request.item;
      const stay = request.local === 'running' && !request.hedged;
      const kept = placing.avoided(request);
      // An item that is meant for others is not given back here.
      const avoid = item.avoid?.includes(self) ? [...kept.slice(0, claimLimits.avoidMax - 1), self] : kept;
      const deaths = Math.min(request.deaths, claimLimits.deathsMax);
      const expectedMs = Math.round(policy.estimates.meanRunMs(request.item));
      const offer: SubmitItem = { ...item, expectedMs, reoffer: request.known, stay, avoid, deaths };
      const items = byLeader.get(to);
      if (items) items.push(offer);
      else byLeader.set(to, [offer]);
    }
    outgoing.clear();
    for (const [leader, items] of byLeader) send(leader, { kind: 'submit', items });
  }

  /** Whom to keep it from has changed since these were offered. */
  function reofferReady(): void {
    for (const request of requests.values()) {
      if (request.accepted && request.claimedBy === undefined && !request.local) outgoing.add(request);
    }
  }

  function hear(request: Request, token: Token | undefined, nowMs: number): void {
    request.heardAtMs = nowMs;
    request.accepted = true;
    request.known = true;
    request.isForced = false;
    if (!token || (request.highest && compareTokens(token, request.highest) <= 0)) return;
    request.highest = token;
    fetching.outdate(request, token);
  }

  // ---- Ends ----

  function cancelAtLeader(request: Request): void {
    const { request: id, shard } = request.item;
    const leader = leaderOf(shard);
    if (leader !== undefined && request.offered) {
      send(leader, { kind: 'cancelRequests', requests: [{ shard, request: id }] });
    }
  }

  function answer(request: Request, with_: Answer, tellLeader: boolean): void {
    const { request: id } = request.item;
    if (!requests.delete(id)) return;
    emit({ kind: 'answer', request: id, answer: with_ });
    fetching.drop(request);
    // What ended here is over; what runs here beside it, under a claim or without one, is not wanted any more.
    if (request.local || request.claimedBy === self) emit({ kind: 'stopOwn', request: id });
    if (tellLeader) cancelAtLeader(request);
    placing.tell({ kind: 'cancelled', request: id });
  }

  /** Offers the request anew, within the budgets of the request and of this node; beyond them it runs here. */
  function retry(request: Request, nowMs: number): void {
    request.accepted = false;
    request.claimedBy = undefined;
    if (request.givenUp) return;
    if (request.retries >= limits.retriesMax || !budget.spend(nowMs)) return placing.giveUp(request, 'tooManyRetries');
    request.retries += 1;
    request.notBeforeMs = nowMs + backoffMs(request.retries, rng);
    request.isRetry = true;
    if (!request.local) placing.sayProgress(request, 'queued', undefined);
  }

  // ---- Time ----

  /** What time alone brings about, for one request; true when it should be offered. */
  function pushOn(request: Request, nowMs: number): boolean {
    fetching.pushOn(request, nowMs);
    if (!requests.has(request.item.request) || request.fetch || request.givenUp) return false;
    if (nowMs < request.notBeforeMs) return false;
    if (request.isRetry) {
      request.isRetry = false;
      if (!request.local) placing.place(request);
      return false;
    }
    const silentMs = nowMs - Math.max(request.heardAtMs, request.notBeforeMs);
    if (request.accepted && nowMs - request.heardAtMs >= limits.silenceMs) {
      request.accepted = false;
      request.known = true;
    }
    if (!request.local) {
      const isSlotFree = policy.freeSlots > 0 && policy.canRunHere(request.item);
      const hasLeader = leaderOf(request.item.shard) !== undefined;
      const budgetMs =
        limits.meshBudgetMs + (request.accepted || request.claimedBy !== undefined ? limits.silenceMs : 0);
      if (!hasLeader && request.claimedBy === undefined) placing.runHere(request, 'noLeader');
      else if (silentMs >= budgetMs) placing.runHere(request, 'silentLeader');
      else if (isSlotFree && request.claimedBy === undefined) onIdleSlot(request, silentMs, nowMs);
      else request.idleSinceMs = undefined;
    }
    if (nowMs - request.offeredAtMs < limits.offerRetryMs) return false;
    // A run here that lost its claim, or never got one, is offered again.
    const staysUnclaimed = request.local === 'running' && request.claimedBy === undefined && !request.item.doNotCache;
    return request.local ? staysUnclaimed : !request.accepted;
  }

  /** A slot is free and this waits: its leader is silent, or has no use for this node. */
  function onIdleSlot(request: Request, silentMs: number, nowMs: number): void {
    request.idleSinceMs ??= nowMs;
    if (!request.accepted && silentMs >= limits.offerRetryMs) return placing.runHere(request, 'silentLeader');
    if (nowMs - request.idleSinceMs >= limits.idleBudgetMs) placing.runHere(request, 'nobodyElse');
  }

  function onTick(nowMs: number): void {
    const renewals = new Map<NodeId, { shard: ShardId; request: RequestId }[]>();
    for (const request of [...requests.values()]) {
      if (pushOn(request, nowMs)) outgoing.add(request);
      else if (request.accepted && request.leader !== undefined && nowMs - request.renewedAtMs >= limits.renewMs) {
        request.renewedAtMs = nowMs;
        const { shard, request: id } = request.item;
        const batch = renewals.get(request.leader);
        if (batch) batch.push({ shard, request: id });
        else renewals.set(request.leader, [{ shard, request: id }]);
      }
    }
    for (const [leader, batch] of renewals) send(leader, { kind: 'renewRequests', requests: batch });
    publishing.onTick(nowMs);
    if (nowMs < redecideAtMs) return;
    redecideAtMs = nowMs + limits.redecideMs;
    placing.placeAgain(limits.redecidedMax);
  }

  // ---- Events ----

  function onExecute(item: ExecuteItem, nowMs: number): void {
    if (requests.has(item.request)) return;
    if (requests.size >= limits.requestsMax) {
      emit({ kind: 'answer', request: item.request, answer: { kind: 'failed', reason: 'queueFull' } });
      return;
    }
    const request = createRequest(item, nowMs);
    requests.set(item.request, request);
    placing.place(request);
  }

  function onLeader(shard: ShardId, leader: NodeId | undefined): void {
    for (const request of [...requests.values()]) {
      if (request.item.shard !== shard || request.givenUp) continue;
      if (request.offered) request.known = true;
      request.accepted = false;
      request.isForced = false;
      if (leader === undefined) {
        // Whoever has it goes on with it; what nobody has runs here.
        if (request.claimedBy === undefined) placing.runHere(request, 'noLeader');
      } else if (request.local === 'queued' && !request.hedged) {
        placing.tell({ kind: 'again', request: request.item.request, hasLeader: true });
      } else if (!request.hedged && !(request.local && request.item.doNotCache)) outgoing.add(request);
    }
  }

  function onAbsent(node: NodeId, nowMs: number): void {
    fetching.onAbsent(node, nowMs);
    for (const request of [...requests.values()]) states.onAbsent(request, node, nowMs);
  }

  function onMessage(from: NodeId, message: SubmitterMessage, nowMs: number): void {
    switch (message.kind) {
      case 'requestState':
        for (const state of message.states) states.onState(from, state, nowMs);
        return;
      case 'handOver':
        return fetching.onHandOver(from, message, nowMs);
      case 'stage':
        return states.onStage(from, message, nowMs);
      case 'lookedUp':
        return fetching.onLookedUp(message, nowMs);
      case 'written':
        return publishing.written(message.id);
      // Everything else is for leaders and executors; whom a redirect names is learned from the shard's status.
      default:
        return;
    }
  }

  function onOwnClaimed(id: RequestId, token: Token, nowMs: number): void {
    const request = requests.get(id);
    if (!request) return;
    hear(request, token, nowMs);
    Object.assign(request, { local: undefined, hedged: false, claimedBy: self, idleSinceMs: undefined });
    placing.sayProgress(request, 'executing', self);
    // It merged with what runs here for somebody else: its leader has to know that it waits as well.
    if (!request.offered && !request.item.doNotCache && !request.givenUp) outgoing.add(request);
  }

  function onOwnUnclaimed(id: RequestId): void {
    const request = requests.get(id);
    if (!request) return emit({ kind: 'stopOwn', request: id });
    // It waits for room until it says that it runs.
    Object.assign(request, { local: 'queued', claimedBy: request.claimedBy === self ? undefined : request.claimedBy });
    placing.tell({ kind: 'queuedHere', request: id });
    const { claimedBy } = request;
    if (claimedBy !== undefined) placing.merge(request, claimedBy, 0);
  }

  function apply(event: SubmitterEvent, nowMs: number): void {
    switch (event.kind) {
      case 'wake':
        return;
      case 'gap':
        for (const request of requests.values()) {
          if (request.givenUp) continue;
          // Nobody renewed for us while we slept, and nobody could reach us: that silence proves nothing.
          Object.assign(request, { accepted: false, heardAtMs: nowMs, known: true });
          if (request.local !== 'queued' && !request.hedged) outgoing.add(request);
        }
        return;
      case 'execute':
        return onExecute(event.item, nowMs);
      case 'cancel': {
        const request = requests.get(event.request);
        if (request) answer(request, { kind: 'failed', reason: 'cancelled' }, true);
        return;
      }
      case 'slots':
      case 'drain':
      case 'mismatched':
        return placing.tell(event);
      case 'mesh':
        placing.tell(event);
        return placing.placeAgain(limits.redecidedMax);
      case 'message':
        return onMessage(event.from, event.message, nowMs);
      case 'leader':
        return onLeader(event.shard, event.leader);
      case 'absent':
        return onAbsent(event.node, nowMs);
      case 'fetched':
        return fetching.onFetched(event.fetch, event.outcome, event.lied ?? false, nowMs);
      case 'pinned':
        return publishing.pinned(event.fetch, event.forMs, nowMs);
      case 'pinRefused':
        return publishing.pinned(event.fetch, undefined, nowMs);
      case 'ownEnded':
        return onOwnEnded(event);
      case 'ownClaimed':
        return onOwnClaimed(event.request, event.token, nowMs);
      case 'ownUnclaimed':
        return onOwnUnclaimed(event.request);
      default:
        event satisfies never;
    }
  }

  return {
    step(event, nowMs) {
      effects = [];
      nowInStepMs = nowMs;
      apply(event, nowMs);
      if (nowMs >= placing.dueAtMs) placing.tell({ kind: 'wake' });
      if (nowMs >= tickAtMs) {
        tickAtMs = Number.POSITIVE_INFINITY;
        onTick(nowMs);
      }
      flushOffers();
      const waiting = policy.waiting > 0;
      if (waiting !== toldWaiting) emit({ kind: 'ownWaiting', waiting });
      toldWaiting = waiting;
      const idle = requests.size === 0 && publishing.size === 0;
      tickAtMs = idle ? Number.POSITIVE_INFINITY : Math.min(tickAtMs, nowMs + tickMs);
      const next = Math.min(tickAtMs, placing.dueAtMs);
      if (next !== wakeAtMs || event.kind === 'wake') emit({ kind: 'wakeAt', atMs: next });
      wakeAtMs = next;
      return effects;
    },
    requests: () => requests.values(),
    waiting: () => requests.size,
    drained: () => policy.health.drained(),
  };
}
