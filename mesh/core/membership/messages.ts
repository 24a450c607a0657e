/** What membership machines say to each other. Every message carries at most `rumoursPerMessage` rumours, syncs aside. */
import type { NodeId } from '../ids.ts';
import type { Rumour } from './records.ts';

export type MembershipMessage =
  | { readonly kind: 'ping'; readonly seq: number; readonly rumours: readonly Rumour[] }
  | { readonly kind: 'ack'; readonly seq: number; readonly rumours: readonly Rumour[] }
  /** Asks the receiver to ping `target` for the sender. */
  | {
      readonly kind: 'pingRequest';
      readonly seq: number;
      readonly target: NodeId;
      readonly rumours: readonly Rumour[];
    }
  /** The receiver of a ping request had no answer from the target either, but is itself alive. */
  | { readonly kind: 'nack'; readonly seq: number; readonly rumours: readonly Rumour[] }
  /** Offers to reconcile: the sender's view has this summary. */
  | { readonly kind: 'syncOffer'; readonly summary: number; readonly rumours: readonly Rumour[] }
  /** A part of the sender's whole view; `reply` asks for the receiver's in turn. */
  | { readonly kind: 'sync'; readonly reply: boolean; readonly rumours: readonly Rumour[] };
