/** What the offload policy is told and says. */
import type { NodeId, RequestId } from '../ids.ts';
import type { ActionTraits } from './estimates.ts';

export interface OffloadItem extends ActionTraits {
  readonly request: RequestId;
  readonly inputBytes: number;
  readonly requires: readonly string[];
  /** Nodes that its client keeps it from; with this node among them it runs elsewhere if it can. */
  readonly avoid: readonly NodeId[];
}

/** A member that is alive, other than this node. */
export interface MeshMember {
  readonly node: NodeId;
  /** Slots lent to guests now. */
  readonly guestSlots: number;
  readonly capabilities: readonly string[];
  /** Throughput to it: measured, or assumed from where it is. */
  readonly bytesPerMs: number;
}

export interface OffloadMember extends MeshMember {
  readonly has: ReadonlySet<string>;
}

export type DecidedWhy =
  /** A slot is free here, and elsewhere is not much faster. */
  | 'freeSlot'
  | 'soonerHere'
  | 'soonerElsewhere'
  /** This node cannot run it; or nobody else can. */
  | 'notHere'
  | 'nobodyElse'
  /** Its inputs are too large for the links to those who could. */
  | 'slowLink'
  | 'noLeader'
  | 'silentLeader'
  /** It takes far longer elsewhere than such actions do. */
  | 'straggler'
  /** The same action runs elsewhere already. */
  | 'merged'
  /** What was handed over is not what the action made. */
  | 'badResult'
  /** The mesh gave it up. */
  | 'lastTry';

export interface Decision {
  readonly where: 'here' | 'mesh';
  /** Until the outputs are here; undefined when it cannot be done there. */
  readonly hereMs: number | undefined;
  readonly elsewhereMs: number | undefined;
  readonly why: DecidedWhy;
}

export type DrainReason = 'faults' | 'mismatch' | 'byHand' | 'probed';

export type OffloadEvent =
  | { readonly kind: 'wake' }
  | { readonly kind: 'submit'; readonly item: OffloadItem; readonly hasLeader: boolean }
  /** What waits for a slot here is looked at anew; answered only by an `offer`. */
  | { readonly kind: 'again'; readonly request: RequestId; readonly hasLeader: boolean }
  /** Where a request is, when that was not decided here. */
  | { readonly kind: 'queuedHere'; readonly request: RequestId }
  | { readonly kind: 'startedHere'; readonly request: RequestId }
  | { readonly kind: 'offered'; readonly request: RequestId }
  | { readonly kind: 'claimed'; readonly request: RequestId; readonly node: NodeId }
  /** The run stands still because its machine's owner is back; and goes on again. */
  | { readonly kind: 'frozen'; readonly request: RequestId; readonly frozen: boolean }
  /** `runMs` is undefined when it says nothing about the action or the machine. */
  | {
      readonly kind: 'ended';
      readonly request: RequestId;
      readonly node: NodeId;
      readonly runMs: number | undefined;
      readonly sizeBytes: number;
    }
  | { readonly kind: 'cancelled'; readonly request: RequestId }
  /** The node lost an action, which is nobody's fault; or which is its fault. */
  | { readonly kind: 'over'; readonly node: NodeId }
  | { readonly kind: 'fault'; readonly node: NodeId }
  | { readonly kind: 'mismatched'; readonly node: NodeId }
  | { readonly kind: 'drain'; readonly node: NodeId; readonly drained: boolean }
  | { readonly kind: 'slots'; readonly slots: number; readonly free: number; readonly capabilities: readonly string[] }
  | { readonly kind: 'mesh'; readonly members: readonly MeshMember[] };

export type OffloadEffect =
  | { readonly kind: 'wakeAt'; readonly atMs: number }
  | { readonly kind: 'runHere' | 'offer'; readonly request: RequestId; readonly decision: Decision }
  /** Nobody who is alive can run it. */
  | { readonly kind: 'unmatched'; readonly request: RequestId }
  /** A straggler: run it here as well, without a claim. The first result counts. */
  | { readonly kind: 'hedgeHere'; readonly request: RequestId }
  /** `untilMs` is undefined for what only a hand undoes, and for what is over. */
  | {
      readonly kind: 'drained';
      readonly node: NodeId;
      readonly drained: boolean;
      readonly untilMs: number | undefined;
      readonly reason: DrainReason;
    };
