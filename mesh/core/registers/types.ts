/**
 * The replicated state of a shard: one register per action key, naming the signed result blob.
 *
 * Times inside are *shard time*: milliseconds that the leader stamps into each batch, that never go back, and that every
 * replica therefore agrees on. They are no clock of any machine.
 */
import type { ActionKey, BlobKey, NodeId, Token } from '../ids.ts';

/** "Closure complete, pinned": verified where it entered the node, so the machines trust it. */
export interface HolderPromise {
  readonly holder: NodeId;
  /** The holder's store generation when it promised; another one means that blobs may have vanished since. */
  readonly storeGeneration: number;
  /** What is left of the pin when the promise is handed on; a duration, since clocks differ. */
  readonly pinnedForMs: number;
}

export interface Holder {
  readonly holder: NodeId;
  readonly storeGeneration: number;
  /** Shard time. */
  readonly untilMs: number;
}

export interface ResultEntry {
  readonly kind: 'result';
  readonly result: BlobKey;
  /** Claimed: committed under a token. Unclaimed: a client's upload, or a run without the mesh. */
  readonly class: 'claimed' | 'unclaimed';
  /** The highest token ever accepted for this key; undefined when none was. */
  readonly token: Token | undefined;
  readonly executor: NodeId;
  /** At most `holdersPerRegister`; exactly one means that the result may be lost with that node. */
  readonly holders: readonly Holder[];
  readonly writtenAtMs: number;
  /** A mismatch was confirmed once; results may differ from run to run. Never cleared. */
  readonly nonDeterministic: boolean;
}

/** Lost: no holder has the blobs any more. Wrong: the result must not be believed. */
export type InvalidationReason = 'lost' | 'wrong' | 'nonDeterministic';

export interface Tombstone {
  readonly kind: 'tombstone';
  /** What was dropped: a late copy of it must not come back. */
  readonly result: BlobKey;
  readonly reason: InvalidationReason;
  readonly token: Token | undefined;
  readonly writtenAtMs: number;
  readonly nonDeterministic: boolean;
}

export type Register = ResultEntry | Tombstone;

export type RegisterCommand =
  | {
      readonly kind: 'commit';
      readonly key: ActionKey;
      readonly token: Token;
      /** The register's token when the claim was issued: nobody else's result may have come in between. */
      readonly replaces: Token | undefined;
      readonly result: BlobKey;
      readonly executor: NodeId;
      readonly promises: readonly HolderPromise[];
    }
  | {
      readonly kind: 'publish';
      readonly key: ActionKey;
      readonly result: BlobKey;
      readonly executor: NodeId;
      readonly promises: readonly HolderPromise[];
    }
  /** Drops the entry if it still names `result`. */
  | {
      readonly kind: 'invalidate';
      readonly key: ActionKey;
      readonly result: BlobKey;
      readonly reason: InvalidationReason;
    }
  /** A register of another history of this shard, with its times turned into durations by who offers it. */
  | { readonly kind: 'offer'; readonly key: ActionKey; readonly register: OfferedRegister };

export type OfferedRegister =
  | (Omit<ResultEntry, 'holders' | 'writtenAtMs'> & { readonly promises: readonly HolderPromise[] })
  | Omit<Tombstone, 'writtenAtMs'>;

/** What one log entry carries: a batch under one stamp. */
export interface RegisterBatch {
  /** Shard time of the leader that proposed it. */
  readonly shardMs: number;
  readonly commands: readonly RegisterCommand[];
}

export type ApplyOutcome =
  | 'accepted'
  /** The register already says exactly this. */
  | 'same'
  /** The token is older than one that was accepted, or not of the term that proposed it. */
  | 'stale'
  /** Another result came first: in write-if-absent, or since the claim was issued. */
  | 'occupied'
  /** Write-if-absent found a tombstone that forbids it. */
  | 'tombstoned'
  /** The invalidation names a result that the register does not hold. */
  | 'mismatch';

export interface RegistersState {
  readonly shardMs: number;
  /** In order of last write. */
  readonly registers: readonly (readonly [ActionKey, Register])[];
  /** Of keys that were evicted, the highest accepted token: nothing older may fill them again. */
  readonly evictedToken: Token | undefined;
  /** Hash of everything that was applied, in order: equal on replicas that agree. */
  readonly history: number;
}
