/** What the fetch planner and the upload gate take and give. Bytes never pass through either. */
import type { BlobKey, NodeId } from '../ids.ts';
import type { MemberStatus } from '../membership/records.ts';
import type { Found } from '../providers/types.ts';

/** From near to far. */
export type Locality = 'host' | 'subnet' | 'site' | 'other';

/** Something that this node needs. Wants of one blob share one fetch. */
export interface Want {
  readonly want: number;
  readonly blob: BlobKey;
  readonly sizeBytes: number;
  /** From now; when it is over the want has failed, whatever is under way. */
  readonly budgetMs: number;
  /** Who is likely to have it: held a sibling, made it, or was named by a result. Tried without looking it up. */
  readonly hints: readonly NodeId[];
}

/**
 * A piece of a blob: bytes `offset` .. `offset + lengthBytes - 1`. Two transfers may bring the same piece; the first that
 * was reported counts, and the other's bytes must not replace it.
 */
export interface Part {
  readonly blob: BlobKey;
  readonly offset: number;
  readonly lengthBytes: number;
  /** The whole blob: the driver checks it against its digest while it comes in, and stores it. */
  readonly whole: boolean;
}

/**
 * What became of a part. `stored`: a whole blob is verified and durable. `arrived`: a range is at hand, unverified.
 * `absent`: the holder has it not, or not yet. `wrong`: the bytes do not hash to the digest, or are of another length.
 * `noRoom`: this node's disk is full.
 */
export type PartOutcome = 'stored' | 'arrived' | 'absent' | 'wrong' | 'noRoom';

/** How a transfer ended. Parts that were not reported are missing, also after `done`. */
export type TransferOutcome =
  | { readonly kind: 'done' }
  /** No connection, or it broke, or nothing came for too long. */
  | { readonly kind: 'broken' }
  /** The holder has too much to do; `tryNodes` may have it too. */
  | { readonly kind: 'busy'; readonly tryNodes: readonly NodeId[]; readonly retryAfterMs: number };

export type FetchEvent =
  | { readonly kind: 'wake' }
  | { readonly kind: 'gap' }
  | { readonly kind: 'want'; readonly wants: readonly Want[] }
  | { readonly kind: 'unwant'; readonly want: number }
  /** Answer to `locate`, in one or more parts: each blob is named once. */
  | { readonly kind: 'located'; readonly found: readonly Found[] }
  | { readonly kind: 'progress'; readonly transfer: number; readonly receivedBytes: number }
  | { readonly kind: 'part'; readonly transfer: number; readonly blob: BlobKey; readonly outcome: PartOutcome }
  | { readonly kind: 'ended'; readonly transfer: number; readonly outcome: TransferOutcome }
  /** Answer to `assemble`. */
  | { readonly kind: 'assembled'; readonly blob: BlobKey; readonly outcome: 'stored' | 'wrong' | 'noRoom' }
  /** The blob came by another way. */
  | { readonly kind: 'stored'; readonly blob: BlobKey }
  | { readonly kind: 'peer'; readonly node: NodeId; readonly status: MemberStatus; readonly locality: Locality }
  | { readonly kind: 'roundTrip'; readonly node: NodeId; readonly roundTripMs: number };

/** Why a want failed: nobody has it, its time was up, or there is no room for it. */
export type FetchFailure = 'missing' | 'budget' | 'noRoom';

export type FetchEffect =
  | { readonly kind: 'wakeAt'; readonly atMs: number }
  | { readonly kind: 'locate'; readonly blobs: readonly BlobKey[]; readonly thorough: boolean }
  /** Get these parts from this node in one request. Report progress about every `progressMs`, parts, and the end. */
  | { readonly kind: 'transfer'; readonly transfer: number; readonly from: NodeId; readonly parts: readonly Part[] }
  /** Nothing of it is of use any more; no event is expected. What becomes durable all the same is reported as `stored`. */
  | { readonly kind: 'cancelTransfer'; readonly transfer: number }
  /** All ranges of the blob are at hand: check it against its digest, and make it durable. */
  | { readonly kind: 'assemble'; readonly blob: BlobKey }
  /** Drop the ranges of the blob, unless it is being assembled. */
  | { readonly kind: 'discard'; readonly blob: BlobKey }
  /** It is in the store, verified and durable. `from` is undefined when it came by another way. */
  | { readonly kind: 'fetched'; readonly want: number; readonly blob: BlobKey; readonly from: NodeId | undefined }
  | { readonly kind: 'failed'; readonly want: number; readonly blob: BlobKey; readonly reason: FetchFailure }
  /** The holder did not deliver; its locations go (see providers). */
  | { readonly kind: 'blame'; readonly node: NodeId; readonly reason: 'wrong' | 'absent' | 'unreachable' }
  | { readonly kind: 'note'; readonly note: FetchNote };

export type FetchNote =
  | { readonly kind: 'hedged'; readonly transfer: number; readonly by: number }
  | { readonly kind: 'hedgeWon'; readonly transfer: number }
  /** A range of a striped blob was moved to another holder. */
  | { readonly kind: 'failedOver'; readonly blob: BlobKey; readonly from: NodeId };

export interface FetchConfig {
  readonly self: NodeId;
}

/** The serving side: which requests of other nodes are served now. */
export type UploadEvent =
  /** A node asks for these parts, by its authenticated id. */
  | { readonly kind: 'asked'; readonly upload: number; readonly to: NodeId; readonly parts: readonly Part[] }
  /** It was sent, or broke off after `sentBytes`. */
  | { readonly kind: 'sent'; readonly upload: number; readonly sentBytes: number }
  /** The blob is no longer here: nobody who got it from here is named for it... */
  | { readonly kind: 'gone'; readonly blob: BlobKey }
  /** ...and an absent node is named for nothing. */
  | { readonly kind: 'absent'; readonly node: NodeId };

export type UploadEffect =
  /** Serve it; parts of blobs that are still arriving are sent as they come. */
  | { readonly kind: 'serve'; readonly upload: number }
  | {
      readonly kind: 'refuse';
      readonly upload: number;
      readonly tryNodes: readonly NodeId[];
      readonly retryAfterMs: number;
    };

export interface UploadsConfig {
  /** What this node may send to others in a second, on average. */
  readonly bytesPerSecond: number;
  /** Requests served at once. */
  readonly uploadsMax: number;
}
