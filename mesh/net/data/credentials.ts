/** What the data plane needs to know of identity: who this node is, and whom it believes. */
import type { Domain } from '../identity/keys.ts';

export interface Credentials {
  readonly meshId: string;
  /** This node's membership certificate as it is shown to others; may be renewed while the node runs. */
  certificate(): Uint8Array;
  /** Signs with the key of this node's peer id. */
  sign(domain: Domain, bytes: Uint8Array): Uint8Array;
  /** Checks a certificate that another node showed: its mesh, issuer, times, revocation. `undefined`: not a member. */
  verify(certificate: Uint8Array): VerifiedMember | undefined;
  /** Whether a member that was verified before still is one: not revoked, not expired. */
  isMember(peer: string): boolean;
  /** Calls back with the peer id of each member whose membership ends; returns how to stop that. */
  onRevoked(listener: (peer: string) => void): () => void;
}

export interface VerifiedMember {
  /** The peer id in text. */
  readonly peer: string;
  /** Whether `signature` was made with the key of the peer id. */
  isSignedBy(domain: Domain, bytes: Uint8Array, signature: Uint8Array): boolean;
}
