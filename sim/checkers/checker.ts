/**
 * What a checker is: it watches every event of a run, counts what it saw, and says when its invariant broke. A checker
 * that saw nothing proved nothing, and says so.
 */
import type { Answer, ExecuteItem } from '../../mesh/core/agents/submitter/types.ts';
import type { BlobKey, RequestId } from '../../mesh/core/ids.ts';
import type { PeerEffect, PeerMessage, PeerNote } from '../../mesh/core/peer.ts';
import type { SimNode } from '../node.ts';
import type { Fault } from '../plan.ts';
import type { SimAction } from '../workload.ts';

export type RunEffect = Extract<PeerEffect, { kind: 'run' }>;
export type RunEnd = 'done' | 'failed' | 'killed' | 'lost';

/** Everything a checker may look at; nothing of it is ever changed by one. */
export interface World {
  readonly nodes: readonly SimNode[];
  readonly shards: number;
  nowMs(): number;
  /** Faults in force, and faults that ended at most `withinMs` ago. */
  faultsWithin(withinMs: number): number;
  healedAtMs(): number | undefined;
  /** Every fault that has begun. */
  faults(): number;
  /** Faults, owners and batteries that came and went, and a network that loses, repeats or delays messages all the time. */
  disturbances(): number;
  /** The node has lied, or lost blobs by a fault: what it promised proves nothing. */
  excused(node: SimNode): boolean;
  /** A drawn world without faults, whose network neither loses, repeats nor delays anything. */
  readonly calm: boolean;
  /** Calls back in virtual time. */
  after(delayMs: number, act: () => void): void;
  action(key: string): SimAction | undefined;
}

/** Hooks are optional; a hook gets what happened, after it happened. */
export interface Checker {
  readonly name: string;
  /** How often the invariant was put to the test. */
  observed(): number;
  /** Counts of what should happen now and then: a sweep in which one of them never did has proved too little. */
  sometimes?(): { readonly [name: string]: number };
  onNote?(node: SimNode, note: PeerNote): void;
  onSend?(node: SimNode, to: number, message: PeerMessage): void;
  /** A message reached a machine that is up; called before the peer gets it. */
  onReceive?(node: SimNode, from: number, message: PeerMessage): void;
  onExecute?(node: SimNode, item: ExecuteItem, action: SimAction): void;
  onCancel?(node: SimNode, request: RequestId): void;
  onAnswer?(node: SimNode, request: RequestId, answer: Answer): void;
  onRun?(node: SimNode, effect: RunEffect): void;
  onRunEnd?(node: SimNode, run: number, end: RunEnd): void;
  onStored?(node: SimNode, blob: BlobKey): void;
  onEvicted?(node: SimNode, blob: BlobKey): void;
  onOwner?(node: SimNode, present: boolean): void;
  /** The peer was started; on an empty disk when `blank`. */
  onBoot?(node: SimNode, blank: boolean): void;
  onDown?(node: SimNode): void;
  onFault?(fault: Fault): void;
  onHealed?(): void;
  /** Each simulated second, for what is a matter of state. */
  onSecond?(): void;
  onEnd?(): void;
}

/** Makes a checker; `fail` ends the run with the reason. */
export type CheckerFactory = (world: World, fail: (reason: string) => never) => Checker;
