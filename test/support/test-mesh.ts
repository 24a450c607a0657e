/** Members of a mesh that exists in a test alone: real keys and signatures, certificates of the simplest kind. */
import type { Credentials, VerifiedMember } from '../../mesh/net/data/credentials.ts';
import { createVerifier, newKey, type SigningKey } from '../../mesh/net/identity/keys.ts';

export interface TestMesh {
  readonly id: string;
  /** Makes a member; `expired` and the like make one that others must not believe. */
  join(key?: SigningKey): TestMember;
  revoke(peer: string): void;
}

export interface TestMember {
  readonly peer: string;
  readonly key: SigningKey;
  readonly credentials: Credentials;
}

const domain = 'potluck/test-certificate/1';

/** A certificate is `mesh id, peer id, signature of the mesh's key`, in JSON. */
export function createTestMesh(id: string): TestMesh {
  const authority = newKey();
  const verifier = createVerifier();
  const revoked = new Set<string>();
  const listeners = new Set<(peer: string) => void>();

  function verify(certificate: Uint8Array): VerifiedMember | undefined {
    try {
      const { peer, signature } = JSON.parse(Buffer.from(certificate).toString()) as Record<string, string>;
      const isGenuine = verifier.verify(
        authority.publicKey,
        domain,
        Buffer.from(`${id} ${peer}`),
        Buffer.from(signature ?? '', 'hex'),
      );
      if (!isGenuine || !peer || revoked.has(peer)) return undefined;
      return { peer, isSignedBy: (about, bytes, signed) => verifier.verify(peer, about, bytes, signed) };
    } catch {
      return undefined;
    }
  }

  return {
    id,
    join(key = newKey()) {
      const signature = Buffer.from(authority.sign(domain, Buffer.from(`${id} ${key.peerId}`))).toString('hex');
      const certificate = Buffer.from(JSON.stringify({ peer: key.peerId, signature }));
      return {
        peer: key.peerId,
        key,
        credentials: {
          meshId: id,
          certificate: () => certificate,
          sign: (about, bytes) => key.sign(about, bytes),
          verify,
          isMember: (peer) => !revoked.has(peer),
          onRevoked(listener) {
            listeners.add(listener);
            return () => listeners.delete(listener);
          },
        },
      };
    },
    revoke(peer) {
      revoked.add(peer);
      for (const listener of listeners) listener(peer);
    },
  };
}
