/** What the submitter is told and asks for. */
import type { Capabilities, ClaimMessage, EndReason, FailureReason, SubmitItem } from '../../claims/messages.ts';
import type { ActionKey, BlobKey, NodeId, RequestId, ShardId, Token } from '../../ids.ts';
import type { Machine } from '../../machine.ts';
import type { ActionTraits } from '../../offload/estimates.ts';
import type { DecidedWhy, DrainReason, MeshMember } from '../../offload/types.ts';
import type { RegisterMessage } from '../../registers/messages.ts';
import type { Rng } from '../../rng.ts';
import type { AgentMessage, Outcome } from '../messages.ts';

export type SubmitterMessage = ClaimMessage | AgentMessage | RegisterMessage;

/** An action of an own client. `expectedMs` counts until its family was seen; where it runs is decided here. */
export type ExecuteItem = Omit<SubmitItem, 'reoffer' | 'stay' | 'avoid' | 'deaths'> &
  ActionTraits & {
    /** Of the whole input tree. */
    readonly inputBytes: number;
    /** Nodes that it is kept from beside those that are drained; this node among them: it runs elsewhere if it can. */
    readonly avoid?: readonly NodeId[];
  };

export type SubmitterEvent =
  | { readonly kind: 'wake' }
  | { readonly kind: 'gap' }
  | { readonly kind: 'execute'; readonly item: ExecuteItem }
  /** The executor's effect of that name: this machine's slots, how many are free, and what it can run. */
  | { readonly kind: 'slots'; readonly slots: number; readonly free: number; readonly capabilities: Capabilities }
  /** Members that are alive, whenever they or their attributes changed. */
  | { readonly kind: 'mesh'; readonly members: readonly MeshMember[] }
  /** By hand: this node's submissions avoid that node, or do not any more. */
  | { readonly kind: 'drain'; readonly node: NodeId; readonly drained: boolean }
  /** An audit found that a result of that node is not what the action produces. */
  | { readonly kind: 'mismatched'; readonly node: NodeId }
  /** The last client that waited has gone. */
  | { readonly kind: 'cancel'; readonly request: RequestId }
  | { readonly kind: 'message'; readonly from: NodeId; readonly message: SubmitterMessage }
  /** The leader of a shard changed. */
  | { readonly kind: 'leader'; readonly shard: ShardId; readonly leader: NodeId | undefined }
  /** A member is dead or gone. */
  | { readonly kind: 'absent'; readonly node: NodeId }
  /**
   * Outputs asked for by `fetchOutputs` are durable here, or could not be had; `lied` when what was sent is not what it
   * was said to be: forged, of another action or claim, or of somebody whose results are not believed.
   */
  | {
      readonly kind: 'fetched';
      readonly fetch: number;
      readonly outcome: Outcome | undefined;
      readonly lied?: boolean;
    }
  | { readonly kind: 'pinned'; readonly fetch: number; readonly forMs: number }
  | { readonly kind: 'pinRefused'; readonly fetch: number }
  /** The executor's effects about runs for this node's own clients. */
  | {
      readonly kind: 'ownEnded';
      readonly request: RequestId;
      readonly token: Token | undefined;
      readonly outcome: Outcome | undefined;
      readonly reason: FailureReason | undefined;
      readonly runMs: number;
    }
  | { readonly kind: 'ownClaimed'; readonly request: RequestId; readonly token: Token }
  | { readonly kind: 'ownUnclaimed'; readonly request: RequestId };

export type SubmitterEffect =
  | { readonly kind: 'send'; readonly to: NodeId; readonly message: SubmitterMessage }
  | { readonly kind: 'wakeAt'; readonly atMs: number }
  /** `token` is that of the claim under which the result was made, undefined when nobody said. */
  | {
      readonly kind: 'fetchOutputs';
      readonly fetch: number;
      readonly from: NodeId;
      readonly result: BlobKey;
      readonly request: RequestId;
      readonly key: ActionKey;
      readonly token: Token | undefined;
    }
  | { readonly kind: 'stopFetch'; readonly fetch: number }
  /** Keep the outputs for whoever was promised them; answered by `pinned` or `pinRefused` of the same fetch. */
  | { readonly kind: 'pinHandedOver'; readonly fetch: number; readonly result: BlobKey; readonly forMs: number }
  | {
      readonly kind: 'runOwn';
      readonly request: RequestId;
      readonly key: ActionKey;
      readonly spaceBytes: number;
      /** The outcome of a run for somebody else does as well. */
      readonly isMergeable: boolean;
    }
  | { readonly kind: 'stopOwn'; readonly request: RequestId }
  /** For the executor: whether own actions that it could run wait for a claim of anybody. */
  | { readonly kind: 'ownWaiting'; readonly waiting: boolean }
  /** Where the request stands, for its operation; `node` is who has it, undefined while nobody does. */
  | {
      readonly kind: 'progress';
      readonly request: RequestId;
      readonly stage: 'queued' | 'fetching' | 'executing';
      readonly node: NodeId | undefined;
    }
  /** For explanations; said again when the decision changes. Undefined times: it cannot be done there. */
  | {
      readonly kind: 'decided';
      readonly request: RequestId;
      readonly where: 'here' | 'mesh';
      readonly hereMs: number | undefined;
      readonly elsewhereMs: number | undefined;
      readonly why: DecidedWhy;
    }
  /** That node is avoided from now on (`untilMs` undefined: until it is undrained by hand), or not any more. */
  | {
      readonly kind: 'drained';
      readonly node: NodeId;
      readonly drained: boolean;
      readonly untilMs: number | undefined;
      readonly reason: DrainReason;
    }
  /** Answers the own client, whose invocation pins the outputs. */
  | { readonly kind: 'answer'; readonly request: RequestId; readonly answer: Answer };

export type Answer =
  | {
      readonly kind: 'result';
      readonly outcome: Outcome;
      /** `mesh`: handed over by the executor. `cache`: named by the register. `local`: ran here without a claim. */
      readonly source: 'cache' | 'mesh' | 'local';
      readonly token: Token | undefined;
      /** Who ran it. */
      readonly executor: NodeId;
    }
  | { readonly kind: 'failed'; readonly reason: FailedReason };

/** `unmatched`: neither this node nor any member that is alive can run it. */
export type FailedReason = EndReason | 'executorFault' | 'unmatched';

export interface SubmitterConfig {
  readonly self: NodeId;
  readonly storeGeneration: number;
  readonly leaderOf: (shard: ShardId) => NodeId | undefined;
  readonly holds: (blob: BlobKey) => boolean;
  /** Jitter of retries. */
  readonly rng: Rng;
}

export interface Submitter extends Machine<SubmitterEvent, SubmitterEffect> {
  requests(): IterableIterator<{ readonly item: ExecuteItem; readonly highest: Token | undefined }>;
  waiting(): number;
  /** Executors that get none of this node's actions now; `untilMs` is undefined for those that only a hand lets back. */
  drained(): readonly { readonly node: NodeId; readonly untilMs: number | undefined }[];
}
