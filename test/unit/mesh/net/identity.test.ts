import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { keys } from '@libp2p/crypto';
import { peerIdFromPrivateKey, peerIdFromString } from '@libp2p/peer-id';
import fc from 'fast-check';
import { afterEach, describe, expect, test } from 'vitest';
import { certificateBytes } from '../../../../mesh/net/identity/certificate.ts';
import { type Identity, openIdentity } from '../../../../mesh/net/identity/identity.ts';
import { invitationId, longForm, parseToken, prove, shortForm } from '../../../../mesh/net/identity/invitation.ts';
import * as issuing from '../../../../mesh/net/identity/issuer.ts';
import { newKey, openKey } from '../../../../mesh/net/identity/keys.ts';
import * as limits from '../../../../mesh/net/identity/limits.ts';
import { peerIdOf, publicKeyOf } from '../../../../mesh/net/identity/peer-id.ts';
import { recordSigner } from '../../../../mesh/net/identity/records.ts';
import { createRoster } from '../../../../mesh/net/identity/roster.ts';
import { createRevocations } from '../../../../mesh/net/identity/revocations.ts';
import { identityPaths, writeState } from '../../../../mesh/net/identity/state.ts';

const dirs: string[] = [];
afterEach(() => {
  for (const dir of dirs.splice(0)) rmSync(dir, { recursive: true, force: true });
});

function newDir(): string {
  const dir = mkdtempSync(join(tmpdir(), 'potluck-identity-'));
  dirs.push(dir);
  return dir;
}

const startMs = Date.UTC(2026, 5, 1);

/** A mesh of one, with a clock that the test sets. */
function founder(clock = { nowMs: startMs }): { identity: Identity; dataDir: string; clock: { nowMs: number } } {
  const dataDir = newDir();
  issuing.foundMesh({ dataDir, name: 'founder', nowMs: clock.nowMs });
  return { identity: open(dataDir, clock), dataDir, clock };
}

function open(dataDir: string, clock: { readonly nowMs: number }): Identity {
  const identity = openIdentity({ dataDir, nowMs: () => clock.nowMs });
  if (!identity) throw new Error('no identity');
  return identity;
}

function requestOf(secret: Uint8Array, issuer: string, joiner: string) {
  const joining = { issuer, joiner, nonce: randomBytes(16) };
  return { ...joining, invitationId: invitationId(secret), proof: prove(secret, 'join', joining), name: 'joiner' };
}

/** Another node in the founder's mesh. */
function join1(host: Identity, clock: { nowMs: number }): Identity {
  const dataDir = newDir();
  const key = openKey(identityPaths(dataDir).key);
  const { secret } = issuing.invite(host, { ttlMs: 60_000, roles: ['executor'] });
  const admission = issuing.admit(host, requestOf(secret, host.peerId, key.peerId));
  if (!('certificate' in admission)) throw new Error(admission.refused);
  writeState(dataDir, { mesh: host.mesh.bytes, certificate: admission.certificate });
  return open(dataDir, clock);
}

describe('keys and peer ids', () => {
  test('are those of libp2p', () => {
    for (let i = 0; i < 20; i++) {
      const key = newKey();
      const theirs = keys.privateKeyFromRaw(Buffer.concat([key.seed(), key.publicKey]));
      expect(key.peerId).toBe(peerIdFromPrivateKey(theirs).toString());
      expect(publicKeyOf(key.peerId)).toEqual(Buffer.from(key.publicKey));
      expect(peerIdFromString(key.peerId).toString()).toBe(key.peerId);
    }
  });

  test('text that is no peer id has no key', () => {
    fc.assert(fc.property(fc.string(), (text) => publicKeyOf(text) === undefined));
    expect(publicKeyOf(peerIdOf(new Uint8Array(31)))).toBeUndefined();
  });

  test('a key file is private to its owner and never written again', () => {
    const path = identityPaths(newDir()).key;
    const first = openKey(path);
    const bytes = readFileSync(path);
    expect(statSync(path).mode & 0o777).toBe(0o600);
    expect(openKey(path).peerId).toBe(first.peerId);
    expect(readFileSync(path)).toEqual(bytes);
  });

  test('a damaged key file is reported, not replaced', () => {
    const path = identityPaths(newDir()).key;
    openKey(path);
    writeFileSync(path, 'rust');
    expect(() => openKey(path)).toThrow(/holds no Ed25519 key/);
    expect(readFileSync(path, 'utf8')).toBe('rust');
  });
});

