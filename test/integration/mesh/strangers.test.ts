/**
 * Whoever is no member gets nothing from the control plane: no byte inside the encrypted connection, no protocol, no list of
 * peers; the connection is closed. Each stranger here is a libp2p node of its own.
 */
import { noise } from '@chainsafe/libp2p-noise';
import { yamux } from '@chainsafe/libp2p-yamux';
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { keys } from '@libp2p/crypto';
import { identify } from '@libp2p/identify';
import { type ConnectionEncrypter, type Libp2p, type MessageStream, serviceCapabilities } from '@libp2p/interface';
import { tcp } from '@libp2p/tcp';
import { tls } from '@libp2p/tls';
import { multiaddr } from '@multiformats/multiaddr';
import { createLibp2p } from 'libp2p';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { join } from '../../../mesh/net/admission/joining.ts';
import { readFrame, writeFrame } from '../../../mesh/net/admission/framing.ts';
import { admissionMs } from '../../../mesh/net/admission/limits.ts';
import { certificateBytes } from '../../../mesh/net/identity/certificate.ts';
import { prove } from '../../../mesh/net/identity/invitation.ts';
import { addIssuer, foundMesh, renew, revoke } from '../../../mesh/net/identity/issuer.ts';
import { newKey, openKey, type SigningKey } from '../../../mesh/net/identity/keys.ts';
import { membershipMs, skewMs } from '../../../mesh/net/identity/limits.ts';
import { identityPaths, writeState } from '../../../mesh/net/identity/state.ts';
import { openIdentity } from '../../../mesh/net/identity/identity.ts';
import { HelloSchema, type JoinRequest } from '../../../protos/gen/potluck/mesh/v1/admission_pb.ts';
import { CertificateSchema } from '../../../protos/gen/potluck/mesh/v1/identity_pb.ts';
import { until } from '../../support/until.ts';
import { type Attendee, createMeeting, type Meeting } from './meeting.ts';

let meeting: Meeting;
let host: Attendee;
const strangers: Libp2p[] = [];

beforeAll(async () => {
  meeting = createMeeting();
  host = await meeting.found('host');
});
afterEach(async () => {
  await Promise.all(strangers.splice(0).map(async (node) => await node.stop()));
});
afterAll(() => meeting[Symbol.asyncDispose]());

/** What a stranger says on the encrypted connection, and everything that it hears there until the other end closes. */
interface Knock {
  readonly heardBytes: number;
  readonly closed: boolean;
  readonly admitted: boolean;
}

interface Frames {
  write(bytes: Uint8Array): Promise<void>;
  read(): Promise<Uint8Array>;
}

function framesOn(connection: MessageStream): Frames {
  const signal = AbortSignal.timeout(30_000);
  return {
    write: (bytes) => writeFrame(connection, bytes, { signal }),
    read: () => readFrame(connection, { maxBytes: 2 ** 20, signal }),
  };
}

async function knock(
  key: SigningKey,
  say: (frames: Frames, connection: MessageStream) => Promise<void> | void,
  encrypter: 'noise' | 'tls' = 'noise',
): Promise<Knock> {
  let heardBytes = 0;
  const closed = Promise.withResolvers<boolean>();
  const listening = (make: (components: never) => ConnectionEncrypter) => (components: unknown) => {
    const inner = make(components as never);
    return {
      protocol: inner.protocol,
      [serviceCapabilities]: ['@libp2p/connection-encryption'],
      secureInbound: inner.secureInbound.bind(inner),
      async secureOutbound(...args: Parameters<ConnectionEncrypter['secureOutbound']>) {
        const secured = await inner.secureOutbound(...args);
        const { connection } = secured;
        connection.addEventListener('message', ({ data }) => void (heardBytes += data.byteLength));
        connection.addEventListener('close', () => closed.resolve(true));
        await say(framesOn(connection), connection);
        await closed.promise;
        throw new Error('the other end closed the connection');
      },
    } as ConnectionEncrypter;
  };
  const node = await libp2pOf(key, [listening((encrypter === 'noise' ? noise() : tls()) as never)]);
  let admitted = true;
  await node.dial(multiaddr(toDial(host.address))).catch(() => (admitted = false));
  return { heardBytes, closed: await closed.promise, admitted };
}

async function libp2pOf(key: SigningKey, connectionEncrypters: unknown[]): Promise<Libp2p> {
  const node = await createLibp2p({
    privateKey: keys.privateKeyFromRaw(Buffer.concat([key.seed(), key.publicKey])),
    transports: [tcp()],
    connectionEncrypters: connectionEncrypters as never,
    streamMuxers: [yamux()],
    connectionGater: { denyDialMultiaddr: () => false },
    connectionManager: { addressDialTimeout: admissionMs + 5_000 },
    connectionMonitor: { enabled: false },
    services: { identify: identify({ protocolPrefix: 'potluck' }) },
  });
  strangers.push(node);
  return node;
}

