/** What a node says about its mesh, to `potluck status`, `peers` and programs. Fields are only ever added. */
import type { NodeId } from '../../mesh/core/ids.ts';
import type { MemberStatus } from '../../mesh/core/membership/records.ts';
import type { ActiveMesh } from './active-mesh.ts';
import { type CoordinationStatus, coordinationStatusOf } from './coordination-status.ts';

export interface MeshStatus {
  /** `alone`: nobody was invited, and nothing listens. */
  readonly state: 'alone' | 'connected';
  /** Why the mesh of this node does not run, though others are in it. */
  readonly problem: string | null;
  readonly meshId: string | null;
  readonly peerId: string | null;
  readonly administrator: boolean;
  readonly issuer: boolean;
  readonly revoked: boolean;
  /** ISO 8601; the membership renews long before it ends. */
  readonly membershipEnds: string | null;
  /** host:port of the control plane. */
  readonly addresses: readonly string[];
  readonly dataAddress: string | null;
  readonly site: string;
  /** Other members by status, as this node sees them. */
  readonly members: { readonly [status in MemberStatus]: number };
  /** Other live members by site. */
  readonly sites: Readonly<Record<string, number>>;
  readonly connections: number;
  /** Members heard of by multicast since the start. */
  readonly discovered: number;
  /** Messages that a member did not take in time. */
  readonly droppedMessages: number;
  readonly coordination: CoordinationStatus | null;
}

export interface PeerLine {
  readonly peerId: NodeId;
  readonly name: string;
  /** `unknown`: remembered, and not heard of since the start. */
  readonly status: MemberStatus | 'unknown' | 'revoked';
  readonly site: string;
  readonly roles: readonly string[];
  readonly connected: boolean;
  readonly roundTripMs: number | null;
  /** Slots that it lends to members now. */
  readonly guestSlots: number;
  /** Why actions of this node avoid it; `null` when they do not. */
  readonly drained: string | null;
  readonly addresses: readonly string[];
  /** ISO 8601; `null`: never by this node. */
  readonly lastSeen: string | null;
}

const nobody = { alive: 0, suspect: 0, dead: 0, suspended: 0, left: 0 };

export const asleep: MeshStatus = {
  state: 'alone',
  problem: null,
  meshId: null,
  peerId: null,
  administrator: false,
  issuer: false,
  revoked: false,
  membershipEnds: null,
  addresses: [],
  dataAddress: null,
  site: '',
  members: nobody,
  sites: {},
  connections: 0,
  discovered: 0,
  droppedMessages: 0,
  coordination: null,
};

export function statusOf(mesh: ActiveMesh): MeshStatus {
  const { identity, network, machine } = mesh;
  const members = { ...nobody };
  const sites: Record<string, number> = {};
  for (const { record, status } of mesh.members()) {
    members[status] += 1;
    if (status !== 'alive') continue;
    const { site } = record.attributes;
    sites[site] = (sites[site] ?? 0) + 1;
  }
  const { attributes } = machine.membership.self();
  return {
    state: 'connected',
    problem: null,
    meshId: identity.mesh.id,
    peerId: identity.peerId,
    administrator: identity.administrator !== undefined,
    issuer: mesh.isIssuer(),
    revoked: identity.isRevoked(identity.peerId),
    membershipEnds: new Date(identity.membership().notAfterMs).toISOString(),
    addresses: network.addresses(),
    dataAddress: attributes.dataAddress || null,
    site: attributes.site,
    members,
    sites,
    connections: network.connected().length,
    discovered: network.discovered(),
    droppedMessages: network.links.dropped(),
    coordination: coordinationStatusOf(mesh),
  };
}

/** Everybody this node knows of but itself: members first, then who is only remembered. */
export function peersOf(mesh: ActiveMesh): PeerLine[] {
  const { identity, network, roster } = mesh;
  const members = mesh.members();
  const remembered = new Map(network.contacts());
  const connected = new Set(network.connected());
  const lines = members.map(({ record, status }) => lineOf(record.id, status, record.attributes.site));
  for (const peer of new Set([...connected, ...remembered.keys()])) {
    if (peer === identity.peerId || members.some(({ record }) => record.id === peer)) continue;
    lines.push(lineOf(peer, 'unknown', ''));
  }
  return lines;

  function lineOf(peerId: NodeId, status: PeerLine['status'], site: string): PeerLine {
    const certified = roster.get(peerId);
    const known = remembered.get(peerId);
    const member = members.find(({ record }) => record.id === peerId);
    const seenMs = connected.has(peerId) ? Date.now() : (known?.seenMs ?? 0);
    return {
      peerId,
      name: certified?.name ?? '',
      status: identity.isRevoked(peerId) ? 'revoked' : status,
      site,
      roles: certified?.roles ?? [],
      connected: connected.has(peerId),
      roundTripMs: network.links.roundTripMs(peerId) ?? null,
      guestSlots: member?.status === 'alive' ? member.record.attributes.guestSlots : 0,
      drained: mesh.drained.get(peerId) ?? null,
      addresses: known?.addresses ?? [],
      lastSeen: seenMs > 0 ? new Date(seenMs).toISOString() : null,
    };
  }
}
