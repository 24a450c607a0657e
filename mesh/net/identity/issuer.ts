/**
 * What an issuer does: invites, admits, renews, revokes; and what the administrator does: makes issuers and removes them.
 *
 * Serial numbers and burnt invitations are on disk before the signature that uses them exists, so a crash in between
 * wastes a number or an invitation and never signs twice.
 */
import { randomBytes } from 'node:crypto';
import { Buffer } from 'node:buffer';
import { create, fromBinary } from '@bufbuild/protobuf';
import {
  type Certificate,
  CertificateSchema,
  type Delegation,
  DelegationSchema,
  InvitationSchema,
  MembershipSchema,
  type Revocation,
  RevocationNoticeSchema,
  RevocationSchema,
  type Signed,
} from '../../../protos/gen/potluck/mesh/v1/identity_pb.ts';
import { StatusError } from '../../../protos/status.ts';
import type { NodeId } from '../../core/ids.ts';
import { type CertifiedMember, domains, openDelegation, printable, signStatement, timeliness } from './certificate.ts';
import type { Identity } from './identity.ts';
import { invitationId, isProof, type Joining, prove } from './invitation.ts';
import { openKey, type SigningKey } from './keys.ts';
import * as limits from './limits.ts';
import { makeMesh, type Mesh } from './mesh.ts';
import { publicKeyOf } from './peer-id.ts';
import { identityPaths, writeState } from './state.ts';

/** Everything that members can be besides members. */
export const knownRoles = ['executor', 'publisher'] as const;

/** Makes a mesh of one in a data directory: this node is administrator, issuer and only member. */
export function foundMesh(options: { dataDir: string; name: string; nowMs: number }): void {
  const { dataDir, nowMs } = options;
  const paths = identityPaths(dataDir);
  const key = openKey(paths.key);
  const administrator = openKey(paths.administratorKey);
  const mesh = makeMesh(administrator.publicKey, key.peerId, nowMs);
  const delegation = signDelegation(administrator, mesh, key.peerId, 1n, nowMs);
  const certificate = signMembership(
    { key, mesh, delegation },
    { peerId: key.peerId, name: options.name, roles: knownRoles },
    1n,
    nowMs,
  );
  writeState(dataDir, {
    mesh: mesh.bytes,
    certificate,
    delegation,
    delegations: [delegation],
    membershipSerial: 1n,
    delegationSerial: 1n,
  });
}

/** An invitation to hand over. */
export interface Invitation {
  readonly secret: Uint8Array;
  readonly notAfterMs: number;
}

/** Writes an invitation down. Throws FAILED_PRECONDITION on a node that is no issuer. */
export function invite(identity: Identity, options: { ttlMs: number; roles: readonly string[] }): Invitation {
  requireIssuer(identity);
  const roles = [...new Set(options.roles)].sort();
  const unknown = roles.find((role) => !(knownRoles as readonly string[]).includes(role));
  if (unknown !== undefined) {
    throw new StatusError('INVALID_ARGUMENT', `"${unknown}" is no role; there are ${knownRoles.join(' and ')}`);
  }
  if (!(options.ttlMs > 0 && options.ttlMs <= limits.invitationMaxMs)) {
    throw new StatusError('INVALID_ARGUMENT', 'an invitation lasts at most 7 days');
  }
  const nowMs = identity.nowMs();
  const secret = randomBytes(limits.secretBytes);
  const notAfterMs = nowMs + options.ttlMs;
  identity.file.update((state) => {
    state.invitations = state.invitations.filter((one) => Number(one.notAfterMs) + limits.skewMs > nowMs);
    if (state.invitations.length >= limits.invitationsMax) {
      throw new StatusError('RESOURCE_EXHAUSTED', `${limits.invitationsMax} invitations are open; let some expire`);
    }
    state.invitations.push(
      create(InvitationSchema, { id: invitationId(secret), secret, roles, notAfterMs: BigInt(notAfterMs) }),
    );
  });
  return { secret, notAfterMs };
}

export interface Admission {
  readonly certificate: Certificate;
  /** Of the invitation; for proving the grant, and forgotten after it. */
  readonly secret: Uint8Array;
}

/**
 * Admits who proves to hold an invitation: burns it on disk, then signs. Returns `undefined`, and why, for everybody else.
 */
