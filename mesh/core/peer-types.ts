/**
 * What a whole node takes and gives; see peer.ts. Numbers that the outside gives (pins, reservations, wants, finds,
 * secures, uploads) are its own: they never collide with those of the peer's runs and fetches.
 */
import type { ExecutorEffect, ExecutorEvent } from './agents/executor/types.ts';
import type { AgentMessage } from './agents/messages.ts';
import type { SubmitterEffect, SubmitterEvent } from './agents/submitter/types.ts';
import type { CommitOutcome, TreeSketch } from './claims/messages.ts';
import type { ActionKey, BlobKey, InvocationId, NodeId, Token } from './ids.ts';
import type { MachineAttributes } from './membership/records.ts';
import type { CoordinationMessage, CoordinationRecord } from './messages.ts';
import type { Purpose } from './promises/promises.ts';
import type { FoundRegister } from './registers/messages.ts';
import type { InvalidationReason } from './registers/types.ts';
import type {
  SharingConfig,
  SharingEffect,
  SharingEvent,
  SharingMessage,
  SharingNote,
  SharingRecord,
} from './sharing-types.ts';
import type { CoordinationNote } from './shards/types.ts';

export type PeerMessage = SharingMessage | CoordinationMessage | AgentMessage;

/** What a peer writes; each machine is restored from its own. */
export type PeerRecord = SharingRecord | { readonly of: 'coordination'; readonly record: CoordinationRecord };

/** What the outside says about this machine, its clients and its store; `from` of a message is authenticated. */
export type PeerEvent =
  | Exclude<SharingEvent, { readonly kind: 'message' | 'attributes' }>
  | { readonly kind: 'message'; readonly from: NodeId; readonly message: PeerMessage }
  | { readonly kind: 'attributes'; readonly attributes: MachineAttributes }
  /**
   * From this node's own clients. An `execute` is answered by `answer` of the same request, after any number of
   * `progress`; `cancel` is what the last client that waited leaves behind.
   */
  | Extract<SubmitterEvent, { readonly kind: 'execute' | 'cancel' }>
  | { readonly kind: 'invocationEnded'; readonly invocation: InvocationId }
  /** By hand: whether this node's submissions avoid that node. And what an audit found about its results. */
  | Extract<SubmitterEvent, { readonly kind: 'drain' | 'mismatched' }>
  /** What this machine has; the first one opens for business. `guestSlots`: guests at once, at most. */
  | (Extract<ExecutorEvent, { readonly kind: 'slots' }> & { readonly guestSlots: number })
  | Extract<ExecutorEvent, { readonly kind: 'owner' }>
  /** Registers without a claim. Reads are answered by `lookedUp`, within `lookupMs` (see registers/desk.ts). */
  | { readonly kind: 'lookup'; readonly lookup: number; readonly keys: readonly ActionKey[] }
  /** A result that a client uploaded: it fills an empty register, if its blob is here and can be pinned. */
  | { readonly kind: 'publish'; readonly key: ActionKey; readonly result: BlobKey }
  | {
      readonly kind: 'invalidate';
      readonly key: ActionKey;
      readonly result: BlobKey;
      readonly reason: InvalidationReason;
    }
  /** Answers to effects. What `ran` and `outputsFetched` name is durable in the store. */
  | { readonly kind: 'inputsFetched'; readonly run: number; readonly ok: boolean }
  /** `runMs`: of the action itself; time spent frozen is not in it. */
  | Extract<ExecutorEvent, { readonly kind: 'ran' | 'runFailed' }>
  | (Omit<Extract<SubmitterEvent, { readonly kind: 'fetched' }>, 'kind'> & { readonly kind: 'outputsFetched' });

export type PeerNote =
  | SharingNote
  | CoordinationNote
  /** A message of one machine to another of the same node. */
  | { readonly kind: 'mail'; readonly message: PeerMessage }
  /** Pins that the peer made itself: for its runs, its submitters and its clients. */
  | { readonly kind: 'pinRefused'; readonly blob: BlobKey; readonly reason: 'absent' | 'budget' }
  | { readonly kind: 'pinned'; readonly blob: BlobKey; readonly purpose: Purpose; readonly untilMs: number }
  /** What became of a result that this node ran and wanted to commit. */
  | { readonly kind: 'committed'; readonly key: ActionKey; readonly token: Token; readonly outcome: CommitOutcome }
  /** Why an action was kept here or offered, and whom this node's submissions avoid. */
  | Extract<SubmitterEffect, { readonly kind: 'decided' | 'drained' }>;

export type PeerEffect =
  | Exclude<SharingEffect, { readonly kind: 'persist' | 'send' | 'note' }>
  | { readonly kind: 'persist'; readonly id: number; readonly record: PeerRecord }
  | { readonly kind: 'send'; readonly to: NodeId; readonly message: PeerMessage; readonly after?: number }
  /** `fetchInputs` is answered by `inputsFetched`, `run` by `ran` or `runFailed`, unless `kill` comes first. */
  | Extract<ExecutorEffect, { readonly kind: 'fetchInputs' | 'run' | 'freeze' | 'thaw' | 'kill' }>
  /** Bring a result and its closure here: answered by `outputsFetched`, unless `stopFetch` comes first. */
  | Extract<SubmitterEffect, { readonly kind: 'fetchOutputs' | 'stopFetch' | 'answer' | 'progress' }>
  /** `answered`: keys whose shard answered at all; those of them that were not found have no register. */
  | {
      readonly kind: 'lookedUp';
      readonly lookup: number;
      readonly found: readonly FoundRegister[];
      readonly answered: readonly ActionKey[];
    }
  | { readonly kind: 'note'; readonly note: PeerNote };

export interface PeerConfig extends Omit<SharingConfig, 'attributes'> {
  readonly attributes: MachineAttributes;
  readonly shards: number;
  /** This node made the mesh: on an empty disk it is the first voter of every shard. */
  readonly founder: boolean;
  /** Sketch of the trees that this node holds most of. */
  readonly holds: () => TreeSketch;
}
