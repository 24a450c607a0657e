/**
 * Who this node is: its key, its mesh, its certificate, and what it knows of revocations. Everything that proves or
 * checks membership, on the control plane and on the data plane, asks here.
 */
import { Buffer } from 'node:buffer';
import type { RevocationNotice } from '../../../protos/gen/potluck/mesh/v1/identity_pb.ts';
import { StatusError } from '../../../protos/status.ts';
import type { NodeId } from '../../core/ids.ts';
import {
  type CertifiedMember,
  certificateBytes,
  type RevocationView,
  type Verdict,
  verifyMembership,
} from './certificate.ts';
import { createVerifier, type Domain, openKey, readKey, type SigningKey, type Verifier } from './keys.ts';
import { skewMs } from './limits.ts';
import { type Mesh, readMesh } from './mesh.ts';
import { createRevocations, type Revocations } from './revocations.ts';
import { identityPaths, openState, type StateFile } from './state.ts';

export interface Identity {
  readonly peerId: NodeId;
  readonly mesh: Mesh;
  /** This node holds the administrator's key. */
  readonly administrator: SigningKey | undefined;
  readonly key: SigningKey;
  readonly verifier: Verifier;
  readonly revocations: Revocations;
  /** The file behind all this, for whoever issues. */
  readonly file: StateFile;
  nowMs(): number;
  /** Own certificate, the newest: ask again for each connection, it is renewed. */
  certificate(): Uint8Array;
  /** What the own certificate says. */
  membership(): CertifiedMember;
  /** Of (domain, NUL, bytes), with the key behind the peer id. */
  sign(domain: Domain, bytes: Uint8Array): Uint8Array;
  /** Checks what `sign` of that peer made. */
  verify(peerId: NodeId, domain: Domain, bytes: Uint8Array, signature: Uint8Array): boolean;
  /** Whether these certificate bytes make this authenticated peer a member now. */
  verifyMember(peerId: NodeId, certificate: Uint8Array): Verdict;
  isRevoked(peerId: NodeId): boolean;
  /** Whether a membership that was good has ended by revocation since: its own, or that of its issuer. */
  isMembershipVoid(member: CertifiedMember): boolean;
  isExpired(member: CertifiedMember): boolean;
  /** Takes revocations in; durable when it returns, in force in this life when it throws. Returns those that were new. */
  addRevocations(notices: readonly RevocationNotice[]): RevocationNotice[];
  /** Calls `listener` after revocations arrived or were made here. Returns how to stop that. */
  onRevocations(listener: (notices: readonly RevocationNotice[]) => void): () => void;
}

export interface IdentityOptions {
  readonly dataDir: string;
  /** Wall clock, milliseconds since the epoch. */
  readonly nowMs?: () => number;
}

/** The identity in a data directory, or `undefined` when this node is in no mesh. Throws DATA_LOSS for damaged files. */
export function openIdentity(options: IdentityOptions): Identity | undefined {
  const { dataDir, nowMs = Date.now } = options;
  const file = openState(dataDir);
  if (!file) return undefined;
  const paths = identityPaths(dataDir);
  const key = openKey(paths.key);
  const mesh = readMesh(file.state.mesh);
  const verifier = createVerifier();
  const revocations = createRevocations(mesh, verifier);
  for (const notice of file.state.revocations) revocations.add(notice);
  const own = verifyMembership(
    { mesh, verifier, revocations: nothingRevoked },
    ownCertificate(file),
    key.peerId,
    Number.NaN,
  );
  if (!own.member) {
    throw new StatusError(
      'FAILED_PRECONDITION',
      `the membership in ${paths.membership} is ${own.reason}; join the mesh again with a new invitation`,
    );
  }
  const administratorKey = readKey(paths.administratorKey);
  const administers =
    administratorKey !== undefined && Buffer.compare(administratorKey.publicKey, mesh.administratorKey) === 0;
  const listeners = new Set<(notices: readonly RevocationNotice[]) => void>();
  const context = { mesh, verifier, revocations };

  return {
    peerId: key.peerId,
    mesh,
    administrator: administers ? administratorKey : undefined,
    key,
    verifier,
    revocations,
    file,
    nowMs,
    certificate: () => ownCertificate(file),
    membership() {
      const view = { ...context, revocations: nothingRevoked };
      return verifyMembership(view, ownCertificate(file), key.peerId, Number.NaN).member as CertifiedMember;
    },
    sign: (domain, bytes) => key.sign(domain, bytes),
    verify: (peerId, domain, bytes, signature) => verifier.verify(peerId, domain, bytes, signature),
    verifyMember: (peerId, certificate) => verifyMembership(context, certificate, peerId, nowMs()),
    isRevoked: (peerId) => revocations.isRevoked(peerId),
    isMembershipVoid: ({ peerId, issuer, delegationSerial }) =>
      revocations.isRevoked(peerId) || revocations.isIssuerRemoved(issuer, delegationSerial, peerId),
    isExpired: ({ notAfterMs }) => nowMs() - skewMs > notAfterMs,
    addRevocations(notices) {
      const fresh = notices.filter((notice) => revocations.add(notice));
      if (fresh.length === 0) return [];
      try {
        file.update((state) => {
          state.revocations = revocations.all();
        });
      } finally {
        // They hold from now on also when the disk is full; others will tell of them again after a restart.
        for (const listener of listeners) listener(fresh);
      }
      return fresh;
    },
    onRevocations(listener) {
      listeners.add(listener);
      return () => void listeners.delete(listener);
    },
  };
}

/** A node knows its own membership whatever became of it since. No time is before or after NaN. */
const nothingRevoked: RevocationView = { isRevoked: () => false, isIssuerRemoved: () => false };

function ownCertificate({ state }: StateFile): Uint8Array {
  return state.certificate ? certificateBytes(state.certificate) : new Uint8Array();
}
