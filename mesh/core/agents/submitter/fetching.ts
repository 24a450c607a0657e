/**
 * Brings outputs here: those that an executor hands over, and those of a result that is known, from one holder after the
 * other. A result that nobody has any more is reported lost, and its action runs again.
 */
import { type BlobKey, compareTokens, type NodeId, type Token } from '../../ids.ts';
import type { RegisterMessage } from '../../registers/messages.ts';
import type { InvalidationReason } from '../../registers/types.ts';
import { submitterLimits as limits } from '../limits.ts';
import type { AgentMessage, Outcome } from '../messages.ts';
import type { Publishing } from './publishing.ts';
import type { Request } from './requests.ts';
import type { Answer, SubmitterConfig, SubmitterEffect, SubmitterMessage } from './types.ts';

export interface Fetch {
  readonly id: number;
  readonly request: Request;
  readonly result: BlobKey;
  /** The claim whose executor hands over; undefined for a result that was found. */
  readonly handOver: Token | undefined;
  readonly token: Token | undefined;
  readonly executor: NodeId;
  /** Of the run, when its executor said so. */
  readonly runMs: number | undefined;
  readonly sizeBytes: number;
  readonly tried: NodeId[];
  lookup: number | undefined;
  endsAtMs: number;
}

type HandOver = Extract<AgentMessage, { kind: 'handOver' }>;
type Found = Pick<Fetch, 'result' | 'token' | 'executor'>;

export interface FetchingPort {
  emit(effect: SubmitterEffect): void;
  send(to: NodeId, message: SubmitterMessage): void;
  nextId(): number;
  requestOf(id: string): Request | undefined;
  hear(request: Request, token: Token, nowMs: number): void;
  answer(request: Request, answer: Extract<Answer, { kind: 'result' }>, runMs: number | undefined): void;
  /** The outputs that were to be had are not: the request starts over. */
  retry(request: Request, nowMs: number): void;
  /** What the executor handed over is not what the action made. */
  lied(request: Request, node: NodeId, nowMs: number): void;
}

export interface Fetching {
  onHandOver(from: NodeId, message: HandOver, nowMs: number): void;
  /** Fetches a result that is known, unless it is here or on its way. */
  fetchFound(request: Request, found: Found, cacheable: boolean, nowMs: number): void;
  onFetched(id: number, outcome: Outcome | undefined, lied: boolean, nowMs: number): void;
  onLookedUp(message: Extract<RegisterMessage, { kind: 'lookedUp' }>, nowMs: number): void;
  onAbsent(node: NodeId, nowMs: number): void;
  /** A later claim was heard of: what an earlier one hands over no longer counts. */
  outdate(request: Request, token: Token): void;
  drop(request: Request): void;
  /** Gives up what takes too long. */
  pushOn(request: Request, nowMs: number): void;
}

