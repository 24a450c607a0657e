/** Asking holders to keep blobs: what makes "present" a promise when the bytes are with others (design: two live holders). */
import type { BlobKey, NodeId } from '../ids.ts';
import type { Found } from '../providers/types.ts';

export type KeepingMessage =
  /** Pin these for so long, as a replica is. */
  | { readonly kind: 'keep'; readonly seq: number; readonly blobs: readonly BlobKey[]; readonly forMs: number }
  /** How long each is kept from now, in the order asked: 0 is not at all. Sent when the pins are durable. */
  | { readonly kind: 'kept'; readonly seq: number; readonly forMs: readonly number[] };

/** One blob and the live members that promised to keep it for at least the time asked; at most two. */
export interface Kept {
  readonly blob: BlobKey;
  readonly holders: readonly NodeId[];
}

export type KeepingEvent =
  | { readonly kind: 'wake' }
  | { readonly kind: 'gap' }
  | { readonly kind: 'message'; readonly from: NodeId; readonly message: KeepingMessage }
  | {
      readonly kind: 'secure';
      readonly secure: number;
      readonly blobs: readonly BlobKey[];
      readonly forMs: number;
      readonly budgetMs: number;
    }
  /** Answers to `find`. */
  | { readonly kind: 'found'; readonly find: number; readonly found: readonly Found[]; readonly done: boolean }
  /** Answers to `pin`; 0 when it was refused. */
  | { readonly kind: 'pinned'; readonly pin: number; readonly forMs: number }
  | { readonly kind: 'absent'; readonly node: NodeId };

export type KeepingEffect =
  | { readonly kind: 'send'; readonly to: NodeId; readonly message: KeepingMessage }
  | { readonly kind: 'wakeAt'; readonly atMs: number }
  | { readonly kind: 'find'; readonly find: number; readonly blobs: readonly BlobKey[] }
  /** Pin it here for another node. */
  | { readonly kind: 'pin'; readonly pin: number; readonly blob: BlobKey; readonly forMs: number }
  | { readonly kind: 'secured'; readonly secure: number; readonly kept: readonly Kept[] };
