/**
 * What was revoked: a set that only grows, the same in every node that has heard everything.
 *
 * Each revoker numbers its revocations. Those of a removed issuer count up to the number that the removal names, so a
 * thief of its key can revoke nobody. Two with one number both count: whoever signs both cannot set nodes apart.
 */
import { createHash } from 'node:crypto';
import { create, toBinary } from '@bufbuild/protobuf';
import {
  type Revocation,
  type RevocationNotice,
  RevocationNoticeSchema,
  RevocationSchema,
  type Signed,
  SignedSchema,
} from '../../../protos/gen/potluck/mesh/v1/identity_pb.ts';
import type { NodeId } from '../../core/ids.ts';
import { domains, openDelegation, openStatement, parse, type RevocationView } from './certificate.ts';
import type { Verifier } from './keys.ts';
import * as limits from './limits.ts';
import type { Mesh } from './mesh.ts';
import { publicKeyOf } from './peer-id.ts';

export interface Revocations extends RevocationView {
  /** Takes a notice in; false when it is known, no good, or beyond what is kept. */
  add(notice: RevocationNotice): boolean;
  /** Every notice, by revoker and serial. */
  all(): RevocationNotice[];
  /** Equal in two nodes that have heard the same. */
  summary(): string;
  /** Highest serial known of an issuer's revocations. */
  lastSerial(issuer: NodeId): bigint;
  /** Whether a delegation was withdrawn, or its issuer revoked. */
  isDelegationVoid(issuer: NodeId, serial: bigint): boolean;
}

/** A notice that was checked. */
interface Opened {
  readonly revocation: Revocation;
  /** Of the office in which it was made; 0 for the administrator. */
  readonly delegationSerial: bigint;
}

interface Heard extends Opened {
  readonly notice: RevocationNotice;
}

interface Removal {
  readonly throughSerial: bigint;
  readonly kept: ReadonlySet<NodeId>;
  readonly lastRevocation: bigint;
}

