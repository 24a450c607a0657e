/** What the executor is told and asks for. */
import type { ClaimMessage, FailureReason, TreeSketch } from '../../claims/messages.ts';
import type { ActionKey, NodeId, RequestId, ShardId, Token } from '../../ids.ts';
import type { Machine } from '../../machine.ts';
import type { AgentMessage, Outcome } from '../messages.ts';

/** Where a run stands. `own` runs have no claim: their submitter is this node and the mesh was too slow. */
export type RunPhase = 'reserving' | 'fetching' | 'waiting' | 'running' | 'promising' | 'handingOver' | 'committing';

export type ExecutorEvent =
  | { readonly kind: 'wake' }
  | { readonly kind: 'gap' }
  | { readonly kind: 'message'; readonly from: NodeId; readonly message: ClaimMessage | AgentMessage }
  /** What this machine has, and whether guests may use it (they may not on battery, or when it is told to keep to itself). */
  | {
      readonly kind: 'slots';
      readonly slots: number;
      readonly guests: boolean;
      /** Guests at once, at most; own actions may use all slots. */
      readonly guestSlots: number;
      readonly capabilities: readonly string[];
    }
  /** The owner is back, or has gone again. */
  | { readonly kind: 'owner'; readonly present: boolean }
  /** This leader may have work. */
  | { readonly kind: 'workAt'; readonly leader: NodeId }
  /** The leader of a shard changed. */
  | { readonly kind: 'leader'; readonly shard: ShardId; readonly leader: NodeId | undefined }
  /** A member is dead or gone. */
  | { readonly kind: 'absent'; readonly node: NodeId }
  /** This machine is about to suspend or stop. */
  | { readonly kind: 'goodbye' }
  /** Run this here without a claim: the own client cannot wait. */
  | {
      readonly kind: 'runOwn';
      readonly request: RequestId;
      readonly key: ActionKey;
      readonly spaceBytes: number;
      /** The outcome of a run for somebody else does as well. */
      readonly isMergeable: boolean;
    }
  | { readonly kind: 'stopOwn'; readonly request: RequestId }
  /** Own actions wait at their leaders: they come before guests. */
  | { readonly kind: 'ownWaiting'; readonly waiting: boolean }
  | { readonly kind: 'reserved'; readonly run: number }
  | { readonly kind: 'reserveRefused'; readonly run: number }
  | { readonly kind: 'fetched'; readonly run: number; readonly ok: boolean }
  /** It ended by itself; its outputs are durable. */
  | { readonly kind: 'ran'; readonly run: number; readonly outcome: Outcome; readonly runMs: number }
  | { readonly kind: 'runFailed'; readonly run: number; readonly reason: FailureReason }
  | { readonly kind: 'pinned'; readonly run: number; readonly forMs: number }
  | { readonly kind: 'pinRefused'; readonly run: number };

export type ExecutorEffect =
  | { readonly kind: 'send'; readonly to: NodeId; readonly message: ClaimMessage | AgentMessage }
  | { readonly kind: 'wakeAt'; readonly atMs: number }
  | { readonly kind: 'reserve'; readonly run: number; readonly spaceBytes: number }
  | { readonly kind: 'release'; readonly run: number }
  /** Fetch the inputs of the action; its submitter has them. */
  | {
      readonly kind: 'fetchInputs';
      readonly run: number;
      readonly from: NodeId;
      readonly key: ActionKey;
      readonly request: RequestId;
    }
  | {
      readonly kind: 'run';
      readonly run: number;
      readonly key: ActionKey;
      readonly request: RequestId;
      readonly guest: boolean;
      readonly token: Token | undefined;
      /** Nobody may keep what comes out, whatever the action itself says. */
      readonly doNotCache: boolean;
    }
  | { readonly kind: 'freeze'; readonly run: number }
  | { readonly kind: 'thaw'; readonly run: number }
  | { readonly kind: 'kill'; readonly run: number }
  | { readonly kind: 'pinOutputs'; readonly run: number; readonly outcome: Outcome }
  /** For the submitter: slots of this machine, whenever one of these changed. */
  | {
      readonly kind: 'slots';
      readonly slots: number;
      readonly free: number;
      readonly capabilities: readonly string[];
    }
  /**
   * For the submitter: a run for an own client ended, with a claim or without; `outcome` is undefined when it could not
   * run. A claimed one is committed by the executor all the same.
   */
  | {
      readonly kind: 'ownEnded';
      readonly request: RequestId;
      readonly token: Token | undefined;
      readonly outcome: Outcome | undefined;
      readonly reason: FailureReason | undefined;
      readonly runMs: number;
    }
  /** For the submitter: the run that it started here goes on under a claim, or without one again. */
  | { readonly kind: 'ownClaimed'; readonly request: RequestId; readonly token: Token }
  | { readonly kind: 'ownUnclaimed'; readonly request: RequestId };

export interface ExecutorConfig {
  readonly self: NodeId;
  readonly storeGeneration: number;
  /** Sketch of the trees this node holds most of. */
  readonly holds: () => TreeSketch;
  readonly freeBytes: () => number;
}

export interface RunView {
  readonly run: number;
  readonly key: ActionKey;
  readonly request: RequestId;
  readonly token: Token | undefined;
  readonly guest: boolean;
  readonly phase: RunPhase;
  readonly frozen: boolean;
}

export interface Executor extends Machine<ExecutorEvent, ExecutorEffect> {
  runs(): IterableIterator<RunView>;
  freeSlots(): number;
}
