/** What the mesh needs of whoever moves blobs: it performs the work that the machine orders, and reports. */
import type { BlobKey, NodeId } from '../../mesh/core/ids.ts';
import type { SharingEvent } from '../../mesh/core/sharing-types.ts';
import type { Identity } from '../../mesh/net/identity/identity.ts';
import type { Peer } from '../../mesh/core/peer.ts';
import type { WorkOf } from './driver.ts';
import type { OffloadWork } from './offloading.ts';

/** Everything that the machine orders besides messages, records, wakes, and what an offloading performs. */
export type SharingWork = Exclude<WorkOf<Peer>, OffloadWork>;

/** What a tier is given. The machine takes events only after the tier is open. */
export interface TierPorts {
  readonly identity: Identity;
  deliver(event: SharingEvent): void;
  /** host:port of a member's data plane, most likely first; empty when it is not known. */
  dataAddressesOf(peer: NodeId): readonly string[];
}

export interface Tier {
  /** Where the data plane listens, host:port as others can reach it. */
  readonly dataAddress: string;
  /** What the store holds, least recently used first. */
  readonly held: readonly (readonly [BlobKey, number])[];
  readonly capacityBytes: number;
  perform(work: SharingWork): void;
  close(): Promise<void>;
}

export type OpenTier = (ports: TierPorts) => Promise<Tier>;