export function admit(
  identity: Identity,
  request: Joining & { readonly invitationId: Uint8Array; readonly proof: Uint8Array; readonly name: string },
): Admission | { readonly refused: string } {
  const delegation = ownDelegation(identity);
  if (!delegation) return { refused: 'this node is no issuer' };
  const matches = (one: { id: Uint8Array }) => Buffer.compare(one.id, request.invitationId) === 0;
  const invitation = identity.file.state.invitations.find(matches);
  if (!invitation) return { refused: 'no such invitation' };
  if (invitation.burnt) return { refused: 'the invitation was used before' };
  // No margin: this node's own clock set the time.
  if (identity.nowMs() > Number(invitation.notAfterMs)) return { refused: 'the invitation has expired' };
  const { secret, roles } = invitation;
  if (!isProof(request.proof, prove(secret, 'join', request))) return { refused: 'the proof is wrong' };
  if (identity.isRevoked(request.joiner)) return { refused: 'the key of this node was revoked' };
  let serial = 0n;
  identity.file.update((state) => {
    const burning = state.invitations.find(matches);
    if (burning) [burning.burnt, burning.secret] = [true, new Uint8Array()];
    serial = state.membershipSerial += 1n;
    if (!state.issuedTo.includes(request.joiner)) state.issuedTo.push(request.joiner);
  });
  const subject = { peerId: request.joiner, name: printable(request.name), roles };
  const { key, mesh } = identity;
  return { certificate: signMembership({ key, mesh, delegation }, subject, serial, identity.nowMs()), secret };
}

/** A newer certificate for a member whose present one was verified; its name and roles stay. */
export function renew(identity: Identity, member: CertifiedMember): Certificate | undefined {
  const delegation = ownDelegation(identity);
  if (!delegation) return undefined;
  let serial = 0n;
  identity.file.update((state) => {
    serial = state.membershipSerial += 1n;
    if (!state.issuedTo.includes(member.peerId)) state.issuedTo.push(member.peerId);
  });
  const { key, mesh } = identity;
  return signMembership({ key, mesh, delegation }, member, serial, identity.nowMs());
}

/** From half of its life on a certificate, or a delegation, is worth renewing. */
export function isRenewalDue(validity: { notBeforeMs: number; notAfterMs: number }, nowMs: number): boolean {
  return nowMs >= validity.notBeforeMs + (validity.notAfterMs - validity.notBeforeMs) / 2;
}

/** Makes a member an issuer, or renews it as one. Throws FAILED_PRECONDITION without the administrator's key. */
export function addIssuer(identity: Identity, peerId: NodeId): Signed {
  const administrator = requireAdministrator(identity);
  requirePeerId(peerId);
  if (identity.isRevoked(peerId)) throw new StatusError('FAILED_PRECONDITION', `${peerId} was revoked`);
  let serial = 0n;
  identity.file.update((state) => {
    serial = state.delegationSerial += 1n;
  });
  const delegation = signDelegation(administrator, identity.mesh, peerId, serial, identity.nowMs());
  identity.file.update((state) => {
    state.delegations = [...state.delegations.filter((one) => issuerOf(identity, one) !== peerId), delegation];
    if (peerId === identity.peerId) state.delegation = delegation;
  });
  return delegation;
}

/**
 * Takes the office from an issuer. Certificates that it signed for `members` hold until they expire; others are void.
 * Throws FAILED_PRECONDITION without the administrator's key, NOT_FOUND when it is no issuer.
 */
export function removeIssuer(identity: Identity, peerId: NodeId, members: readonly NodeId[]): void {
  requireAdministrator(identity);
  const delegations = identity.file.state.delegations;
  const delegation = delegations.find((one) => issuerOf(identity, one) === peerId);
  if (!delegation) throw new StatusError('NOT_FOUND', `${peerId} is no issuer`);
  if (peerId === identity.peerId) {
    throw new StatusError('FAILED_PRECONDITION', "the administrator's own node stays an issuer");
  }
  revokeAs(identity, 'administrator', {
    case: 'issuer',
    value: {
      $typeName: 'potluck.mesh.v1.IssuerRemoval',
      peerId,
      throughSerial: identity.file.state.delegationSerial,
      kept: [...new Set(members)].sort(),
      lastRevocation: identity.revocations.lastSerial(peerId),
    },
  });
  identity.file.update((state) => {
    state.delegations = state.delegations.filter((one) => issuerOf(identity, one) !== peerId);
  });
}

/** Ends a membership for good. Throws FAILED_PRECONDITION on a node that is no issuer. */
export function revoke(identity: Identity, peerId: NodeId): void {
  requirePeerId(peerId);
  if (peerId === identity.peerId) {
    throw new StatusError('FAILED_PRECONDITION', 'a node does not revoke itself; see potluck leave');
  }
  if (identity.isRevoked(peerId)) return;
  if (!identity.administrator) requireIssuer(identity);
  if (!identity.administrator && peerId === identity.mesh.founder) {
    throw new StatusError('FAILED_PRECONDITION', 'an issuer cannot revoke the node that made the mesh');
  }
  revokeAs(identity, identity.administrator ? 'administrator' : 'issuer', { case: 'peerId', value: peerId });
}

/** The delegations that this node gave, as administrator, and that still count. */
export function delegationsGiven(identity: Identity): { readonly issuer: NodeId; readonly delegation: Signed }[] {
  return identity.file.state.delegations.flatMap((delegation) => {
    const issuer = issuerOf(identity, delegation);
    return issuer === undefined ? [] : [{ issuer, delegation }];
  });
}

