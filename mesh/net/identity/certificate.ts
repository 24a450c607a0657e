/**
 * Certificates: a membership signed by an issuer, with the delegation by which the administrator made it one.
 *
 * Everything here is a function of bytes and time; what was revoked is asked of the caller.
 */
import { Buffer } from 'node:buffer';
import { create, type DescMessage, fromBinary, type MessageShape, toBinary } from '@bufbuild/protobuf';
import {
  type Certificate,
  CertificateSchema,
  type Delegation,
  DelegationSchema,
  type Membership,
  MembershipSchema,
  type Signed,
  SignedSchema,
} from '../../../protos/gen/potluck/mesh/v1/identity_pb.ts';
import type { NodeId } from '../../core/ids.ts';
import type { Domain, SigningKey, Verifier } from './keys.ts';
import * as limits from './limits.ts';
import type { Mesh } from './mesh.ts';
import { publicKeyOf } from './peer-id.ts';

export const domains = {
  delegation: 'potluck/delegation/1',
  membership: 'potluck/membership/1',
  revocation: 'potluck/revocation/1',
} as const satisfies Record<string, Domain>;

/** A member as its certificate describes it. */
export interface CertifiedMember {
  readonly peerId: NodeId;
  /** For people; nothing is decided by it. */
  readonly name: string;
  readonly roles: readonly string[];
  readonly issuer: NodeId;
  /** Of the issuer's office. */
  readonly delegationSerial: bigint;
  readonly serial: bigint;
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
}

export type Refusal =
  | 'malformed'
  | 'foreign mesh'
  | 'of another peer'
  | 'forged'
  | 'not valid yet'
  | 'expired'
  | 'revoked'
  | 'issuer removed';

export type Verdict =
  | { readonly member: CertifiedMember; readonly reason?: undefined }
  | { readonly member?: undefined; readonly reason: Refusal };

/** What was revoked, as far as this node knows. */
export interface RevocationView {
  isRevoked(peerId: NodeId): boolean;
  /** Whether a certificate of `peerId` under that delegation is void. */
  isIssuerRemoved(issuer: NodeId, delegationSerial: bigint, peerId: NodeId): boolean;
}

/** A signed statement, its bytes as they were signed. */
export function signStatement<D extends DescMessage>(
  key: SigningKey,
  domain: Domain,
  schema: D,
  statement: MessageShape<D>,
): Signed {
  const payload = toBinary(schema, statement);
  return create(SignedSchema, { payload, signature: key.sign(domain, payload) });
}

/** The statement in an envelope whose signature holds and whose encoding is the canonical one, else `undefined`. */
export function openStatement<D extends DescMessage>(
  verifier: Verifier,
  key: NodeId | Uint8Array,
  domain: Domain,
  schema: D,
  signed: Signed | undefined,
): MessageShape<D> | undefined {
  if (!signed || !verifier.verify(key, domain, signed.payload, signed.signature)) return undefined;
  return parseCanonical(schema, signed.payload);
}

/** Decodes bytes that are exactly what encoding the outcome gives. */
function parseCanonical<D extends DescMessage>(schema: D, bytes: Uint8Array): MessageShape<D> | undefined {
  const message = parse(schema, bytes);
  return message && Buffer.compare(toBinary(schema, message), bytes) === 0 ? message : undefined;
}

/** Decodes, or says that it cannot. */
export function parse<D extends DescMessage>(schema: D, bytes: Uint8Array): MessageShape<D> | undefined {
  try {
    return fromBinary(schema, bytes);
  } catch {
    return undefined;
  }
}

/**
 * Checks that a certificate makes a peer, whose id was authenticated by other means, a member of a mesh.
 *
 * @param nowMs - wall clock; both ends of a validity are read with a margin of `skewMs`
 */
export function verifyMembership(
  context: { readonly mesh: Mesh; readonly verifier: Verifier; readonly revocations: RevocationView },
  certificate: Uint8Array,
  peerId: NodeId,
  nowMs: number,
): Verdict {
  const { mesh, verifier, revocations } = context;
  if (certificate.byteLength > limits.certificateBytesMax) return { reason: 'malformed' };
  const parts = parseCanonical(CertificateSchema, certificate);
  const claimed = parts?.membership && parse(MembershipSchema, parts.membership.payload);
  const claimedDelegation = parts?.delegation && parse(DelegationSchema, parts.delegation.payload);
  if (!claimed || !claimedDelegation || !publicKeyOf(peerId)) return { reason: 'malformed' };
  if (claimed.meshId !== mesh.id || claimedDelegation.meshId !== mesh.id) return { reason: 'foreign mesh' };
  if (claimed.peerId !== peerId) return { reason: 'of another peer' };
  const delegation = openDelegation(mesh, verifier, parts.delegation);
  const membership =
    delegation && openStatement(verifier, delegation.issuer, domains.membership, MembershipSchema, parts.membership);
  if (!delegation || !membership || !isWithin(membership, delegation)) return { reason: 'forged' };
  if (revocations.isRevoked(peerId)) return { reason: 'revoked' };
  if (revocations.isIssuerRemoved(delegation.issuer, delegation.serial, peerId)) return { reason: 'issuer removed' };
  const timely = timeliness(membership, nowMs);
  if (timely) return { reason: timely };
  return { member: memberOf(membership, delegation) };
}

/** A delegation that the administrator of this mesh signed. Its time is not looked at. */
export function openDelegation(mesh: Mesh, verifier: Verifier, signed: Signed | undefined): Delegation | undefined {
  const delegation = openStatement(verifier, mesh.administratorKey, domains.delegation, DelegationSchema, signed);
  return delegation?.meshId === mesh.id ? delegation : undefined;
}

export function timeliness(
  validity: { readonly notBeforeMs: bigint; readonly notAfterMs: bigint },
  nowMs: number,
): 'not valid yet' | 'expired' | undefined {
  if (nowMs + limits.skewMs < Number(validity.notBeforeMs)) return 'not valid yet';
  if (nowMs - limits.skewMs > Number(validity.notAfterMs)) return 'expired';
  return undefined;
}

function memberOf(membership: Membership, delegation: Delegation): CertifiedMember {
  return {
    peerId: membership.peerId,
    name: printable(membership.name),
    roles: membership.roles,
    issuer: delegation.issuer,
    delegationSerial: delegation.serial,
    serial: membership.serial,
    notBeforeMs: Number(membership.notBeforeMs),
    notAfterMs: Number(membership.notAfterMs),
  };
}

/** A name as it can be shown: no control character of a terminal, nothing that reorders the text around it, not too long. */
export function printable(name: string): string {
  return name
    .replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/gu, '')
    .slice(0, limits.nameLengthMax)
    .toWellFormed();
}

export function certificateBytes(certificate: Certificate): Uint8Array {
  return toBinary(CertificateSchema, certificate);
}

/** An issuer cannot sign beyond its own time, and the lists are as short as they must be. */
function isWithin(membership: Membership, delegation: Delegation): boolean {
  const { roles } = membership;
  return (
    membership.notBeforeMs >= delegation.notBeforeMs &&
    membership.notAfterMs <= delegation.notAfterMs &&
    membership.notBeforeMs <= membership.notAfterMs &&
    membership.name.length <= limits.nameLengthMax &&
    roles.length <= limits.rolesMax &&
    roles.every((role, at) => role.length <= limits.roleLengthMax && (at === 0 || (roles[at - 1] as string) < role))
  );
}
