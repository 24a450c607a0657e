/** The runs of this node: those under a claim, and those that its own clients could not wait with. */
import type { ClaimRef, GrantedClaim } from '../../claims/messages.ts';
import { type ActionKey, type NodeId, type RequestId, type ShardId, type Token, tokenText } from '../../ids.ts';
import type { HolderPromise } from '../../registers/types.ts';
import { executorLimits as limits } from '../limits.ts';
import type { Outcome } from '../messages.ts';
import type { ExecutorEffect, RunPhase } from './types.ts';

export interface Run {
  readonly run: number;
  readonly key: ActionKey;
  /** The own client's request that is answered as soon as this ends here. */
  own: RequestId | undefined;
  /** The submitter started it; it ran without a claim at first. */
  readonly stayed: boolean;
  readonly guest: boolean;
  readonly spaceBytes: number;
  shard: ShardId;
  /** Whom the claim names: the oldest waiter. */
  request: RequestId;
  submitter: NodeId;
  doNotCache: boolean;
  token: Token | undefined;
  /** A reservation: inputs may be fetched, and nothing runs before its leader confirmed the start. */
  prefetch: boolean;
  /** The leader was asked to confirm the start; the slot is kept for it. */
  starting: boolean;
  leader: NodeId | undefined;
  phase: RunPhase;
  reserved: boolean;
  frozen: boolean;
  expiresAtMs: number;
  expiresInMs: number;
  outcome: Outcome | undefined;
  runMs: number;
  promises: HolderPromise[];
  /** When the present phase is pushed on: the hand-over given up, the commit or registration repeated. */
  dueAtMs: number;
  attempts: number;
  /** The leader changed and has not yet adopted this claim. */
  registering: boolean;
  /** Granted by somebody else than the leader that was known: nothing runs before that leader adopted it. */
  unconfirmed: boolean;
}

export interface OwnAction {
  readonly request: RequestId;
  readonly key: ActionKey;
  readonly spaceBytes: number;
  /** The outcome of a run for somebody else does as well. */
  readonly isMergeable: boolean;
}

export interface RunTable {
  all(): IterableIterator<Run>;
  get(run: number): Run | undefined;
  readonly size: number;
  /** A run that a claim was granted for. */
  addClaimed(claim: GrantedClaim, leader: NodeId, nowMs: number): Run;
  /** A run that an own client asked for, without a claim. */
  addOwn(own: OwnAction): Run;
  /** Ends the run and gives back the room it reserved; its outputs stay. */
  end(run: Run): void;
  /** Puts the run under another claim, or under none. */
  reclaim(run: Run, token: Token | undefined): void;
  withToken(claim: { readonly key: ActionKey; readonly token: Token }): Run | undefined;
  /** A claimed run of the same action that a further claim could go on with. */
  mergeable(key: ActionKey): Run | undefined;
  /** A run without a claim that this claim would be for. */
  unclaimed(claim: GrantedClaim): Run | undefined;
  /** Slots in use: of all runs, or of guests alone. */
  occupied(whose?: 'guests'): number;
  reservations(): number;
}

export function createRunTable(self: NodeId, emit: (effect: ExecutorEffect) => void): RunTable {
  const runs = new Map<number, Run>();
  const byClaim = new Map<string, Run>();
  let nextRun = 0;

  function add(fields: Pick<Run, 'key' | 'own' | 'stayed' | 'guest' | 'spaceBytes' | 'request' | 'submitter'>): Run {
    nextRun += 1;
    const run: Run = {
      ...fields,
      run: nextRun,
      shard: -1,
      doNotCache: false,
      token: undefined,
      prefetch: false,
      starting: false,
      leader: undefined,
      phase: 'reserving',
      reserved: false,
      frozen: false,
      expiresAtMs: Number.POSITIVE_INFINITY,
      expiresInMs: Number.POSITIVE_INFINITY,
      outcome: undefined,
      runMs: 0,
      promises: [],
      dueAtMs: Number.POSITIVE_INFINITY,
      attempts: 0,
      registering: false,
      unconfirmed: false,
    };
    runs.set(run.run, run);
    emit({ kind: 'reserve', run: run.run, spaceBytes: run.spaceBytes });
    return run;
  }

  function reclaim(run: Run, token: Token | undefined): void {
    if (run.token) byClaim.delete(claimName(run.key, run.token));
    run.token = token;
    if (token) byClaim.set(claimName(run.key, token), run);
  }

  return {
    all: () => runs.values(),
    get: (run) => runs.get(run),
    get size() {
      return runs.size;
    },
    addClaimed(claim, leader, nowMs) {
      const { key, request, submitter, spaceBytes, expiresInMs } = claim;
      const guest = submitter !== self;
      const own = guest ? undefined : request;
      const run = add({ key, own, stayed: false, guest, spaceBytes, request, submitter });
      const expiresAtMs = nowMs + expiresInMs;
      const { shard, doNotCache, reserved: prefetch } = claim;
      Object.assign(run, { shard, doNotCache, prefetch, leader, expiresInMs, expiresAtMs });
      reclaim(run, claim.token);
      return run;
    },
    addOwn: ({ request, key, spaceBytes }) =>
      add({ key, own: request, stayed: true, guest: false, spaceBytes, request, submitter: self }),
    end(run) {
      runs.delete(run.run);
      reclaim(run, undefined);
      if (run.reserved) emit({ kind: 'release', run: run.run });
    },
    reclaim,
    withToken: ({ key, token }) => byClaim.get(claimName(key, token)),
    mergeable(key) {
      for (const run of runs.values()) if (run.key === key && run.token && !run.doNotCache) return run;
      return undefined;
    },
    unclaimed(claim) {
      for (const run of runs.values()) {
        if (run.token || run.key !== claim.key) continue;
        if (!claim.doNotCache || run.own === claim.request) return run;
      }
      return undefined;
    },
    occupied(whose) {
      let count = 0;
      for (const run of runs.values()) {
        if (working(run) && (!run.prefetch || run.starting) && (run.guest || whose === undefined)) count += 1;
      }
      return count;
    },
    reservations() {
      let count = 0;
      for (const run of runs.values()) if (run.prefetch) count += 1;
      return count;
    },
  };
}

/** It has not ended yet; outputs that wait for a hand-over or a commit need no slot. */
export function working({ phase }: Run): boolean {
  return phase === 'reserving' || phase === 'fetching' || phase === 'waiting' || phase === 'running';
}

/** Where nobody is known to lead, whoever speaks of the claim may be who does. */
export function isLedBy({ leader }: Run, node: NodeId): boolean {
  return leader === undefined || leader === node;
}

/** How often its claim is renewed, in ms. */
export function renewEvery({ expiresInMs }: Run): number {
  return Math.max(limits.renewMsMin, Math.trunc(expiresInMs / 3));
}

export function refOf(run: Run): ClaimRef {
  return { shard: run.shard, key: run.key, token: run.token as Token };
}

function claimName(key: ActionKey, token: Token): string {
  return `${key} ${tokenText(token)}`;
}