/** Takes a delegation for this node in; false when it is none, or no newer than the present one. */
export function acceptDelegation(identity: Identity, signed: Signed): boolean {
  const { mesh, verifier, revocations, peerId, file } = identity;
  const delegation = openDelegation(mesh, verifier, signed);
  if (delegation?.issuer !== peerId || revocations.isDelegationVoid(peerId, delegation.serial)) return false;
  const present = file.state.delegation && openDelegation(mesh, verifier, file.state.delegation);
  if (present && present.serial >= delegation.serial) return false;
  file.update((state) => {
    state.delegation = signed;
  });
  return true;
}

/** Takes a renewed certificate of this node in; false when it is none or older than the present one. */
export function acceptCertificate(identity: Identity, certificate: Certificate, bytes: Uint8Array): boolean {
  const { member } = identity.verifyMember(identity.peerId, bytes);
  if (!member || member.notAfterMs <= identity.membership().notAfterMs) return false;
  identity.file.update((state) => {
    state.certificate = certificate;
  });
  return true;
}

/** The delegation of this node while it counts. */
export function ownDelegation(identity: Identity): Signed | undefined {
  const { mesh, verifier, revocations, peerId } = identity;
  const signed = identity.file.state.delegation;
  const delegation = openDelegation(mesh, verifier, signed);
  if (delegation?.issuer !== peerId || timeliness(delegation, identity.nowMs())) return undefined;
  return revocations.isDelegationVoid(peerId, delegation.serial) ? undefined : signed;
}

function issuerOf({ mesh, verifier }: Identity, signed: Signed): NodeId | undefined {
  return openDelegation(mesh, verifier, signed)?.issuer;
}

function requireIssuer(identity: Identity): void {
  if (ownDelegation(identity)) return;
  throw new StatusError(
    'FAILED_PRECONDITION',
    'this node is no issuer; the administrator makes it one with "potluck issuer add PEER", or does this itself',
  );
}

function requireAdministrator({ administrator }: Identity): SigningKey {
  if (administrator) return administrator;
  throw new StatusError(
    'FAILED_PRECONDITION',
    "this takes the administrator's key, which the first node of the mesh has",
  );
}

function requirePeerId(peerId: NodeId): void {
  if (publicKeyOf(peerId)) return;
  throw new StatusError('INVALID_ARGUMENT', `"${peerId}" is no peer id; see potluck peers`);
}

function revokeAs(identity: Identity, office: 'administrator' | 'issuer', what: Revocation['what']): void {
  const key = office === 'administrator' ? (identity.administrator as SigningKey) : identity.key;
  const revoker = office === 'administrator' ? '' : identity.peerId;
  let serial = 0n;
  identity.file.update((state) => {
    serial = office === 'administrator' ? (state.administratorRevocationSerial += 1n) : (state.revocationSerial += 1n);
  });
  const madeMs = BigInt(identity.nowMs());
  const revocation = create(RevocationSchema, { meshId: identity.mesh.id, serial, revoker, madeMs, what });
  const delegation = office === 'issuer' ? ownDelegation(identity) : undefined;
  const made = identity.addRevocations([
    create(RevocationNoticeSchema, {
      revocation: signStatement(key, domains.revocation, RevocationSchema, revocation),
      ...(delegation && { delegation }),
    }),
  ]);
  if (made.length > 0) return;
  throw new StatusError(
    'RESOURCE_EXHAUSTED',
    `nothing was revoked: ${limits.revocationsPerRevokerMax} revocations of one node are kept, and members of ${limits.removalBytesMax} bytes in one`,
  );
}

function signDelegation(administrator: SigningKey, mesh: Mesh, issuer: NodeId, serial: bigint, nowMs: number): Signed {
  const delegation: Delegation = create(DelegationSchema, {
    meshId: mesh.id,
    issuer,
    serial,
    notBeforeMs: BigInt(nowMs),
    notAfterMs: BigInt(nowMs + limits.delegationMs),
  });
  return signStatement(administrator, domains.delegation, DelegationSchema, delegation);
}

function signMembership(
  issuer: { readonly key: SigningKey; readonly mesh: Mesh; readonly delegation: Signed },
  subject: { readonly peerId: NodeId; readonly name: string; readonly roles: readonly string[] },
  serial: bigint,
  nowMs: number,
): Certificate {
  const { key, mesh, delegation } = issuer;
  const office = fromBinary(DelegationSchema, delegation.payload);
  const earliest = (a: bigint, b: bigint) => (a < b ? a : b);
  const latest = (a: bigint, b: bigint) => (a > b ? a : b);
  const membership = create(MembershipSchema, {
    meshId: mesh.id,
    peerId: subject.peerId,
    name: subject.name,
    roles: [...subject.roles],
    serial,
    notBeforeMs: latest(BigInt(nowMs), office.notBeforeMs),
    notAfterMs: earliest(BigInt(nowMs + limits.membershipMs), office.notAfterMs),
  });
  return create(CertificateSchema, {
    membership: signStatement(key, domains.membership, MembershipSchema, membership),
    delegation,
  });
}
