/** What the mesh needs of whoever runs actions: it performs what the machine orders about them, and reports. */
import type { TreeSketch } from '../../mesh/core/claims/messages.ts';
import type { NodeId } from '../../mesh/core/ids.ts';
import type { Peer, PeerEvent } from '../../mesh/core/peer.ts';
import type { Identity } from '../../mesh/net/identity/identity.ts';
import type { WorkOf } from './driver.ts';

const workKinds = [
  'fetchInputs',
  'run',
  'freeze',
  'thaw',
  'kill',
  'fetchOutputs',
  'stopFetch',
  'answer',
  'progress',
  'lookedUp',
  'note',
] as const;

type EventKind =
  | 'execute'
  | 'cancel'
  | 'invocationEnded'
  | 'slots'
  | 'owner'
  | 'inputsFetched'
  | 'ran'
  | 'runFailed'
  | 'outputsFetched'
  | 'drain'
  | 'mismatched'
  | 'lookup'
  | 'publish'
  | 'invalidate';

/** Everything that the machine orders about actions, and everything it notes. */
export type OffloadWork = Extract<WorkOf<Peer>, { readonly kind: (typeof workKinds)[number] }>;
/** What is told to the machine about actions, slots and the owner. */
export type OffloadEvent = Extract<PeerEvent, { readonly kind: EventKind }>;

/** What an offloading is given. Everything may be called at once: the machine runs, and orders nothing before this is open. */
export interface OffloadingPorts {
  readonly identity: Identity;
  /** The machine, to look at. */
  readonly machine: Peer;
  deliver(event: OffloadEvent): void;
  /** A message of a part of the node to the same part of a member; lost like any other. */
  sendParcel(to: NodeId, channel: string, body: Uint8Array): void;
  /** Takes the parcels of one channel. The handler throws for what breaks the protocol; the sender is cut. */
  onParcel(channel: string, handler: (from: NodeId, body: Uint8Array) => void): void;
}

export interface Offloading {
  /** Sketch of the trees that this node holds most of; asked at each request for work. */
  holds(): TreeSketch;
  /** Must not throw; answers come later, as events. */
  perform(work: OffloadWork): void;
  /** Ends what runs for others, before the node says its last words to them. */
  close(): Promise<void>;
}

/** Called once each time the mesh wakes. Without one, a node runs nothing for others and offers nothing. */
export type OpenOffloading = (ports: OffloadingPorts) => Promise<Offloading>;

const kinds: ReadonlySet<string> = new Set(workKinds);

/** Tells what an offloading performs from what a tier does. */
export function isOffloadWork(work: WorkOf<Peer>): work is OffloadWork {
  return kinds.has(work.kind);
}
