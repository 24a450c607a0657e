/** The door under attack: many connections, slow ones, protocols asked for early, and members that want all the room. */
import { statSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { yamux } from '@chainsafe/libp2p-yamux';
import { keys } from '@libp2p/crypto';
import { identify } from '@libp2p/identify';
import { type Libp2p, type MessageStream } from '@libp2p/interface';
import { tcp } from '@libp2p/tcp';
import { tls } from '@libp2p/tls';
import { multiaddr } from '@multiformats/multiaddr';
import { createLibp2p } from 'libp2p';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { createDoor, type Door } from '../../../mesh/net/admission/door.ts';
import { guarded } from '../../../mesh/net/admission/guarded.ts';
import { join } from '../../../mesh/net/admission/joining.ts';
import { admissionMs } from '../../../mesh/net/admission/limits.ts';
import { connectionsPerPeer, inboundPendingPerAddress, inboundUpgradeMs } from '../../../mesh/net/host/limits.ts';
import { type Identity, openIdentity } from '../../../mesh/net/identity/identity.ts';
import { revoke } from '../../../mesh/net/identity/issuer.ts';
import { newKey, openKey, type SigningKey } from '../../../mesh/net/identity/keys.ts';
import { identityPaths } from '../../../mesh/net/identity/state.ts';
import { until } from '../../support/until.ts';
import { type Attendee, createMeeting, type Meeting } from './meeting.ts';

let meeting: Meeting;
let host: Attendee;
const nodes: Libp2p[] = [];
const sockets: Socket[] = [];

beforeAll(async () => {
  meeting = createMeeting();
  host = await meeting.found('host');
});
afterEach(async () => {
  for (const socket of sockets.splice(0)) socket.destroy();
  await Promise.all(nodes.splice(0).map(async (node) => node.stop()));
});
afterAll(() => meeting[Symbol.asyncDispose]());

const trusting: Door = { dialled: async () => {}, accepted: async () => {} };

async function libp2pOf(key: SigningKey, door: Door, listen: readonly string[] = []): Promise<Libp2p> {
  const node = await createLibp2p({
    privateKey: keys.privateKeyFromRaw(Buffer.concat([key.seed(), key.publicKey])),
    addresses: { listen: [...listen] },
    transports: [tcp()],
    connectionEncrypters: [guarded(tls(), door)],
    streamMuxers: [yamux()],
    connectionGater: { denyDialMultiaddr: () => false },
    connectionManager: { addressDialTimeout: 2 * admissionMs },
    connectionMonitor: { enabled: false },
    services: { identify: identify({ protocolPrefix: 'potluck' }) },
  });
  nodes.push(node);
  return node;
}

function toDial(address: string): ReturnType<typeof multiaddr> {
  const [ip, port] = address.split(':');
  return multiaddr(`/ip4/${ip}/tcp/${port}`);
}

/** A bare connection to the host, from an address of this machine. */
async function bareSocket(from: string): Promise<Socket> {
  const socket = connect({ host: '127.0.0.1', port: Number(host.address.split(':')[1]), localAddress: from });
  sockets.push(socket);
  socket.on('error', () => {});
  socket.resume();
  // Refused ones may be reset before they hear that they were connected.
  await new Promise((resolve) => socket.once('connect', resolve).once('close', resolve));
  return socket;
}

async function newMember(): Promise<Identity> {
  const dataDir = meeting.newDir();
  await join(host.token(), { dataDir, name: 'member' });
  const identity = openIdentity({ dataDir });
  if (!identity) throw new Error('no identity');
  return identity;
}

/** Only Linux answers on every address of the loopback network without being told to. */
const onLinux = test.runIf(process.platform === 'linux');

onLinux('of many connections from one address that say nothing the first few wait at the door', async () => {
  const waiting: Socket[] = [];
  for (let i = 0; i < 2 * inboundPendingPerAddress; i++) waiting.push(await bareSocket('127.0.0.3'));
  const [first, later] = [waiting.slice(0, inboundPendingPerAddress), waiting.slice(inboundPendingPerAddress)];
  await until(() => later.every(({ closed }) => closed));
  expect(first.filter(({ closed }) => closed)).toEqual([]);
});

onLinux('a thousand connections from one address keep nobody else out', async () => {
  let opened = 0;
  const flood = async (): Promise<void> => {
    while (opened < 1_000) {
      opened += 1;
      await bareSocket('127.0.0.2');
    }
  };
  const floods = Array.from({ length: 20 }, flood);
  await until(() => opened > 200);
  const member = await meeting.joinThrough(host, 'in spite of it');
  await until(() => host.network.connected().includes(member.peer));
  await Promise.all(floods);
  await until(() => sockets.every(({ closed }) => closed));
  await member.stop();
});

test('bytes that trickle in gain no time, in the clear or encrypted', async () => {
  const startMs = performance.now();
  const hello = Buffer.from('\u0013/multistream/1.0.0\n\u0007/noise\n');
  const socket = await bareSocket('127.0.0.1');
  const closed = new Promise((resolve) => socket.once('close', resolve));
  let at = 0;
  const trickle = setInterval(() => socket.write(hello.subarray(at, ++at)), 400);
  const encrypted = Promise.withResolvers<void>();
  const slowly: Door = {
    ...trusting,
    async dialled(connection: MessageStream) {
      connection.addEventListener('close', () => encrypted.resolve());
      const drip = setInterval(() => connection.send(Uint8Array.of(1)), 400);
      await encrypted.promise;
      clearInterval(drip);
      throw new Error('closed');
    },
  };
  const node = await libp2pOf(newKey(), slowly);
  const dialled = node.dial(toDial(host.address)).catch(() => {});
  await Promise.all([closed, encrypted.promise, dialled]);
  clearInterval(trickle);
  expect(performance.now() - startMs).toBeLessThan(inboundUpgradeMs + admissionMs + 5_000);
});

test('no protocol answers a stranger that asks for it at once', async () => {
  // Agreed on with TLS, the muxer is there for the stranger before the door has spoken.
  const node = await libp2pOf(newKey(), trusting);
  const protocols = [
    '/potluck/control/1.0.0',
    '/potluck/kad/1.0.0',
    '/potluck/ping/1.0.0',
    '/potluck/id/1.0.0',
    '/meshsub/1.2.0',
  ];
  const signal = AbortSignal.timeout(2 * admissionMs);
  const answers = await Promise.all(
    protocols.map((protocol) =>
      node.dialProtocol(toDial(host.address), protocol, { signal }).then(
        () => 'answered',
        () => 'refused',
      ),
    ),
  );
  expect(answers).toEqual(protocols.map(() => 'refused'));
  expect(host.network.connected()).not.toContain(node.peerId.toString());
});

test('a stranger that is dialled is asked for its certificate and told of nothing else', async () => {
  let heardBytes = 0;
  const hello = Promise.withResolvers<void>();
  const listening: Door = {
    ...trusting,
    async accepted(connection) {
      connection.addEventListener('message', ({ data }) => {
        heardBytes += data.byteLength;
        hello.resolve();
      });
      await hello.promise;
      // It claims to have admitted the member, and waits for what comes.
      connection.send(Uint8Array.of(0));
    },
  };
  const stranger = await libp2pOf(newKey(), listening, ['/ip4/127.0.0.1/tcp/0']);
  let identified = 0;
  stranger.addEventListener('peer:identify', () => (identified += 1));
  const [, , , , port] = String(stranger.getMultiaddrs()[0]).split('/');
  const dataDir = meeting.newDir();
  await join(host.token(), { dataDir, name: 'misled' });
  const misled = await meeting.start(dataDir, { bootstrap: [`127.0.0.1:${port}`] });
  await hello.promise;
  await until(() => misled.log.some((line) => line.includes('refused')));
  await until(() => stranger.getConnections().length === 0);
  expect(identified).toBe(0);
  // One frame: the certificate that it shows to whoever it dials.
  expect(heardBytes).toBeLessThan(misled.identity.certificate().byteLength + 16);
  expect(misled.network.connected()).not.toContain(stranger.peerId.toString());
  await misled.stop();
});

test('a member that connects again and again has a few connections, and is still a member', async () => {
  const identity = await newMember();
  const door = createDoor({
    identity,
    onMember: () => {},
    onJoined: () => {},
    onRefused: () => {},
    contacts: () => [],
  });
  const node = await libp2pOf(identity.key, door);
  for (let i = 0; i < 3 * connectionsPerPeer; i++) await node.dial(toDial(host.address), { force: true });
  await until(() => node.getConnections().length <= connectionsPerPeer);
  expect(node.getConnections().length).toBeGreaterThan(0);
  expect(host.network.connected()).toContain(identity.peerId);
});

test('of two who come with one invitation at the same moment one is let in', async () => {
  const token = host.token();
  const outcomes = await Promise.allSettled(
    [1, 2, 3].map((at) => join(token, { dataDir: meeting.newDir(), name: `number ${at}` })),
  );
  expect(outcomes.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected', 'rejected']);
});

test('guesses neither use an invitation up nor write to the disk', async () => {
  const token = host.token();
  const file = identityPaths(host.dataDir).membership;
  const { mtimeMs, ino } = statSync(file);
  const guesses = Array.from({ length: 20 }, (_, at) => ({ ...token, secret: new Uint8Array(10).fill(at) }));
  for (const guess of guesses) {
    await expect(join(guess, { dataDir: meeting.newDir(), name: 'guesser' })).rejects.toThrow(/closed the connection/);
  }
  expect(statSync(file)).toMatchObject({ mtimeMs, ino });
  await join(token, { dataDir: meeting.newDir(), name: 'invited' });
});

test('an invitation does not bring back a key that was revoked, and is still good for another', async () => {
  const dataDir = meeting.newDir();
  const { peerId } = openKey(identityPaths(dataDir).key);
  revoke(host.identity, peerId);
  const token = host.token();
  await expect(join(token, { dataDir, name: 'former' })).rejects.toThrow(/closed the connection/);
  await join(token, { dataDir: meeting.newDir(), name: 'new' });
});