describe('tokens', () => {
  const secretOf = fc.uint8Array({ minLength: limits.secretBytes, maxLength: limits.secretBytes });

  test('both forms are read back', () => {
    fc.assert(
      fc.property(secretOf, (secret) => {
        const issuer = newKey().peerId;
        const token = { secret, addresses: ['10.0.0.1:8982'], meshId: 'm', issuer, notAfterMs: 5 };
        const long = parseToken(longForm(token));
        expect({ ...long, secret: [...long.secret] }).toEqual({ ...token, secret: [...secret] });
        const typed = shortForm(secret, '10.0.0.1:8982').toLowerCase().replaceAll('0', 'o').replace('o.o.', '0.0.');
        expect([...parseToken(typed.replace(/@.*/, '@10.0.0.1:8982')).secret]).toEqual([...secret]);
      }),
      { numRuns: 25 },
    );
  });

  test('anything else is refused with a hint', () => {
    for (const text of ['', 'potluck-', 'potluck-AAAA', '1234-1234-1234-123U@h:1', '1234@h:1', 'x@y']) {
      expect(() => parseToken(text)).toThrow(/this is no invitation/);
    }
  });
});

describe('joining', () => {
  test('an invited node becomes a member with the roles of its invitation', () => {
    const { identity, clock } = founder();
    const guest = join1(identity, clock);
    const { member } = identity.verifyMember(guest.peerId, guest.certificate());
    expect(member).toMatchObject({
      peerId: guest.peerId,
      name: 'joiner',
      roles: ['executor'],
      issuer: identity.peerId,
    });
    expect(guest.verifyMember(identity.peerId, identity.certificate()).member?.name).toBe('founder');
  });

  test('a token is good once, also after a restart of its issuer', () => {
    const { identity, dataDir, clock } = founder();
    const { secret } = issuing.invite(identity, { ttlMs: 60_000, roles: [] });
    const request = requestOf(secret, identity.peerId, newKey().peerId);
    expect(issuing.admit(identity, request)).toHaveProperty('certificate');
    expect(issuing.admit(identity, request)).toEqual({ refused: 'the invitation was used before' });
    const other = requestOf(secret, identity.peerId, newKey().peerId);
    expect(issuing.admit(open(dataDir, clock), other)).toEqual({ refused: 'the invitation was used before' });
    expect(readFileSync(identityPaths(dataDir).membership).includes(Buffer.from(secret))).toBe(false);
  });

  test('an expired, unknown or wrongly proven token admits nobody', () => {
    const { identity, clock } = founder();
    const { secret } = issuing.invite(identity, { ttlMs: 60_000, roles: [] });
    const joiner = newKey().peerId;
    const right = requestOf(secret, identity.peerId, joiner);
    expect(issuing.admit(identity, requestOf(randomBytes(10), identity.peerId, joiner))).toEqual({
      refused: 'no such invitation',
    });
    for (const wrong of [
      { ...right, joiner: newKey().peerId },
      { ...right, issuer: newKey().peerId },
      { ...right, nonce: randomBytes(16) },
      { ...right, proof: randomBytes(32) },
      { ...right, proof: new Uint8Array() },
    ]) {
      expect(issuing.admit(identity, wrong)).toEqual({ refused: 'the proof is wrong' });
    }
    clock.nowMs += 60_001;
    expect(issuing.admit(identity, right)).toEqual({ refused: 'the invitation has expired' });
  });

  test('an issuer killed between burning and signing has signed nothing, and the token is gone', () => {
    const { identity, dataDir, clock } = founder();
    const { secret } = issuing.invite(identity, { ttlMs: 60_000, roles: [] });
    const request = requestOf(secret, identity.peerId, newKey().peerId);
    const run = spawnSync(
      process.execPath,
      [fileURLToPath(new URL('killed-issuer.ts', import.meta.url)), dataDir, String(clock.nowMs)],
      {
        input: JSON.stringify(request, (_, value) =>
          value?.type === 'Buffer' ? Buffer.from(value).toString('base64') : value,
        ),
      },
    );
    expect(run.stderr.toString()).toBe('');
    expect(run.signal).toBe('SIGKILL');
    expect(issuing.admit(open(dataDir, clock), request)).toEqual({ refused: 'the invitation was used before' });
  });

  test('a member that is no issuer can neither invite nor revoke', () => {
    const { identity, clock } = founder();
    const guest = join1(identity, clock);
    expect(() => issuing.invite(guest, { ttlMs: 60_000, roles: [] })).toThrow(/no issuer/);
    expect(() => issuing.revoke(guest, identity.peerId)).toThrow(/no issuer/);
    expect(() => issuing.addIssuer(guest, guest.peerId)).toThrow(/administrator's key/);
  });
});

describe('certificates', () => {
  test('hold for their own peer, mesh and time only', () => {
    const { identity, clock } = founder();
    const stranger = founder(clock).identity;
    const guest = join1(identity, clock);
    const bytes = guest.certificate();
    const reasonFor = (peerId: string, certificate: Uint8Array) => identity.verifyMember(peerId, certificate).reason;
    expect(reasonFor(identity.peerId, bytes)).toBe('of another peer');
    expect(reasonFor(stranger.peerId, stranger.certificate())).toBe('foreign mesh');
    expect(reasonFor(guest.peerId, new Uint8Array())).toBe('malformed');
    expect(reasonFor(guest.peerId, new Uint8Array(limits.certificateBytesMax + 1))).toBe('malformed');
    clock.nowMs = startMs + limits.membershipMs + limits.skewMs + 1;
    expect(reasonFor(guest.peerId, bytes)).toBe('expired');
    clock.nowMs = startMs + limits.membershipMs + limits.skewMs;
    expect(reasonFor(guest.peerId, bytes)).toBeUndefined();
    clock.nowMs = startMs - limits.skewMs - 1;
    expect(reasonFor(guest.peerId, bytes)).toBe('not valid yet');
  });

  test('no changed byte passes', () => {
    const { identity, clock } = founder();
    const guest = join1(identity, clock);
    const bytes = guest.certificate();
    for (let at = 0; at < bytes.byteLength; at++) {
      const forged = Uint8Array.from(bytes);
      forged[at] = (forged[at] as number) ^ 1;
      const { member } = identity.verifyMember(guest.peerId, forged);
      expect(member, `byte ${at}`).toBeUndefined();
    }
  });

  test('a member cannot sign for others, nor lengthen its own time', () => {
    const { identity, clock } = founder();
    const guest = join1(identity, clock);
    const forged = issuing.renew({ ...identity, key: guest.key }, guest.membership());
    expect(forged && identity.verifyMember(guest.peerId, certificateBytes(forged)).reason).toBe('forged');
  });

  test('renew from half-life on, with any issuer', () => {
    const { identity, clock } = founder();
    const second = join1(identity, clock);
    issuing.acceptDelegation(second, issuing.addIssuer(identity, second.peerId));
    const guest = join1(identity, clock);
    expect(issuing.isRenewalDue(guest.membership(), clock.nowMs)).toBe(false);
    clock.nowMs += limits.membershipMs / 2;
    expect(issuing.isRenewalDue(guest.membership(), clock.nowMs)).toBe(true);
    const certificate = issuing.renew(second, guest.membership());
    if (!certificate) throw new Error('not renewed');
    expect(issuing.acceptCertificate(guest, certificate, certificateBytes(certificate))).toBe(true);
    expect(issuing.isRenewalDue(guest.membership(), clock.nowMs)).toBe(false);
    expect(identity.verifyMember(guest.peerId, guest.certificate()).member).toMatchObject({
      issuer: second.peerId,
      roles: ['executor'],
    });
    expect(issuing.acceptCertificate(guest, certificate, certificateBytes(certificate))).toBe(false);
  });
});

describe('revocation', () => {
  test('ends a membership everywhere it is heard of, for good, and tells listeners once', () => {
    const { identity, dataDir, clock } = founder();
    const [guest, other] = [join1(identity, clock), join1(identity, clock)];
    let told = 0;
    other.onRevocations(() => (told += 1));
    issuing.revoke(identity, guest.peerId);
    expect(identity.verifyMember(guest.peerId, guest.certificate()).reason).toBe('revoked');
    expect(other.verifyMember(guest.peerId, guest.certificate()).reason).toBeUndefined();
    expect(other.addRevocations(identity.revocations.all())).toHaveLength(1);
    expect(other.addRevocations(identity.revocations.all())).toHaveLength(0);
    expect(told).toBe(1);
    expect(other.isRevoked(guest.peerId)).toBe(true);
    expect(other.revocations.summary()).toBe(identity.revocations.summary());
    expect(open(dataDir, clock).isRevoked(guest.peerId)).toBe(true);
  });

  test('an issuer revokes too; a former member or a stranger does not', () => {
    const { identity, clock } = founder();
    const [second, guest] = [join1(identity, clock), join1(identity, clock)];
    issuing.acceptDelegation(second, issuing.addIssuer(identity, second.peerId));
    issuing.revoke(second, guest.peerId);
    identity.addRevocations(second.revocations.all());
    expect(identity.isRevoked(guest.peerId)).toBe(true);
    const foreign = founder(clock).identity;
    issuing.revoke(foreign, second.peerId);
    expect(identity.addRevocations(foreign.revocations.all())).toHaveLength(0);
    const [notice] = foreign.revocations.all();
    const forged = identity.revocations.all()[0];
    if (!forged || !notice) throw new Error('no notices');
    expect(identity.addRevocations([{ ...forged, revocation: notice.revocation as never }])).toHaveLength(0);
  });

  test('an issuer cannot throw out the node that could remove it', () => {
    const { identity, clock } = founder();
    const second = join1(identity, clock);
    issuing.acceptDelegation(second, issuing.addIssuer(identity, second.peerId));
    expect(() => issuing.revoke(second, identity.peerId)).toThrow(/cannot revoke the node that made the mesh/);
    // Not even one that signs such a revocation all the same.
    const careless = { ...second, mesh: { ...second.mesh, founder: '' } };
    expect(() => issuing.revoke(careless, identity.peerId)).toThrow(/nothing was revoked/);
    expect(second.isRevoked(identity.peerId)).toBe(false);
  });

  test('a removed issuer keeps whom it had admitted, and can admit and revoke nobody new', () => {
    const { identity, clock } = founder();
    const second = join1(identity, clock);
    const delegation = issuing.addIssuer(identity, second.peerId);
    issuing.acceptDelegation(second, delegation);
    const kept = join1(second, clock);
    const [thiefs, victim] = [join1(second, clock), join1(identity, clock)];
    issuing.removeIssuer(identity, second.peerId, [kept.peerId]);
    expect(identity.verifyMember(kept.peerId, kept.certificate()).reason).toBeUndefined();
    expect(identity.verifyMember(thiefs.peerId, thiefs.certificate()).reason).toBe('issuer removed');
    // The thief has not heard of it, and goes on.
    issuing.revoke(second, victim.peerId);
    identity.addRevocations(second.revocations.all());
    expect(identity.isRevoked(victim.peerId)).toBe(false);
    second.addRevocations(identity.revocations.all());
    expect(() => issuing.invite(second, { ttlMs: 1_000, roles: [] })).toThrow(/no issuer/);
    expect(issuing.acceptDelegation(second, delegation)).toBe(false);
    // The office can be given again.
    expect(issuing.acceptDelegation(second, issuing.addIssuer(identity, second.peerId))).toBe(true);
    expect(identity.verifyMember(victim.peerId, victim.certificate()).reason).toBeUndefined();
  });

  test('two nodes agree whatever the order in which they hear', () => {
    const { identity, clock } = founder();
    const second = join1(identity, clock);
    issuing.acceptDelegation(second, issuing.addIssuer(identity, second.peerId));
    issuing.revoke(second, join1(identity, clock).peerId);
    identity.addRevocations(second.revocations.all());
    issuing.removeIssuer(identity, second.peerId, []);
    const late = newKey().peerId;
    issuing.revoke(second, late);
    const notices = [...identity.revocations.all(), ...second.revocations.all()];
    const sets = [notices, notices.toReversed()].map((order) => {
      const set = createRevocations(identity.mesh, identity.verifier);
      for (const notice of order) set.add(notice);
      return set;
    });
    expect(sets[0]?.summary()).toBe(sets[1]?.summary());
    expect(sets.map((set) => set.isRevoked(late))).toEqual([false, false]);
  });
});

test('a record is signed for one mesh, and every field counts', () => {
  const { identity } = founder();
  const attributes = {
    site: 'office',
    subnet: '10.0.0.0/24',
    dataAddress: '10.0.0.1:8983',
    cores: 4,
    memoryBytes: 1,
    power: 'mains',
    wired: true,
    coordinator: 'eligible',
    storeGeneration: 7,
    guestSlots: 0,
    capabilities: [],
  } as const;
  const roster = createRoster(identity);
  const signer = recordSigner(identity, roster);
  const record = signer.sign({ id: identity.peerId, incarnation: 3, presence: 'here', attributes });
  expect(signer.verify(record)).toBe(true);
  expect(signer.verify({ ...record, incarnation: 4 })).toBe(false);
  expect(signer.verify({ ...record, presence: 'left' })).toBe(false);
  for (const field of Object.keys(attributes)) {
    expect(signer.verify({ ...record, attributes: { ...attributes, [field]: 'x' } }), field).toBe(false);
  }
  expect(recordSigner({ ...identity, mesh: { ...identity.mesh, id: 'other' } }, roster).verify(record)).toBe(false);
});

test('a key without a certificate is nobody, whatever it signs, until its certificate is known', () => {
  const { identity, clock } = founder();
  const guest = join1(identity, clock);
  const roster = createRoster(identity);
  const signer = recordSigner(identity, roster);
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
  const record = recordSigner(guest, createRoster(guest)).sign({
    id: guest.peerId,
    incarnation: 1,
    presence: 'here',
    attributes,
  });
  expect(signer.verify(record)).toBe(false);
  expect(roster.learn(guest.certificate())?.name).toBe('joiner');
  expect(roster.learn(guest.certificate())).toBeUndefined();
  expect(signer.verify(record)).toBe(true);
  expect(roster.certificates()).toHaveLength(2);
  expect(roster.learn(founder(clock).identity.certificate())).toBeUndefined();
  issuing.revoke(identity, guest.peerId);
  expect(signer.verify(record)).toBe(false);
  expect(roster.certificates()).toEqual([identity.certificate()]);
  expect(roster.learn(guest.certificate())).toBeUndefined();
});