function toDial(address: string): string {
  const [ip, port] = address.split(':');
  return `/ip4/${ip}/tcp/${port}`;
}

function memberHello(certificate: Uint8Array): Uint8Array {
  return toBinary(HelloSchema, create(HelloSchema, { kind: { case: 'member', value: { certificate } } }));
}

/** Knocks with a certificate as a member would. */
function knockWith(key: SigningKey, certificate: Uint8Array, encrypter: 'noise' | 'tls' = 'noise'): Promise<Knock> {
  return knock(key, (frames) => frames.write(memberHello(certificate)), encrypter);
}

const nothing = { heardBytes: 0, closed: true, admitted: false };

/** A member of the host's mesh that is not running. */
async function member(): Promise<{ key: SigningKey; certificate: Uint8Array }> {
  const dataDir = meeting.newDir();
  await join(host.token(), { dataDir, name: 'member' });
  const identity = openIdentity({ dataDir });
  if (!identity) throw new Error('no identity');
  return { key: identity.key, certificate: identity.certificate() };
}

test('a member is admitted, so what follows proves something', async () => {
  const { key, certificate } = await member();
  let answered = false;
  const outcome = await knock(key, async (frames, connection) => {
    await frames.write(memberHello(certificate));
    answered =
      host.identity.verifyMember(
        host.peer,
        (fromBinary(HelloSchema, await frames.read()).kind.value as { certificate: Uint8Array }).certificate,
      ).member !== undefined;
    connection.abort(new Error('enough'));
  });
  expect(answered).toBe(true);
  expect(outcome.heardBytes).toBeGreaterThan(0);
});

describe('a stranger hears no byte and is cut off', () => {
  test.for(['noise', 'tls'] as const)('a libp2p node without any membership, over %s', async (encrypter) => {
    const node = await libp2pOf(newKey(), [encrypter === 'noise' ? noise() : tls()]);
    let identified = 0;
    node.addEventListener('peer:identify', () => (identified += 1));
    // Both encrypters agree on the muxer early, so such a node believes to be connected until it is cut off.
    await node.dial(multiaddr(toDial(host.address))).catch(() => {});
    await until(() => node.getConnections().length === 0);
    expect(identified).toBe(0);
    const known = await node.peerStore.all();
    expect(known.flatMap(({ protocols }) => protocols)).toEqual([]);
    expect(known.map(({ id }) => id.toString())).toEqual(known.length > 0 ? [host.peer] : []);
    expect(host.network.connected()).not.toContain(node.peerId.toString());
  });

  test('one that says nothing at all, after the time for admission', async () => {
    expect(await knock(newKey(), () => {})).toEqual(nothing);
  });

  test.for(['noise', 'tls'] as const)('one with the certificate of somebody else, over %s', async (encrypter) => {
    const { certificate } = await member();
    expect(await knockWith(newKey(), certificate, encrypter)).toEqual(nothing);
    expect(await knockWith(newKey(), host.identity.certificate(), encrypter)).toEqual(nothing);
  });

  test('one that was a member until its certificate expired', async () => {
    const { key, certificate } = await member();
    host.clock.offsetMs = membershipMs + skewMs + 60_000;
    expect(await knockWith(key, certificate)).toEqual(nothing);
    host.clock.offsetMs = 0;
    expect(host.log.at(-1)).toContain('expired');
  });

  test('one that was revoked', async () => {
    const { key, certificate } = await member();
    revoke(host.identity, key.peerId);
    expect(await knockWith(key, certificate)).toEqual(nothing);
    expect(host.log.at(-1)).toContain('revoked');
  });

  test('a member of another mesh', async () => {
    const dataDir = meeting.newDir();
    foundMesh({ dataDir, name: 'elsewhere', nowMs: Date.now() });
    const other = openIdentity({ dataDir });
    expect(other && (await knockWith(other.key, other.certificate()))).toEqual(nothing);
    expect(host.log.at(-1)).toContain('foreign mesh');
  });

  test('one that signed its membership itself', async () => {
    const { key, certificate } = await member();
    const forged = renew(
      { ...host.identity, key },
      {
        ...host.identity.membership(),
        peerId: key.peerId,
        roles: ['executor', 'publisher'],
      },
    );
    expect(forged && (await knockWith(key, certificateBytes(forged)))).toEqual(nothing);
    const parts = fromBinary(CertificateSchema, certificate);
    const { delegation } = fromBinary(CertificateSchema, host.identity.certificate());
    if (!parts.membership || !delegation) throw new Error('no parts');
    parts.membership.signature = key.sign('potluck/delegation/1', parts.membership.payload);
    expect(await knockWith(key, toBinary(CertificateSchema, parts))).toEqual(nothing);
  });

  test('one that speaks nonsense, or without end', async () => {
    expect(await knock(newKey(), (frames) => frames.write(Buffer.from('GET / HTTP/1.1\r\n\r\n')))).toEqual(nothing);
    const endless = Buffer.alloc(256 * 1024, 0xff);
    expect(await knock(newKey(), (_, connection) => void connection.send(endless))).toEqual(nothing);
  });
});

