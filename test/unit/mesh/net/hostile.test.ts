/** What revoked, removed and lying members can do with certificates and revocations on their own: nothing. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { create, fromBinary } from '@bufbuild/protobuf';
import { afterEach, describe, expect, test } from 'vitest';
import { certificateBytes, domains, printable, signStatement } from '../../../../mesh/net/identity/certificate.ts';
import { type Identity, openIdentity } from '../../../../mesh/net/identity/identity.ts';
import { invitationId, prove } from '../../../../mesh/net/identity/invitation.ts';
import * as issuing from '../../../../mesh/net/identity/issuer.ts';
import { newKey, openKey, type Verifier } from '../../../../mesh/net/identity/keys.ts';
import * as limits from '../../../../mesh/net/identity/limits.ts';
import { recordSigner } from '../../../../mesh/net/identity/records.ts';
import { createRevocations, noticeBytes } from '../../../../mesh/net/identity/revocations.ts';
import { createRoster } from '../../../../mesh/net/identity/roster.ts';
import { identityPaths, writeState } from '../../../../mesh/net/identity/state.ts';
import {
  type RevocationNotice,
  RevocationNoticeSchema,
  RevocationSchema,
  type Signed,
} from '../../../../protos/gen/potluck/mesh/v1/identity_pb.ts';

const dirs: string[] = [];
const startMs = Date.UTC(2026, 5, 1);

afterEach(() => {
  for (const dir of dirs.splice(0)) rmSync(dir, { recursive: true, force: true });
});

function newDir(): string {
  const dir = mkdtempSync(join(tmpdir(), 'potluck-hostile-'));
  dirs.push(dir);
  return dir;
}

function open(dataDir: string): Identity {
  const identity = openIdentity({ dataDir, nowMs: () => startMs });
  if (!identity) throw new Error('no identity');
  return identity;
}

function founder(): { identity: Identity; dataDir: string } {
  const dataDir = newDir();
  issuing.foundMesh({ dataDir, name: 'founder', nowMs: startMs });
  return { identity: open(dataDir), dataDir };
}

function joinThrough(host: Identity, name = 'guest'): Identity {
  const dataDir = newDir();
  const { peerId } = openKey(identityPaths(dataDir).key);
  const { secret } = issuing.invite(host, { ttlMs: 60_000, roles: ['executor'] });
  const joining = { issuer: host.peerId, joiner: peerId, nonce: new Uint8Array(16) };
  const proof = prove(secret, 'join', joining);
  const admission = issuing.admit(host, { ...joining, invitationId: invitationId(secret), proof, name });
  if (!('certificate' in admission)) throw new Error(admission.refused);
  writeState(dataDir, { mesh: host.mesh.bytes, certificate: admission.certificate });
  return open(dataDir);
}

function issuerIn(host: Identity): { issuer: Identity; delegation: Signed } {
  const issuer = joinThrough(host, 'issuer');
  const delegation = issuing.addIssuer(host, issuer.peerId);
  issuing.acceptDelegation(issuer, delegation);
  return { issuer, delegation };
}

/** A revocation as an issuer that keeps to no rule makes it. */
function revocationBy(issuer: Identity, delegation: Signed, serial: bigint, peerId: string): RevocationNotice {
  const revocation = create(RevocationSchema, {
    meshId: issuer.mesh.id,
    serial,
    revoker: issuer.peerId,
    madeMs: BigInt(startMs),
    what: { case: 'peerId', value: peerId },
  });
  return create(RevocationNoticeSchema, {
    revocation: signStatement(issuer.key, domains.revocation, RevocationSchema, revocation),
    delegation,
  });
}