export function createRevocations(mesh: Mesh, verifier: Verifier): Revocations {
  /** By revoker, then by the hash of what is signed. */
  const heard = new Map<string, Map<string, Heard>>();
  let revoked = new Set<NodeId>();
  let removals = new Map<NodeId, Removal>();
  /** Few bytes ask for a comparison; it is a hash over everything. */
  let summary: string | undefined;

  function open(notice: RevocationNotice): Opened | undefined {
    const claimed = notice.revocation && parse(RevocationSchema, notice.revocation.payload);
    if (claimed?.meshId !== mesh.id || claimed.what.case === undefined || claimed.serial < 1n) return undefined;
    if (claimed.revoker === '') {
      if (notice.delegation) return undefined;
      const { administratorKey } = mesh;
      const own = openStatement(verifier, administratorKey, domains.revocation, RevocationSchema, notice.revocation);
      return own && { revocation: own, delegationSerial: 0n };
    }
    // Only the administrator takes an issuer's office away.
    if (claimed.what.case === 'issuer' || !publicKeyOf(claimed.what.value)) return undefined;
    // Whoever has that key must stay in the mesh, to remove an issuer that turned bad.
    if (claimed.what.value === mesh.founder) return undefined;
    const delegation = openDelegation(mesh, verifier, notice.delegation);
    if (delegation?.issuer !== claimed.revoker) return undefined;
    const { serial } = delegation;
    const theirs = openStatement(verifier, claimed.revoker, domains.revocation, RevocationSchema, notice.revocation);
    return theirs && { revocation: theirs, delegationSerial: serial };
  }

  /** Derived anew from all notices, so that the order in which they came does not matter. */
  function derive(): void {
    revoked = new Set();
    removals = new Map();
    summary = undefined;
    for (const { revocation } of [...(heard.get('') ?? [])].sort(bySerial).map(([, one]) => one)) {
      if (revocation.what.case !== 'issuer') continue;
      const { peerId, throughSerial, kept, lastRevocation } = revocation.what.value;
      const before = removals.get(peerId);
      if (before && before.throughSerial >= throughSerial) continue;
      removals.set(peerId, { throughSerial, kept: new Set(kept), lastRevocation });
    }
    for (const [revoker, notices] of heard) {
      const last = removals.get(revoker)?.lastRevocation;
      for (const { revocation, delegationSerial } of notices.values()) {
        if (revocation.what.case !== 'peerId') continue;
        const isVoid = delegationSerial <= (removals.get(revoker)?.throughSerial ?? 0n);
        if (last !== undefined && revocation.serial > last && isVoid) continue;
        revoked.add(revocation.what.value);
      }
    }
  }

  function inOrder(): Heard[] {
    return [...heard]
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .flatMap(([, notices]) => [...notices].sort(bySerial).map(([, one]) => one));
  }

  function summarize(): string {
    const hash = createHash('sha256');
    for (const { notice, delegationSerial } of inOrder()) {
      // Not the signatures: who signs the same statement twice would make two sets of one.
      hash.update(notice.revocation?.payload ?? '').update(`${delegationSerial};`);
    }
    return hash.digest('hex').slice(0, 32);
  }

  return {
    add(received) {
      const notice = bare(received);
      if (noticeBytes(notice).byteLength > maxBytesOf(notice)) return false;
      const opened = open(notice);
      if (!opened) return false;
      const { revoker } = opened.revocation;
      const key = createHash('sha256')
        .update(notice.revocation?.payload ?? '')
        .digest('hex');
      const notices = heard.get(revoker) ?? new Map<string, Heard>();
      const before = notices.get(key);
      // The delegation is not part of what the revoker signed; whoever swaps it for an older, void one undoes nothing.
      if (before && before.delegationSerial >= opened.delegationSerial) return false;
      if (!before && notices.size >= limits.revocationsPerRevokerMax) return false;
      if (!heard.has(revoker) && heard.size >= limits.revokersMax) return false;
      heard.set(revoker, notices);
      notices.set(key, { ...opened, notice });
      derive();
      return true;
    },
    all: () => inOrder().map(({ notice }) => notice),
    summary: () => (summary ??= summarize()),
    lastSerial: (issuer) =>
      [...(heard.get(issuer)?.values() ?? [])].reduce(
        (max, { revocation: { serial } }) => (serial > max ? serial : max),
        0n,
      ),
    isRevoked: (peerId) => revoked.has(peerId),
    isDelegationVoid: (issuer, serial) => revoked.has(issuer) || (removals.get(issuer)?.throughSerial ?? 0n) >= serial,
    isIssuerRemoved(issuer, delegationSerial, peerId) {
      const removal = removals.get(issuer);
      if (removal && delegationSerial <= removal.throughSerial) return !removal.kept.has(peerId);
      // Whoever is no member any more cannot make members; only a removal says whom of the former ones to keep.
      return revoked.has(issuer);
    },
  };
}

function bySerial([a, { revocation: one }]: [string, Heard], [b, { revocation: other }]: [string, Heard]): number {
  if (one.serial !== other.serial) return one.serial < other.serial ? -1 : 1;
  return a < b ? -1 : 1;
}

/** Without anything that its signatures do not cover: what is kept and passed on is what was signed. */
function bare({ revocation, delegation }: RevocationNotice): RevocationNotice {
  const envelope = ({ payload, signature }: Signed): Signed => create(SignedSchema, { payload, signature });
  return create(RevocationNoticeSchema, {
    ...(revocation && { revocation: envelope(revocation) }),
    ...(delegation && { delegation: envelope(delegation) }),
  });
}

/** The administrator's name whom to keep; those of issuers, which come with a delegation, name one peer. */
function maxBytesOf({ delegation }: RevocationNotice): number {
  return delegation ? limits.revocationBytesMax : limits.removalBytesMax;
}

/** A notice as bytes, for the wire. */
export function noticeBytes(notice: RevocationNotice): Uint8Array {
  return toBinary(RevocationNoticeSchema, notice);
}
