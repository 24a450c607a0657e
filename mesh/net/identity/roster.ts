/**
 * Members whose certificates this node has seen. A key alone makes nobody a member: what is said about an id without a
 * certificate is not believed, so a member cannot fill the mesh with names that it made up.
 */
import { CertificateSchema, MembershipSchema } from '../../../protos/gen/potluck/mesh/v1/identity_pb.ts';
import type { NodeId } from '../../core/ids.ts';
import { type CertifiedMember, parse } from './certificate.ts';
import type { Identity } from './identity.ts';
import * as limits from './limits.ts';

export interface Roster {
  /** Takes a certificate in, whoever brought it; returns the member when this is news. */
  learn(certificate: Uint8Array): CertifiedMember | undefined;
  /** The newest that is known of a member, while it holds. */
  get(peer: NodeId): CertifiedMember | undefined;
  /** Every certificate that holds, this node's own first. */
  certificates(): Uint8Array[];
}

interface Entry {
  readonly member: CertifiedMember;
  readonly certificate: Uint8Array;
}

export function createRoster(identity: Identity): Roster {
  const entries = new Map<NodeId, Entry>();

  function holds({ member }: Entry): boolean {
    return !identity.isMembershipVoid(member) && !identity.isExpired(member);
  }

  function get(peer: NodeId): CertifiedMember | undefined {
    if (peer === identity.peerId) return identity.membership();
    const entry = entries.get(peer);
    if (!entry || holds(entry)) return entry?.member;
    entries.delete(peer);
    return undefined;
  }

  return {
    get,
    learn(certificate) {
      const membership = parse(CertificateSchema, certificate)?.membership;
      const peer = membership && parse(MembershipSchema, membership.payload)?.peerId;
      if (peer === undefined || peer === identity.peerId) return undefined;
      // Everybody who connects brings all of them.
      if (Buffer.compare(entries.get(peer)?.certificate ?? new Uint8Array(), certificate) === 0) return undefined;
      const { member } = identity.verifyMember(peer, certificate);
      if (!member || member.notAfterMs <= (get(peer)?.notAfterMs ?? 0)) return undefined;
      if (!entries.has(peer) && entries.size >= limits.membersMax) return undefined;
      entries.set(peer, { member, certificate });
      return member;
    },
    certificates() {
      const others = [...entries.values()].filter(holds).map(({ certificate }) => certificate);
      return [identity.certificate(), ...others];
    },
  };
}
