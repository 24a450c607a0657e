/**
 * One node's share in sharing blobs: membership, promises, the provider index, keeping, the fetch planner and the upload
 * gate as one machine. It routes messages and answers between them and numbers persists; it decides nothing itself.
 */
import type { Machine } from './machine.ts';
import type { Membership } from './membership/membership.ts';
import type { Promises } from './promises/promises.ts';
import type { SharingConfig, SharingEffect, SharingEvent, SharingRecord } from './sharing-types.ts';

export interface Sharing extends Machine<SharingEvent, SharingEffect> {
  readonly membership: Membership;
  readonly promises: Promises;
  /** Records from which an equal node can be restored, fewer than were ever written. */
  checkpoint(nowMs: number): SharingRecord[];
}

export type CreateSharing = (config: SharingConfig, restored: readonly SharingRecord[], nowMs: number) => Sharing;
