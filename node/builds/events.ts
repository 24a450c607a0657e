/** Everything that records of builds are made of: what happens to actions, and what clients say at the door. */
import type { NodeId } from '../../mesh/core/ids.ts';
import type { Digest } from '../../protos/digest.ts';
import type { BuildEvent, NamedAction } from '../offload/events.ts';

export type RecordedEvent =
  | BuildEvent
  /** A client called; what it says of itself. */
  | { readonly kind: 'client'; readonly invocation: string; readonly tool: string; readonly correlated: string }
  /** A client ran the action itself and brought the result. */
  | ({ readonly kind: 'uploaded'; readonly atMs: number; readonly runMs: number } & NamedAction)
  /** An execution joined a run under way. */
  | ({ readonly kind: 'joined'; readonly atMs: number; readonly run: string } & NamedAction)
  /** The claim was lost, or who ran it failed. */
  | { readonly kind: 'retried'; readonly atMs: number; readonly run: string; readonly why: string }
  | {
      readonly kind: 'guestStarted';
      readonly atMs: number;
      readonly action: Digest;
      readonly instance: string;
      readonly submitter: NodeId;
    }
  | { readonly kind: 'guestFrozen'; readonly atMs: number; readonly action: Digest; readonly frozen: boolean };

export type EventOf<K extends RecordedEvent['kind']> = Extract<RecordedEvent, { readonly kind: K }>;
