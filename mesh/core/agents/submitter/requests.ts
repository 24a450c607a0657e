/** One action request of an own client, and what is known of it. */
import type { Setback } from '../../claims/messages.ts';
import type { NodeId, Token } from '../../ids.ts';
import type { Fetch } from './fetching.ts';
import type { ExecuteItem, FailedReason } from './types.ts';

export interface Request {
  readonly item: ExecuteItem;
  /** An earlier leader was asked for it, and may have given it to somebody whether or not its answer came. */
  known: boolean;
  /** Whom it was offered to last. */
  leader: NodeId | undefined;
  offered: boolean;
  offeredAtMs: number;
  heardAtMs: number;
  renewedAtMs: number;
  /** The leader said that it knows the request. */
  accepted: boolean;
  /** It starts over when this has passed. */
  isRetry: boolean;
  notBeforeMs: number;
  claimedBy: NodeId | undefined;
  highest: Token | undefined;
  fetch: Fetch | undefined;
  /** A run here without a claim: waiting for a slot, or running. */
  local: 'queued' | 'running' | undefined;
  /** It runs here because its leader was silent, whatever the policy says, until that changes. */
  isForced: boolean;
  /** The run here is beside a claimed one, which took too long. */
  hedged: boolean;
  /** Runs here that ended in a fault of this machine. */
  localFaults: number;
  retries: number;
  /** Executors that were lost with it, under all leaders. */
  deaths: number;
  /** The last of them, while no leader said so. */
  lostTo: NodeId | undefined;
  /** Who had it when a leader that knew nothing of that gave it on, and until when news of their absence count as deaths. */
  readonly unexplained: Map<NodeId, number>;
  /** Nobody claimed it although a slot here was free since this time. */
  idleSinceMs: number | undefined;
  /** The mesh will not run it any more; a run here is the last try. */
  givenUp: FailedReason | undefined;
  /** What its client was told last. */
  told: string;
}

export function createRequest(item: ExecuteItem, nowMs: number): Request {
  return {
    item,
    known: false,
    leader: undefined,
    offered: false,
    offeredAtMs: nowMs,
    heardAtMs: nowMs,
    renewedAtMs: nowMs,
    accepted: false,
    isRetry: false,
    notBeforeMs: nowMs,
    claimedBy: undefined,
    highest: undefined,
    fetch: undefined,
    local: undefined,
    isForced: false,
    hedged: false,
    localFaults: 0,
    retries: 0,
    deaths: 0,
    lostTo: undefined,
    unexplained: new Map(),
    idleSinceMs: undefined,
    givenUp: undefined,
    told: '',
  };
}

/** Whether what happened speaks against the executor. */
export function isFault({ reason }: Setback): boolean {
  return reason === 'executorFault' || reason === 'lost';
}
