/**
 * What was revoked: a set that only grows, the same in every node that has heard everything.
 *
 * Each revoker numbers its revocations. Those of a removed issuer count up to the number that the removal names, so a
 * thief of its key can revoke nobody.
 */
import { createHash } from 'node:crypto';
import { create, toBinary } from '@bufbuild/protobuf';
import {
  type Revocation,
  type RevocationNotice,
  RevocationNoticeSchema,
  RevocationSchema,
} from '../../../protos/gen/potluck/mesh/v1/identity_pb.ts';
import type { NodeId } from '../../core/ids.ts';
import { domains, openDelegation, openStatement, parse, type RevocationView } from './certificate.ts';
import type { Verifier } from './keys.ts';
import * as limits from './limits.ts';
import type { Mesh } from './mesh.ts';

export interface Revocations extends RevocationView {
  /** Takes a notice in; false when it is known, no good, or beyond what is kept. */
  add(notice: RevocationNotice): boolean;
  /** Every notice, by revoker and serial. */
  all(): RevocationNotice[];
  /** Equal in two nodes that have heard the same. */
  summary(): string;
  /** Highest serial known of an issuer's revocations. */
  lastSerial(issuer: NodeId): bigint;
  /** Whether a delegation was withdrawn. */
  isDelegationVoid(issuer: NodeId, serial: bigint): boolean;
}

interface Removal {
  readonly throughSerial: bigint;
  readonly kept: ReadonlySet<NodeId>;
  readonly lastRevocation: bigint;
}

export function createRevocations(mesh: Mesh, verifier: Verifier): Revocations {
  const heard = new Map<string, Map<bigint, { readonly notice: RevocationNotice; readonly revocation: Revocation }>>();
  let revoked = new Set<NodeId>();
  let removals = new Map<NodeId, Removal>();

  function open(notice: RevocationNotice): Revocation | undefined {
    const claimed = notice.revocation && parse(RevocationSchema, notice.revocation.payload);
    if (claimed?.meshId !== mesh.id || claimed.what.case === undefined || claimed.serial < 1n) return undefined;
    if (claimed.revoker === '') {
      if (notice.delegation) return undefined;
      return openStatement(verifier, mesh.administratorKey, domains.revocation, RevocationSchema, notice.revocation);
    }
    // Only the administrator takes an issuer's office away.
    if (claimed.what.case === 'issuer') return undefined;
    const delegation = openDelegation(mesh, verifier, notice.delegation);
    if (delegation?.issuer !== claimed.revoker) return undefined;
    return openStatement(verifier, claimed.revoker, domains.revocation, RevocationSchema, notice.revocation);
  }

  /** Derived anew from all notices, so that the order in which they came does not matter. */
  function derive(): void {
    revoked = new Set();
    removals = new Map();
    for (const { revocation } of heard.get('')?.values() ?? []) {
      if (revocation.what.case !== 'issuer') continue;
      const { peerId, throughSerial, kept, lastRevocation } = revocation.what.value;
      const before = removals.get(peerId);
      if (before && before.throughSerial >= throughSerial) continue;
      removals.set(peerId, { throughSerial, kept: new Set(kept), lastRevocation });
    }
    for (const [revoker, notices] of heard) {
      const last = removals.get(revoker)?.lastRevocation;
      for (const [serial, { revocation, notice }] of notices) {
        if (revocation.what.case !== 'peerId') continue;
        if (last !== undefined && serial > last && isVoid(notice)) continue;
        revoked.add(revocation.what.value);
      }
    }
  }

  function isVoid(notice: RevocationNotice): boolean {
    const delegation = openDelegation(mesh, verifier, notice.delegation);
    return delegation !== undefined && (removals.get(delegation.issuer)?.throughSerial ?? 0n) >= delegation.serial;
  }

  function inOrder(): RevocationNotice[] {
    return [...heard]
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .flatMap(([, notices]) => [...notices].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, { notice }]) => notice));
  }

  return {
    add(notice) {
      const revocation = open(notice);
      if (!revocation) return false;
      const { revoker, serial } = revocation;
      const notices = heard.get(revoker) ?? new Map();
      if (notices.has(serial) || notices.size >= limits.revocationsPerRevokerMax) return false;
      if (!heard.has(revoker) && heard.size >= limits.revokersMax) return false;
      heard.set(revoker, notices);
      notices.set(serial, {
        revocation,
        notice: create(RevocationNoticeSchema, {
          ...(notice.revocation && { revocation: notice.revocation }),
          ...(notice.delegation && { delegation: notice.delegation }),
        }),
      });
      derive();
      return true;
    },
    all: inOrder,
    summary() {
      const hash = createHash('sha256');
      // Not the signatures: who signs the same statement twice would make two sets of one.
      for (const notice of inOrder()) hash.update(notice.revocation?.payload ?? '');
      return hash.digest('hex').slice(0, 32);
    },
    lastSerial: (issuer) => [...(heard.get(issuer)?.keys() ?? [])].reduce((max, one) => (one > max ? one : max), 0n),
    isRevoked: (peerId) => revoked.has(peerId),
    isDelegationVoid: (issuer, serial) => (removals.get(issuer)?.throughSerial ?? 0n) >= serial,
    isIssuerRemoved(issuer, delegationSerial, peerId) {
      const removal = removals.get(issuer);
      return removal !== undefined && delegationSerial <= removal.throughSerial && !removal.kept.has(peerId);
    },
  };
}

/** A notice as bytes, for the wire. */
export function noticeBytes(notice: RevocationNotice): Uint8Array {
  return toBinary(RevocationNoticeSchema, notice);
}
