/**
 * Keeps every action request of this node's own clients until it is answered: offers it to the leader of its shard,
 * offers it again to the next one, fetches what was handed over or found, and runs it here when the mesh is slow or gone.
 *
 * The client is answered as soon as the outputs are durable here and no later claim was heard of; publishing the result
 * is the executor's business and may still lose.
 *
 * @see docs/protocol.md, submitters
 */
import type { RequestState, SubmitItem } from '../claims/messages.ts';
import {
  type ActionKey,
  type BlobKey,
  compareTokens,
  type NodeId,
  type RequestId,
  type ShardId,
  type Token,
} from '../ids.ts';
import type { RegisterMessage } from '../registers/messages.ts';
import type { HolderPromise } from '../registers/types.ts';
import { submitterLimits as limits } from './limits.ts';
import type { AgentMessage, ExecuteItem, Outcome } from './messages.ts';
import type {
  Answer,
  Submitter,
  SubmitterConfig,
  SubmitterEffect,
  SubmitterEvent,
  SubmitterMessage,
} from './submitter/types.ts';

interface Request {
  item: SubmitItem;
  readonly startedAtMs: number;
  leader: NodeId | undefined;
  /** Some leader was asked, and may have given it to somebody whether or not its answer came. */
  offered: boolean;
  offeredAtMs: number;
  heardAtMs: number;
  renewedAtMs: number;
  /** The leader said that it knows the request. */
  accepted: boolean;
  claimedAtMs: number | undefined;
  highest: Token | undefined;
  fetch: Fetch | undefined;
  /** Runs here, or waits for a slot here. */
  local: boolean;
  localTries: number;
  retries: number;
}

interface Fetch {
  readonly id: number;
  readonly request: Request;
  readonly result: BlobKey;
  /** Of the claim whose executor hands over; undefined for a result that was found. */
  readonly handOver: { readonly from: NodeId; readonly token: Token } | undefined;
  readonly token: Token | undefined;
  tried: NodeId[];
  lookup: number | undefined;
  endsAtMs: number;
}

/** A hand-over whose outputs are here and whose promise is being pinned. */
interface Promising {
  readonly to: NodeId;
  readonly key: ActionKey;
  readonly token: Token;
}

interface Publication {
  readonly id: number;
  readonly shard: ShardId;
  readonly key: ActionKey;
  readonly result: BlobKey;
  promises: HolderPromise[];
  tries: number;
  dueAtMs: number;
}

const tickMs = 500;