describe('an invitation', () => {
  /** Joins by hand, and keeps what was said. */
  async function joinRecording(): Promise<{
    key: SigningKey;
    hello: Uint8Array;
    token: ReturnType<Attendee['token']>;
  }> {
    const token = host.token();
    const dataDir = meeting.newDir();
    const key = openKey(identityPaths(dataDir).key);
    let hello: Uint8Array = new Uint8Array();
    await knock(key, async (frames, connection) => {
      const joining = { issuer: host.peer, joiner: key.peerId, nonce: new Uint8Array(16) };
      const { invitationId } = await import('../../../mesh/net/identity/invitation.ts');
      const value: Partial<JoinRequest> = {
        invitationId: invitationId(token.secret),
        nonce: joining.nonce,
        proof: prove(token.secret, 'join', joining),
        name: 'recorded',
      };
      hello = toBinary(HelloSchema, create(HelloSchema, { kind: { case: 'join', value: value as JoinRequest } }));
      await frames.write(hello);
      await frames.read();
      connection.abort(new Error('enough'));
    });
    return { key, hello, token };
  }

  test('is good once: used again, it brings nothing', async () => {
    const token = host.token();
    await join(token, { dataDir: meeting.newDir(), name: 'first' });
    await expect(join(token, { dataDir: meeting.newDir(), name: 'second' })).rejects.toThrow(/closed the connection/);
    expect(host.log.at(-1)).toContain('used before');
  });

  test('cannot be replayed from a recording, by the same node or another', async () => {
    const { key, hello } = await joinRecording();
    expect(await knock(key, (frames) => frames.write(hello))).toEqual(nothing);
    expect(await knock(newKey(), (frames) => frames.write(hello))).toEqual(nothing);
  });

  test('is not good after its time, nor when it was made up', async () => {
    const token = host.token({ ttlMs: 1 });
    await until(() => Date.now() > (token.notAfterMs ?? 0));
    await expect(join(token, { dataDir: meeting.newDir(), name: 'late' })).rejects.toThrow(/closed the connection/);
    const madeUp = { ...host.token(), secret: new Uint8Array(10) };
    await expect(join(madeUp, { dataDir: meeting.newDir(), name: 'liar' })).rejects.toThrow(/closed the connection/);
  });

  test('in its short form is enough, and names the right mesh', async () => {
    const { secret, addresses } = host.token();
    const joined = await join({ secret, addresses }, { dataDir: meeting.newDir(), name: 'typed' });
    expect(joined.meshId).toBe(host.identity.mesh.id);
  });

  test('gives its secret to nobody: who does not know it cannot pose as the issuer', async () => {
    const impostor = await meeting.found('impostor');
    const { secret } = host.token();
    const token = { secret, addresses: [impostor.address] };
    await expect(join(token, { dataDir: meeting.newDir(), name: 'misled' })).rejects.toThrow(/not joined/);
    // The long form does not even get that far.
    const long = { ...host.token(), addresses: [impostor.address] };
    await expect(join(long, { dataDir: meeting.newDir(), name: 'careful' })).rejects.toThrow(/not joined/);
    await impostor.stop();
  });
});

test('a member does not talk to a host that is no member of its mesh', async () => {
  const dataDir = meeting.newDir();
  const key = openKey(identityPaths(dataDir).key);
  const certificate = renew(host.identity, { ...host.identity.membership(), peerId: key.peerId });
  if (!certificate) throw new Error('not issued');
  writeState(dataDir, { mesh: host.identity.mesh.bytes, certificate });
  const impostor = await meeting.found('impostor');
  const lost = await meeting.start(dataDir, { bootstrap: [impostor.address] });
  await until(() => impostor.log.some((line) => line.includes('foreign mesh')));
  expect(lost.network.connected()).toEqual([]);
  expect(impostor.network.connected()).toEqual([]);
});

test('an issuer that was made one over the network can invite', async () => {
  const second = await meeting.joinThrough(host, 'second');
  await until(() => host.network.connected().includes(second.peer));
  expect(() => second.token()).toThrow(/no issuer/);
  addIssuer(host.identity, second.peer);
  host.network.deliverDelegations();
  await until(() => second.log.some((line) => line.includes('issuer now')));
  const third = await meeting.joinThrough(second, 'third');
  await until(() => third.network.connected().length === 2);
});