describe('an issuer whose own membership ended', () => {
  test('can make nobody a member any more, whoever revoked it', () => {
    const { identity } = founder();
    const [{ issuer }, { issuer: other }] = [issuerIn(identity), issuerIn(identity)];
    issuing.revoke(other, issuer.peerId);
    identity.addRevocations(other.revocations.all());
    // The thief has heard nothing of that, and goes on.
    const accomplice = joinThrough(issuer, 'accomplice');
    const { member, reason } = identity.verifyMember(accomplice.peerId, accomplice.certificate());
    expect({ member, reason }).toEqual({ member: undefined, reason: 'issuer removed' });
    issuer.addRevocations(other.revocations.all());
    expect(() => issuing.invite(issuer, { ttlMs: 1_000, roles: [] })).toThrow(/no issuer/);
  });

  test('leaves those whom the administrator keeps', () => {
    const { identity } = founder();
    const { issuer } = issuerIn(identity);
    const kept = joinThrough(issuer, 'kept');
    issuing.removeIssuer(identity, issuer.peerId, [kept.peerId]);
    issuing.revoke(identity, issuer.peerId);
    expect(identity.verifyMember(kept.peerId, kept.certificate()).reason).toBeUndefined();
  });

  test('cannot speak of itself through others', () => {
    const { identity } = founder();
    const guest = joinThrough(identity);
    const attributes = {
      site: '',
      subnet: '',
      dataAddress: '',
      cores: 1,
      memoryBytes: 1,
      power: 'mains',
      wired: true,
      coordinator: 'eligible',
      storeGeneration: 1,
      guestSlots: 0,
      capabilities: [],
    } as const;
    const roster = createRoster(identity);
    roster.learn(guest.certificate());
    const record = recordSigner(guest, createRoster(guest)).sign({
      id: guest.peerId,
      incarnation: 1,
      presence: 'here',
      attributes,
    });
    expect(recordSigner(identity, roster).verify(record)).toBe(true);
    issuing.revoke(identity, guest.peerId);
    expect(recordSigner(identity, roster).verify(record)).toBe(false);
  });
});

