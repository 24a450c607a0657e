/** Credentials of the data plane from the node's identity. */
import { CertificateSchema, MembershipSchema } from '../../../protos/gen/potluck/mesh/v1/identity_pb.ts';
import { type CertifiedMember, parse } from '../identity/certificate.ts';
import type { Identity } from '../identity/identity.ts';
import { skewMs } from '../identity/limits.ts';
import type { Credentials } from './credentials.ts';

interface Known {
  readonly member: CertifiedMember;
  readonly certificate: Uint8Array;
}

/** Remembers the newest certificate of each member that proved itself, to notice when its membership ends. */
export function memberCredentials(identity: Identity): Credentials {
  const known = new Map<string, Known>();

  return {
    meshId: identity.mesh.id,
    certificate: () => identity.certificate(),
    sign: (domain, bytes) => identity.sign(domain, bytes),
    verify(certificate) {
      const peer = claimedPeer(certificate);
      if (peer === undefined) return undefined;
      const { member } = identity.verifyMember(peer, certificate);
      if (!member) return undefined;
      const before = known.get(peer);
      if (!before || before.member.notAfterMs <= member.notAfterMs) known.set(peer, { member, certificate });
      return { peer, isSignedBy: (domain, bytes, signature) => identity.verify(peer, domain, bytes, signature) };
    },
    isMember(peer) {
      const notAfterMs = known.get(peer)?.member.notAfterMs ?? Number.POSITIVE_INFINITY;
      return !identity.isRevoked(peer) && identity.nowMs() - skewMs <= notAfterMs;
    },
    onRevoked: (listener) =>
      identity.onRevocations(() => {
        for (const [peer, { certificate }] of known) {
          if (identity.verifyMember(peer, certificate).member) continue;
          known.delete(peer);
          listener(peer);
        }
      }),
  };
}

function claimedPeer(certificate: Uint8Array): string | undefined {
  const membership = parse(CertificateSchema, certificate)?.membership;
  return membership && parse(MembershipSchema, membership.payload)?.peerId;
}
