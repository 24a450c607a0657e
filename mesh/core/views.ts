/** One node's view of the members, as the machines that need it want to see it. */
import type { MeshMember } from './offload/types.ts';
import type { NodeId } from './ids.ts';
import type { Member, Membership } from './membership/membership.ts';
import type { MemberStatus } from './membership/records.ts';
import type { MemberView } from './shards/types.ts';

export interface Views {
  changed(member: Member, before: MemberStatus | undefined, nowMs: number): void;
  /** For coordination: everybody who has not left for good, this node included, in order of ids. */
  forCoordination(nowMs: number): MemberView[];
  /** For offloading: the others that are alive. */
  forOffloading(): MeshMember[];
}

/** `bytesPerMs` is how fast bytes travel between this node and another. */
export function createViews(self: NodeId, membership: Membership, bytesPerMs: (node: NodeId) => number): Views {
  const lastAliveAtMs = new Map<NodeId, number>();
  const aliveSinceMs = new Map<NodeId, number>();
  return {
    changed({ record: { id }, status }, before, nowMs) {
      if (before === 'alive' || before === 'suspect') lastAliveAtMs.set(id, nowMs);
      if (status === 'alive' && before !== 'alive') aliveSinceMs.set(id, nowMs);
    },
    forCoordination(nowMs) {
      const views: MemberView[] = [];
      for (const { record, status } of membership.members()) {
        if (status === 'left') continue;
        const { attributes } = record;
        views.push({
          node: record.id,
          disk: attributes.storeGeneration,
          status,
          lastAliveAtMs: status === 'alive' ? nowMs : (lastAliveAtMs.get(record.id) ?? 0),
          aliveSinceMs: aliveSinceMs.get(record.id) ?? nowMs,
          stability: {
            alwaysOn: attributes.coordinator === 'always-on',
            mainsPower: attributes.power === 'mains',
            wired: attributes.wired,
            optedOut: attributes.coordinator === 'never',
          },
        });
      }
      return views.sort((a, b) => (a.node < b.node ? -1 : 1));
    },
    forOffloading() {
      const alive: MeshMember[] = [];
      for (const { record, status } of membership.members()) {
        const { id: node, attributes } = record;
        if (status !== 'alive' || node === self) continue;
        const { guestSlots, capabilities } = attributes;
        alive.push({ node, guestSlots, capabilities, bytesPerMs: bytesPerMs(node) });
      }
      return alive;
    },
  };
}
