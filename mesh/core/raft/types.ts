/**
 * What goes into and comes out of one Raft group. `Command` is what the state machine applies, `State` its snapshot;
 * Raft looks into neither.
 *
 * @see Ongaro, "Consensus: Bridging Theory and Practice" (dissertation, 2014); sections are cited where they apply
 */
import type { ReplicaId } from '../ids.ts';

/** Both lists are sorted and disjoint. Learners receive the log and have no vote. */
export interface Configuration {
  readonly voters: readonly ReplicaId[];
  readonly learners: readonly ReplicaId[];
}

export interface Entry<Command> {
  /** From 1, without holes. */
  readonly index: number;
  readonly term: number;
  readonly data: EntryData<Command>;
}

export type EntryData<Command> =
  /** What a new leader appends first, so that it may commit what its predecessors left (section 3.6.2). */
  | { readonly kind: 'noop' }
  | { readonly kind: 'command'; readonly command: Command; readonly sizeBytes: number }
  | { readonly kind: 'configuration'; readonly configuration: Configuration };

export interface Snapshot<State> {
  /** The last entry that the state includes, and its term. */
  readonly index: number;
  readonly term: number;
  /** The configuration in force at that index. */
  readonly configuration: Configuration;
  readonly state: State;
  readonly sizeBytes: number;
}

/** Each message carries the sender's term. Times are the clock of the node that sent the request, echoed unread. */
export type RaftMessage<Command, State> =
  | {
      readonly kind: 'vote';
      readonly term: number;
      /** A poll that changes no state: "would you vote for me in this term?" (section 9.6). */
      readonly pre: boolean;
      /** The leader asked for this election, so a voter that still hears it may grant it (section 3.10). */
      readonly transfer: boolean;
      readonly lastIndex: number;
      readonly lastTerm: number;
    }
  | { readonly kind: 'voted'; readonly term: number; readonly pre: boolean; readonly granted: boolean }
  | {
      readonly kind: 'append';
      readonly term: number;
      readonly prevIndex: number;
      readonly prevTerm: number;
      readonly entries: readonly Entry<Command>[];
      readonly commit: number;
    }
  | {
      readonly kind: 'appended';
      readonly term: number;
      readonly accepted: boolean;
      /** Accepted: the last index known to agree and durable. Refused: where the leader should try next. */
      readonly index: number;
      /** Refused: the `prevIndex` that did not match, so that a late refusal is recognised. */
      readonly refusedIndex: number;
    }
  | {
      readonly kind: 'heartbeat';
      readonly term: number;
      /** Never above what this follower is known to hold. */
      readonly commit: number;
      readonly sentAtMs: number;
      /** Rises with each read the leader must confirm (section 6.4). */
      readonly readRound: number;
      /** Asks the follower to sleep: nothing is outstanding and no heartbeat will follow. */
      readonly sleep: boolean;
    }
  | {
      readonly kind: 'heartbeatAck';
      readonly term: number;
      readonly sentAtMs: number;
      readonly readRound: number;
      readonly asleep: boolean;
    }
  | { readonly kind: 'snapshot'; readonly term: number; readonly snapshot: Snapshot<State> }
  | { readonly kind: 'timeoutNow'; readonly term: number }
  /** To a replica that campaigns although a committed configuration is without it: its data can go. */
  | { readonly kind: 'removed'; readonly term: number; readonly index: number };

/** What a group writes to disk. Recovery folds the records in the order they were issued (see raft/recovery.ts). */
export type RaftRecord<Command, State> =
  | { readonly kind: 'hardState'; readonly term: number; readonly vote: ReplicaId | undefined }
  /** Replaces everything from the first entry's index on. */
  | { readonly kind: 'append'; readonly entries: readonly Entry<Command>[] }
  /** Replaces everything up to its index; with `whole`, the entries behind it as well (they conflicted). */
  | { readonly kind: 'snapshot'; readonly snapshot: Snapshot<State>; readonly whole: boolean }
  /**
   * The replica left the group and forgot its log. Term and vote stay, so that it cannot vote twice if it comes back; and
   * how far its log went, so that until it has caught up it votes as if it still had what it once acknowledged.
   */
  | { readonly kind: 'removed'; readonly forgotten: LogPosition };

/** Where a log ends; the later term is ahead, then the higher index (section 3.6.1). */
export interface LogPosition {
  readonly index: number;
  readonly term: number;
}

/** What recovery found; the input of `createRaft`. */
export interface RaftDisk<Command, State> {
  readonly term: number;
  readonly vote: ReplicaId | undefined;
  readonly snapshot: Snapshot<State> | undefined;
  readonly entries: readonly Entry<Command>[];
  /** The end of a log that this replica once had and gave up; zeros when it never did. */
  readonly forgotten: LogPosition;
}

export type RaftEvent<Command, State> =
  | { readonly kind: 'message'; readonly from: ReplicaId; readonly message: RaftMessage<Command, State> }
  /** Every persist up to and including this id is durable; ids of other groups are ignored. */
  | { readonly kind: 'persisted'; readonly id: number }
  | { readonly kind: 'wake' }
  /** Time jumped: the machine was suspended. Delivered before anything else happens at the new time. */
  | { readonly kind: 'gap' }
  | { readonly kind: 'propose'; readonly id: number; readonly command: Command; readonly sizeBytes: number }
  | { readonly kind: 'changeConfiguration'; readonly id: number; readonly configuration: Configuration }
  /** A linearizable read (ReadIndex). Answered by `readable` or `refused`. */
  | { readonly kind: 'read'; readonly id: number }
  | { readonly kind: 'transferLeadership'; readonly to: ReplicaId }
  /** The state machine's state after `index`: everything up to it leaves the log. */
  | { readonly kind: 'compact'; readonly index: number; readonly state: State; readonly sizeBytes: number }
  /** Something happened that needs a leader: end hibernation, and stay awake for `hibernateAfterMs` more. */
  | { readonly kind: 'touch' }
  /** Membership says this replica's node is suspected, dead or gone: a sleeping group must look after itself. */
  | { readonly kind: 'unreachable'; readonly replica: ReplicaId };

export type RefusalReason =
  | 'notLeader'
  | 'busy'
  | 'changePending'
  | 'tooEarly'
  | 'invalid'
  | 'lostLeadership'
  | 'transferring';

export type RaftEffect<Command, State> =
  | {
      readonly kind: 'send';
      readonly to: ReplicaId;
      readonly message: RaftMessage<Command, State>;
      /** Not before this persist is durable. */
      readonly after?: number;
    }
  | { readonly kind: 'persist'; readonly id: number; readonly record: RaftRecord<Command, State> }
  /** Committed entries, in order and once each per life of the process. */
  | { readonly kind: 'apply'; readonly entries: readonly Entry<Command>[] }
  /** The state machine becomes this state; followed by `apply` of what comes after it. */
  | { readonly kind: 'restore'; readonly snapshot: Snapshot<State> }
  /** Where the proposal went. It may still be lost: it counts when an entry of that index and term is applied. */
  | { readonly kind: 'proposed'; readonly id: number; readonly index: number; readonly term: number }
  | { readonly kind: 'refused'; readonly id: number; readonly reason: RefusalReason }
  /** The read may be served once everything up to `index` was applied. */
  | { readonly kind: 'readable'; readonly id: number; readonly index: number }
  | {
      readonly kind: 'role';
      readonly role: Role;
      readonly term: number;
      readonly leader: ReplicaId | undefined;
    }
  /** A committed configuration is without this replica: it may forget its log. */
  | { readonly kind: 'removed' };

export type Role = 'follower' | 'preCandidate' | 'candidate' | 'leader';