/** Creates the machine. It asks `leaderOf` only inside `step`. */
export function createSubmitter(config: SubmitterConfig): Submitter {
  const { self, leaderOf } = config;
  const requests = new Map<RequestId, Request>();
  const fetches = new Map<number, Fetch>();
  const lookups = new Map<number, Fetch>();
  const promising = new Map<number, Promising>();
  const publishing = new Map<number, Publication>();
  let nextId = 0;
  let retriesLeft: number = limits.retryBurst;
  let refilledAtMs = 0;
  let wakeAtMs = Number.POSITIVE_INFINITY;
  let effects: SubmitterEffect[] = [];

  function send(to: NodeId, message: SubmitterMessage): void {
    effects.push({ kind: 'send', to, message });
  }

  function offer(those: readonly Request[], nowMs: number): void {
    const byLeader = new Map<NodeId, SubmitItem[]>();
    for (const request of those) {
      request.offeredAtMs = nowMs;
      request.leader = leaderOf(request.item.shard);
      if (request.leader === undefined) continue;
      request.offered = true;
      const items = byLeader.get(request.leader);
      if (items) items.push(request.item);
      else byLeader.set(request.leader, [request.item]);
    }
    for (const [leader, items] of byLeader) send(leader, { kind: 'submit', items });
  }

  function runHere(request: Request): void {
    if (request.local) return;
    request.local = true;
    request.localTries += 1;
    const { request: id, key, spaceBytes } = request.item;
    effects.push({ kind: 'runOwn', request: id, key, spaceBytes });
  }

  function forgetFetch(fetch: Fetch): void {
    fetches.delete(fetch.id);
    if (fetch.lookup !== undefined) lookups.delete(fetch.lookup);
    if (fetch.request.fetch === fetch) fetch.request.fetch = undefined;
  }

  function dropFetch(fetch: Fetch): void {
    if (fetch.lookup === undefined) effects.push({ kind: 'stopFetch', fetch: fetch.id });
    forgetFetch(fetch);
  }

  /** The request is over: nothing of it goes on, here or at its leader. */
  function close(request: Request, tellLeader: boolean): void {
    const { request: id, shard } = request.item;
    requests.delete(id);
    if (request.fetch) dropFetch(request.fetch);
    if (request.local) effects.push({ kind: 'stopOwn', request: id });
    const leader = leaderOf(shard);
    if (tellLeader && leader !== undefined)
      send(leader, { kind: 'cancelRequests', requests: [{ shard, request: id }] });
  }

  function answer(request: Request, with_: Answer, tellLeader: boolean): void {
    effects.push({ kind: 'answer', request: request.item.request, answer: with_ });
    close(request, tellLeader);
  }

  function hear(request: Request, token: Token | undefined, nowMs: number): void {
    request.heardAtMs = nowMs;
    request.accepted = true;
    if (!token || (request.highest && compareTokens(token, request.highest) <= 0)) return;
    request.highest = token;
    // A later claim was made: what the earlier one hands over no longer counts.
    const fetch = request.fetch;
    if (fetch?.handOver && compareTokens(fetch.handOver.token, token) < 0) dropFetch(fetch);
  }

  function startFetch(
    request: Request,
    from: NodeId,
    fetch: Omit<Fetch, 'id' | 'tried' | 'lookup' | 'endsAtMs' | 'request'>,
    nowMs: number,
  ): void {
    if (request.fetch) dropFetch(request.fetch);
    nextId += 1;
    const started: Fetch = { ...fetch, id: nextId, request, tried: [], lookup: undefined, endsAtMs: 0 };
    request.fetch = started;
    fetches.set(started.id, started);
    fetchFrom(started, from, nowMs);
  }

  function fetchFrom(fetch: Fetch, from: NodeId, nowMs: number): void {
    fetch.tried.push(from);
    fetch.lookup = undefined;
    fetch.endsAtMs = nowMs + limits.transferMsMin + limits.transferMsPerMegabyte * 16;
    effects.push({ kind: 'fetchOutputs', fetch: fetch.id, from, result: fetch.result });
  }

  function onHandOver(from: NodeId, message: Extract<AgentMessage, { kind: 'handOver' }>, nowMs: number): void {
    const { token, key, outcome } = message;
    const request = requests.get(message.request);
    if (!request) {
      // Answered meanwhile. If these very outputs are here, they can still be promised; otherwise nobody waits.
      if (config.holds(outcome.result)) promiseTo({ to: from, key, token }, outcome.result);
      else send(from, { kind: 'handOverRefused', key, token });
      return;
    }
    if (request.highest && compareTokens(token, request.highest) < 0) {
      send(from, { kind: 'handOverRefused', key, token });
      return;
    }
    hear(request, token, nowMs);
    if (request.fetch?.handOver && compareTokens(request.fetch.handOver.token, token) === 0) return;
    startFetch(request, from, { result: outcome.result, handOver: { from, token }, token }, nowMs);
  }

  function promiseTo(to: Promising, result: BlobKey): void {
    nextId += 1;
    promising.set(nextId, to);
    effects.push({ kind: 'pinHandedOver', fetch: nextId, result, forMs: limits.promiseMs });
  }

  function onFetched(id: number, outcome: Outcome | undefined, nowMs: number): void {
    const fetch = fetches.get(id);
    if (!fetch) return;
    const { request } = fetch;
    if (!outcome) return tryNextHolder(fetch, nowMs);
    forgetFetch(fetch);
    if (fetch.handOver) {
      promiseTo({ to: fetch.handOver.from, key: request.item.key, token: fetch.handOver.token }, outcome.result);
      if (request.highest && compareTokens(fetch.handOver.token, request.highest) < 0) return;
    }
    // A waiter that leaves would revoke a claim that is still being published, so the leader is not told.
    const source = fetch.handOver ? 'mesh' : 'cache';
    answer(request, { kind: 'result', outcome, source, token: fetch.token }, false);
  }

  function tryNextHolder(fetch: Fetch, nowMs: number): void {
    const { request } = fetch;
    if (fetch.handOver) {
      // The executor is still there or it is not; its leader will know. Until then this request just waits.
      forgetFetch(fetch);
      return;
    }
    const leader = leaderOf(request.item.shard);
    if (fetch.tried.length >= limits.fetchAttempts || leader === undefined) return lostResult(fetch, leader, nowMs);
    nextId += 1;
    fetch.lookup = nextId;
    lookups.set(nextId, fetch);
    fetch.endsAtMs = nowMs + limits.offerRetryMs;
    const { shard, key } = request.item;
    send(leader, { kind: 'lookup', id: nextId, shard, keys: [key], fresh: false });
  }

  function lostResult(fetch: Fetch, leader: NodeId | undefined, nowMs: number): void {
    const { request } = fetch;
    forgetFetch(fetch);
    if (leader !== undefined) {
      nextId += 1;
      const { shard, key } = request.item;
      send(leader, { kind: 'invalidate', id: nextId, shard, key, result: fetch.result, reason: 'lost' });
    }
    retry(request, nowMs);
  }

  function onLookedUp(message: Extract<RegisterMessage, { kind: 'lookedUp' }>, nowMs: number): void {
    const fetch = lookups.get(message.id);
    if (!fetch) return;
    lookups.delete(message.id);
    fetch.lookup = undefined;
    const register = message.found[0]?.register;
    const holders = register?.kind === 'result' && register.result === fetch.result ? register.holders : [];
    const next = holders.find(({ holder }) => holder !== self && !fetch.tried.includes(holder));
    if (next) fetchFrom(fetch, next.holder, nowMs);
    else if (register?.kind === 'result' && register.result !== fetch.result) {
      startFetch(fetch.request, register.executor, { ...foundFetch(register.result) }, nowMs);
    } else lostResult(fetch, leaderOf(fetch.request.item.shard), nowMs);
  }

  function foundFetch(result: BlobKey): Pick<Fetch, 'result' | 'handOver' | 'token'> {
    return { result, handOver: undefined, token: undefined };
  }

  function refill(nowMs: number): void {
    const earned = Math.trunc((nowMs - refilledAtMs) / limits.retryRefillMs);
    if (earned <= 0) return;
    retriesLeft = Math.min(limits.retryBurst, retriesLeft + earned);
    refilledAtMs = nowMs;
  }

  /** Offers the request anew, within the budgets of the request and of this node; beyond them it runs here. */
  function retry(request: Request, nowMs: number): void {
    request.accepted = false;
    request.claimedAtMs = undefined;
    refill(nowMs);
    if (request.retries >= limits.retriesMax || retriesLeft === 0) return runHere(request);
    request.retries += 1;
    retriesLeft -= 1;
    offer([request], nowMs);
  }

  function onState(from: NodeId, state: RequestState, nowMs: number): void {
    const request = requests.get(state.request);
    if (!request) return;
    switch (state.kind) {
      case 'ready':
        hear(request, undefined, nowMs);
        request.claimedAtMs = undefined;
        return;
      case 'claimed':
        hear(request, state.token, nowMs);
        request.claimedAtMs ??= nowMs;
        return;
      case 'succeeded': {
        hear(request, undefined, nowMs);
        if (request.fetch?.result === state.result) return;
        if (config.holds(state.result)) {
          const outcome: Outcome = { result: state.result, sizeBytes: 0, cacheable: true };
          return answer(request, { kind: 'result', outcome, source: 'cache', token: state.token }, false);
        }
        const fetch = { result: state.result, handOver: undefined, token: state.token };
        return startFetch(request, state.executor, fetch, nowMs);
      }
      case 'finished':
        hear(request, undefined, nowMs);
        if (!request.fetch) retry(request, nowMs);
        return;
      case 'ended':
        if (state.reason === 'actionInvalid') return answer(request, { kind: 'failed', reason: state.reason }, false);
        request.accepted = false;
        return runHere(request);
      case 'unknown':
        if (leaderOf(request.item.shard) !== from) return;
        request.item = { ...request.item, reoffer: true };
        offer([request], nowMs);
        return;
      default:
        state satisfies never;
    }
  }

  function onMessage(from: NodeId, message: SubmitterMessage, nowMs: number): void {
    switch (message.kind) {
      case 'requestState':
        for (const state of message.states) onState(from, state, nowMs);
        return;
      case 'handOver':
        return onHandOver(from, message, nowMs);
      case 'lookedUp':
        return onLookedUp(message, nowMs);
      case 'written':
        publishing.delete(message.id);
        return;
      // Everything else is for leaders and executors; whom a redirect names is learned from the shard's status.
      default:
        return;
    }
  }

  function onOwnEnded(id: RequestId, outcome: Outcome | undefined): void {
    const request = requests.get(id);
    if (!request) return;
    request.local = false;
    if (!outcome) {
      if (request.localTries >= limits.retriesMax) answer(request, { kind: 'failed', reason: 'executorFault' }, true);
      return;
    }
    const { shard, key, doNotCache } = request.item;
    if (!doNotCache) {
      nextId += 1;
      const publication = { id: nextId, shard, key, result: outcome.result, promises: [], tries: 0, dueAtMs: 0 };
      publishing.set(nextId, publication);
      effects.push({ kind: 'pinHandedOver', fetch: nextId, result: outcome.result, forMs: limits.promiseMs });
    }
    answer(request, { kind: 'result', outcome, source: 'local', token: undefined }, true);
  }

  function onPinned(id: number, forMs: number | undefined, nowMs: number): void {
    const promise =
      forMs === undefined ? undefined : { holder: self, storeGeneration: config.storeGeneration, pinnedForMs: forMs };
    const given = promising.get(id);
    if (given) {
      promising.delete(id);
      send(given.to, { kind: 'handedOver', key: given.key, token: given.token, promise });
      return;
    }
    const publication = publishing.get(id);
    if (!publication) return;
    if (!promise) publishing.delete(id);
    else {
      publication.promises = [promise];
      publish(publication, nowMs);
    }
  }

  function publish(publication: Publication, nowMs: number): void {
    publication.tries += 1;
    publication.dueAtMs = nowMs + limits.renewMs;
    const { id, shard, key, result, promises } = publication;
    if (publication.tries > limits.retriesMax) {
      publishing.delete(id);
      return;
    }
    const leader = leaderOf(shard);
    if (leader !== undefined) send(leader, { kind: 'publish', id, shard, key, result, executor: self, promises });
  }

  /** What time alone brings about, for one request; true when it should be offered. */
  function pushOn(request: Request, nowMs: number): boolean {
    const { fetch } = request;
    if (fetch && nowMs >= fetch.endsAtMs) {
      if (fetch.lookup === undefined) effects.push({ kind: 'stopFetch', fetch: fetch.id });
      else lookups.delete(fetch.lookup);
      tryNextHolder(fetch, nowMs);
    }
    if (!requests.has(request.item.request) || request.fetch) return false;
    const silentMs = nowMs - request.heardAtMs;
    if (request.accepted && silentMs >= limits.silenceMs) {
      request.accepted = false;
      request.item = { ...request.item, reoffer: true };
    }
    if (silentMs >= limits.meshBudgetMs + (request.accepted ? limits.silenceMs : 0)) runHere(request);
    const { claimedAtMs } = request;
    if (claimedAtMs === undefined) {
      if (nowMs - request.startedAtMs >= limits.queueBudgetMs) runHere(request);
    } else if (nowMs - claimedAtMs >= limits.hedgeMs + limits.hedgeFactor * request.item.expectedMs) runHere(request);
    return !request.accepted && nowMs - request.offeredAtMs >= limits.offerRetryMs;
  }

  function onTick(nowMs: number): void {
    const offers: Request[] = [];
    const renewals = new Map<NodeId, { shard: ShardId; request: RequestId }[]>();
    for (const request of requests.values()) {
      if (pushOn(request, nowMs)) offers.push(request);
      else if (request.accepted && request.leader !== undefined && nowMs - request.renewedAtMs >= limits.renewMs) {
        request.renewedAtMs = nowMs;
        const { shard, request: id } = request.item;
        const batch = renewals.get(request.leader);
        if (batch) batch.push({ shard, request: id });
        else renewals.set(request.leader, [{ shard, request: id }]);
      }
    }
    if (offers.length > 0) offer(offers, nowMs);
    for (const [leader, batch] of renewals) send(leader, { kind: 'renewRequests', requests: batch });
    for (const publication of publishing.values()) {
      if (publication.tries > 0 && nowMs >= publication.dueAtMs) publish(publication, nowMs);
    }
  }

  function apply(event: SubmitterEvent, nowMs: number): void {
    switch (event.kind) {
      case 'wake':
        return;
      case 'gap':
        for (const request of requests.values()) {
          // Nobody renewed for us while we slept, and nobody could reach us: that silence proves nothing.
          request.accepted = false;
          request.heardAtMs = nowMs;
          request.item = { ...request.item, reoffer: true };
        }
        offer([...requests.values()], nowMs);
        return;
      case 'execute': {
        const { request: id } = event.item;
        if (requests.has(id)) return;
        if (requests.size >= limits.requestsMax) {
          effects.push({ kind: 'answer', request: id, answer: { kind: 'failed', reason: 'queueFull' } });
          return;
        }
        const request: Request = {
          item: { ...event.item, reoffer: false, stay: false, avoid: [] },
          startedAtMs: nowMs,
          leader: undefined,
          offered: false,
          offeredAtMs: nowMs,
          heardAtMs: nowMs,
          renewedAtMs: nowMs,
          accepted: false,
          claimedAtMs: undefined,
          highest: undefined,
          fetch: undefined,
          local: false,
          localTries: 0,
          retries: 0,
        };
        requests.set(id, request);
        offer([request], nowMs);
        return;
      }
      case 'cancel': {
        const request = requests.get(event.request);
        if (request) answer(request, { kind: 'failed', reason: 'cancelled' }, true);
        return;
      }
      case 'message':
        return onMessage(event.from, event.message, nowMs);
      case 'leader': {
        const moved = [...requests.values()].filter(({ item }) => item.shard === event.shard);
        for (const request of moved) {
          if (request.offered) request.item = { ...request.item, reoffer: true };
          request.accepted = false;
        }
        if (event.leader !== undefined) offer(moved, nowMs);
        return;
      }
      case 'absent':
        for (const fetch of [...fetches.values()]) {
          if (fetch.lookup === undefined && fetch.tried.at(-1) === event.node) {
            effects.push({ kind: 'stopFetch', fetch: fetch.id });
            tryNextHolder(fetch, nowMs);
          }
        }
        return;
      case 'fetched':
        return onFetched(event.fetch, event.outcome, nowMs);
      case 'pinned':
        return onPinned(event.fetch, event.forMs, nowMs);
      case 'pinRefused':
        return onPinned(event.fetch, undefined, nowMs);
      case 'ownEnded':
        return onOwnEnded(event.request, event.outcome);
      default:
        event satisfies never;
    }
  }

  return {
    step(event, nowMs) {
      effects = [];
      apply(event, nowMs);
      if (nowMs >= wakeAtMs) {
        wakeAtMs = Number.POSITIVE_INFINITY;
        onTick(nowMs);
      }
      const idle = requests.size === 0 && publishing.size === 0;
      const next = idle ? Number.POSITIVE_INFINITY : Math.min(wakeAtMs, nowMs + tickMs);
      if (next !== wakeAtMs || event.kind === 'wake') effects.push({ kind: 'wakeAt', atMs: next });
      wakeAtMs = next;
      return effects;
    },
    requests: () => requests.values(),
    waiting: () => requests.size,
  };
}