describe('revocations', () => {
  test('with one number both count, in whatever order they are heard', () => {
    const { identity } = founder();
    const { issuer, delegation } = issuerIn(identity);
    const [ben, cora] = [joinThrough(identity), joinThrough(identity)];
    const two = [ben, cora].map(({ peerId }) => revocationBy(issuer, delegation, 1n, peerId));
    const sets = [two, two.toReversed()].map((order) => {
      const set = createRevocations(identity.mesh, identity.verifier);
      for (const notice of order) expect(set.add(notice)).toBe(true);
      return set;
    });
    for (const set of sets) expect([set.isRevoked(ben.peerId), set.isRevoked(cora.peerId)]).toEqual([true, true]);
    expect(sets[0]?.summary()).toBe(sets[1]?.summary());
  });

  test('cannot be padded by whoever passes them on', () => {
    const { identity } = founder();
    issuing.revoke(identity, joinThrough(identity).peerId);
    const [notice] = identity.revocations.all();
    if (!notice?.revocation) throw new Error('no notice');
    const padding = [{ no: 999, wireType: 2, data: new Uint8Array(100_000) }];
    const padded = fromBinary(RevocationNoticeSchema, noticeBytes(notice));
    padded.$unknown = padding;
    if (padded.revocation) padded.revocation.$unknown = padding;
    expect(noticeBytes(padded).byteLength).toBeGreaterThan(200_000);
    const set = createRevocations(identity.mesh, identity.verifier);
    expect(set.add(padded)).toBe(true);
    expect(set.all().map(noticeBytes)).toEqual([noticeBytes(notice)]);
  });

  test('of an issuer name one peer and are short', () => {
    const { identity } = founder();
    const { issuer, delegation } = issuerIn(identity);
    const set = createRevocations(identity.mesh, identity.verifier);
    expect(set.add(revocationBy(issuer, delegation, 1n, 'x'.repeat(500_000)))).toBe(false);
    expect(set.add(revocationBy(issuer, delegation, 2n, 'nobody'))).toBe(false);
    expect(set.add(revocationBy(issuer, delegation, 3n, newKey().peerId))).toBe(true);
  });

  test('are not undone by wrapping them with a delegation that was withdrawn', () => {
    const { identity } = founder();
    const { issuer, delegation: old } = issuerIn(identity);
    issuing.removeIssuer(identity, issuer.peerId, []);
    const again = issuing.addIssuer(identity, issuer.peerId);
    const victim = newKey().peerId;
    const genuine = revocationBy(issuer, again, 1n, victim);
    const wrapped = create(RevocationNoticeSchema, { ...genuine, delegation: old });
    const [misled, told] = [0, 1].map(() => {
      const set = createRevocations(identity.mesh, identity.verifier);
      for (const notice of identity.revocations.all()) set.add(notice);
      return set;
    });
    misled?.add(wrapped);
    told?.add(genuine);
    expect(misled?.isRevoked(victim)).toBe(false);
    // The two notice that they differ, and the genuine one wins at both.
    expect(misled?.summary()).not.toBe(told?.summary());
    misled?.add(genuine);
    told?.add(wrapped);
    expect([misled?.isRevoked(victim), told?.isRevoked(victim)]).toEqual([true, true]);
    expect(misled?.summary()).toBe(told?.summary());
  });

  test('of a removed issuer cost one check of signatures each, however many it makes', () => {
    const { identity } = founder();
    const { issuer, delegation } = issuerIn(identity);
    issuing.removeIssuer(identity, issuer.peerId, []);
    let checks = 0;
    const counting: Verifier = {
      verify(...args) {
        checks += 1;
        return identity.verifier.verify(...args);
      },
    };
    const set = createRevocations(identity.mesh, counting);
    for (const notice of identity.revocations.all()) set.add(notice);
    const before = checks;
    const victim = newKey().peerId;
    for (let serial = 1n; serial <= 40n; serial++) set.add(revocationBy(issuer, delegation, serial, victim));
    expect(checks - before).toBe(80);
    expect(set.isRevoked(victim)).toBe(false);
  });

  test('that find no room are reported to whoever wants to revoke', () => {
    const { identity } = founder();
    const { issuer, delegation } = issuerIn(identity);
    const victim = newKey().peerId;
    const victims = Array.from({ length: limits.revocationsPerRevokerMax }, (_, at) =>
      revocationBy(issuer, delegation, BigInt(at) + 100n, victim),
    );
    expect(issuer.addRevocations(victims)).toHaveLength(limits.revocationsPerRevokerMax);
    expect(() => issuing.revoke(issuer, newKey().peerId)).toThrow(/nothing was revoked/);
  });

  test('hold at once when the disk is full, and are heard of by those who cut connections', () => {
    const { identity } = founder();
    const guest = joinThrough(identity);
    issuing.revoke(identity, guest.peerId);
    const other = joinThrough(identity, 'other');
    const file = other.file as { update: unknown };
    file.update = () => {
      throw new Error('no space left');
    };
    let told = 0;
    other.onRevocations(() => (told += 1));
    expect(() => other.addRevocations(identity.revocations.all())).toThrow(/no space/);
    expect([told, other.isRevoked(guest.peerId)]).toEqual([1, true]);
  });
});

describe('a name', () => {
  test('says nothing to a terminal', () => {
    expect(printable('\u001b[2Jben\nwarning: all is well\u202e')).toBe('[2Jbenwarning: all is well');
    expect(printable(`${'a'.repeat(limits.nameLengthMax - 1)}😀`)).toHaveLength(limits.nameLengthMax);
    const { identity } = founder();
    const guest = joinThrough(identity, '\u001b]0;owned\u0007ben');
    expect(guest.membership().name).toBe(']0;ownedben');
    // Nor does one that a lying issuer signed.
    const lying = issuing.renew(identity, { ...guest.membership(), name: '\u001b[31mben' });
    const { member } = identity.verifyMember(guest.peerId, lying ? certificateBytes(lying) : new Uint8Array());
    expect(member?.name).toBe('[31mben');
  });
});