export function createFetching(config: SubmitterConfig, publishing: Publishing, port: FetchingPort): Fetching {
  const fetches = new Map<number, Fetch>();
  const lookups = new Map<number, Fetch>();

  function forget(fetch: Fetch): void {
    fetches.delete(fetch.id);
    if (fetch.lookup !== undefined) lookups.delete(fetch.lookup);
    if (fetch.request.fetch === fetch) fetch.request.fetch = undefined;
  }

  function drop(request: Request): void {
    const { fetch } = request;
    if (!fetch) return;
    if (fetch.lookup === undefined) port.emit({ kind: 'stopFetch', fetch: fetch.id });
    forget(fetch);
  }

  function start(
    request: Request,
    from: NodeId,
    what: Omit<Fetch, 'id' | 'tried' | 'lookup' | 'endsAtMs' | 'request'>,
    nowMs: number,
  ): void {
    drop(request);
    const fetch: Fetch = { ...what, id: port.nextId(), request, tried: [], lookup: undefined, endsAtMs: 0 };
    request.fetch = fetch;
    fetches.set(fetch.id, fetch);
    fetchFrom(fetch, from, nowMs);
  }

  function fetchFrom(fetch: Fetch, from: NodeId, nowMs: number): void {
    fetch.tried.push(from);
    fetch.lookup = undefined;
    const megabytes = Math.max(limits.transferMegabytesMin, Math.ceil(fetch.sizeBytes / 1_000_000));
    fetch.endsAtMs = nowMs + limits.transferMsMin + limits.transferMsPerMegabyte * megabytes;
    const { id, result, token } = fetch;
    const { request, key } = fetch.request.item;
    port.emit({ kind: 'fetchOutputs', fetch: id, from, result, request, key, token });
  }

  function startFound(request: Request, from: NodeId, found: Found, nowMs: number): void {
    start(request, from, { ...found, handOver: undefined, runMs: undefined, sizeBytes: 0 }, nowMs);
  }

  function tryNextHolder(fetch: Fetch, nowMs: number): void {
    // The executor is still there or it is not; its leader will know. Until then this request just waits.
    if (fetch.handOver) return forget(fetch);
    const { shard, key } = fetch.request.item;
    const leader = config.leaderOf(shard);
    if (fetch.tried.length >= limits.fetchAttempts || leader === undefined) return lost(fetch, 'lost', nowMs);
    fetch.lookup = port.nextId();
    lookups.set(fetch.lookup, fetch);
    fetch.endsAtMs = nowMs + limits.offerRetryMs;
    port.send(leader, { kind: 'lookup', id: fetch.lookup, shard, keys: [key], fresh: false });
  }

  function lost(fetch: Fetch, reason: InvalidationReason, nowMs: number): void {
    const { request, result } = fetch;
    forget(fetch);
    const { shard, key } = request.item;
    const leader = config.leaderOf(shard);
    if (leader !== undefined) {
      port.send(leader, { kind: 'invalidate', id: port.nextId(), shard, key, result, reason });
    }
    port.retry(request, nowMs);
  }

  function arrived(fetch: Fetch, outcome: Outcome): void {
    const { request, handOver, token, executor, runMs } = fetch;
    forget(fetch);
    if (handOver) {
      publishing.promiseTo({ to: executor, key: request.item.key, token: handOver }, outcome.result);
      if (request.highest && compareTokens(handOver, request.highest) < 0) return;
    }
    const source = runMs === undefined ? 'cache' : 'mesh';
    port.answer(request, { kind: 'result', outcome, source, token, executor }, runMs);
  }

  return {
    onHandOver(from, message, nowMs) {
      const { token, key, outcome, runMs } = message;
      const request = port.requestOf(message.request);
      const outdated = request?.highest !== undefined && compareTokens(token, request.highest) < 0;
      if (!request || outdated) {
        // Answered meanwhile. If these very outputs are here, they can still be promised; otherwise nobody waits.
        if (!request && config.holds(outcome.result)) publishing.promiseTo({ to: from, key, token }, outcome.result);
        else port.send(from, { kind: 'handOverRefused', key, token });
        return;
      }
      port.hear(request, token, nowMs);
      if (request.fetch?.handOver && compareTokens(request.fetch.handOver, token) === 0) return;
      const { result, sizeBytes } = outcome;
      start(request, from, { result, handOver: token, token, executor: from, runMs, sizeBytes }, nowMs);
    },

    fetchFound(request, found, cacheable, nowMs) {
      if (request.fetch?.result === found.result) return;
      if (!config.holds(found.result)) return startFound(request, found.executor, found, nowMs);
      const outcome: Outcome = { result: found.result, sizeBytes: 0, cacheable };
      const { token, executor } = found;
      port.answer(request, { kind: 'result', outcome, source: 'cache', token, executor }, undefined);
    },

    onFetched(id, outcome, lied, nowMs) {
      const fetch = fetches.get(id);
      if (!fetch) return;
      if (lied) {
        const { request, handOver, executor } = fetch;
        if (!handOver) return lost(fetch, 'wrong', nowMs);
        forget(fetch);
        port.send(executor, { kind: 'handOverRefused', key: request.item.key, token: handOver });
        return port.lied(request, executor, nowMs);
      }
      if (outcome) arrived(fetch, outcome);
      else tryNextHolder(fetch, nowMs);
    },

    onLookedUp(message, nowMs) {
      const fetch = lookups.get(message.id);
      if (!fetch) return;
      lookups.delete(message.id);
      fetch.lookup = undefined;
      const register = message.found[0]?.register;
      const holders = register?.kind === 'result' && register.result === fetch.result ? register.holders : [];
      const next = holders.find(({ holder }) => holder !== config.self && !fetch.tried.includes(holder));
      if (next) fetchFrom(fetch, next.holder, nowMs);
      else if (register?.kind === 'result' && register.result !== fetch.result) {
        const { result, executor } = register;
        startFound(fetch.request, executor, { result, executor, token: undefined }, nowMs);
      } else lost(fetch, 'lost', nowMs);
    },

    onAbsent(node, nowMs) {
      for (const fetch of [...fetches.values()]) {
        if (fetch.lookup !== undefined || fetch.tried.at(-1) !== node) continue;
        port.emit({ kind: 'stopFetch', fetch: fetch.id });
        tryNextHolder(fetch, nowMs);
      }
    },

    outdate(request, token) {
      const handOver = request.fetch?.handOver;
      if (handOver && compareTokens(handOver, token) < 0) drop(request);
    },

    drop,

    pushOn(request, nowMs) {
      const { fetch } = request;
      if (!fetch || nowMs < fetch.endsAtMs) return;
      if (fetch.lookup === undefined) port.emit({ kind: 'stopFetch', fetch: fetch.id });
      else lookups.delete(fetch.lookup);
      tryNextHolder(fetch, nowMs);
    },
  };
}
