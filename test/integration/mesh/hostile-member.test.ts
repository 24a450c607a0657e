/** A member that keeps to no rule on the control streams: it is cut, or gets no more than its share, and nobody else notices. */
import { yamux } from '@chainsafe/libp2p-yamux';
import { create, toBinary } from '@bufbuild/protobuf';
import { keys } from '@libp2p/crypto';
import { identify } from '@libp2p/identify';
import type { Libp2p, Stream } from '@libp2p/interface';
import { kadDHT, passthroughMapper } from '@libp2p/kad-dht';
import { ping } from '@libp2p/ping';
import { tcp } from '@libp2p/tcp';
import { tls } from '@libp2p/tls';
import { multiaddr } from '@multiformats/multiaddr';
import { createLibp2p } from 'libp2p';
import { CID } from 'multiformats/cid';
import * as Multihash from 'multiformats/hashes/digest';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { createDoor } from '../../../mesh/net/admission/door.ts';
import { guarded } from '../../../mesh/net/admission/guarded.ts';
import { join } from '../../../mesh/net/admission/joining.ts';
import { encodeControl } from '../../../mesh/net/control/codec.ts';
import { bytesWaiting, frameBytesMax, noticesMax, textMax } from '../../../mesh/net/control/limits.ts';
import { controlProtocol } from '../../../mesh/net/control/links.ts';
import { type Identity, openIdentity } from '../../../mesh/net/identity/identity.ts';
import { revoke } from '../../../mesh/net/identity/issuer.ts';
import { newKey } from '../../../mesh/net/identity/keys.ts';
import { ControlSchema } from '../../../protos/gen/potluck/mesh/v1/control_pb.ts';
import { until } from '../../support/until.ts';
import { type Attendee, createMeeting, type Meeting } from './meeting.ts';

let meeting: Meeting;
let host: Attendee;
let witness: Attendee;
const nodes: Libp2p[] = [];

beforeAll(async () => {
  meeting = createMeeting();
  host = await meeting.found('host');
  witness = await meeting.joinThrough(host, 'witness');
  await until(() => host.network.connected().includes(witness.peer));
});
afterEach(async () => {
  await Promise.all(nodes.splice(0).map(async (node) => node.stop()));
});
afterAll(() => meeting[Symbol.asyncDispose]());

interface Liar {
  readonly identity: Identity;
  readonly node: Libp2p<{ kad: ReturnType<ReturnType<typeof kadDHT>> }>;
  readonly stream: () => Promise<Stream>;
}

/** A member with a certificate and a libp2p of its own. */
async function liar(): Promise<Liar> {
  const dataDir = meeting.newDir();
  await join(host.token(), { dataDir, name: 'liar' });
  const identity = openIdentity({ dataDir });
  if (!identity) throw new Error('no identity');
  const silent = (): void => {};
  const door = createDoor({
    identity,
    onMember: silent,
    onJoined: silent,
    onRefused: silent,
    contacts: () => [],
  });
  const node = await createLibp2p({
    privateKey: keys.privateKeyFromRaw(Buffer.concat([identity.key.seed(), identity.key.publicKey])),
    addresses: { listen: ['/ip4/127.0.0.1/tcp/0'] },
    transports: [tcp()],
    connectionEncrypters: [guarded(tls(), door)],
    streamMuxers: [yamux()],
    connectionGater: { denyDialMultiaddr: () => false },
    connectionMonitor: { enabled: false },
    services: {
      identify: identify({ protocolPrefix: 'potluck' }),
      ping: ping({ protocolPrefix: 'potluck' }),
      kad: kadDHT({ protocol: '/potluck/kad/1.0.0', clientMode: false, peerInfoMapper: passthroughMapper }),
    },
  });
  nodes.push(node);
  const [ip, port] = host.address.split(':');
  await node.dial(multiaddr(`/ip4/${ip}/tcp/${port}`));
  await until(() => host.network.connected().includes(identity.peerId));
  const [connection] = node.getConnections();
  if (!connection) throw new Error('not connected');
  return { identity, node, stream: () => connection.newStream(controlProtocol, { maxOutboundStreams: 100 }) };
}

function framed(bytes: Uint8Array): Buffer {
  const header = Buffer.alloc(4);
  header.writeUInt32BE(bytes.byteLength);
  return Buffer.concat([header, bytes]);
}

const header = (size: number): Buffer => framed(new Uint8Array(size)).subarray(0, 4);
const contact = { peerId: 'x', addresses: [] };
const pingOf = (seq: number): Uint8Array => encodeControl({ case: 'swim', value: { kind: 1, seq, rumours: [] } });

describe('is cut for', () => {
  test.each([
    ['a frame longer than any may be', header(frameBytesMax + 1)],
    ['bytes that are no message', framed(Buffer.alloc(100, 0xff))],
    ['a kind of message that there is not', framed(encodeControl({ case: 'swim', value: { kind: 99 as never } }))],
    [
      'a text without end',
      framed(encodeControl({ case: 'swim', value: { kind: 3, seq: 1, target: 'x'.repeat(textMax + 1), rumours: [] } })),
    ],
    ['too many certificates', framed(encodeControl({ case: 'certificates', value: { certificates: many() } }))],
    [
      'too many contacts',
      framed(encodeControl({ case: 'contacts', value: { contacts: Array.from({ length: 1_000 }, () => contact) } })),
    ],
  ])('%s', async (_, bytes) => {
    const { identity, node, stream } = await liar();
    (await stream()).send(bytes);
    await until(() => node.getConnections().length === 0);
    await until(() => !host.network.connected().includes(identity.peerId));
    expect(host.network.connected()).toContain(witness.peer);
    expect(host.log.some((line) => line.includes(`${identity.peerId} broke the protocol`))).toBe(true);
  });

  function many(): Uint8Array[] {
    return Array.from({ length: noticesMax + 1 }, () => Buffer.from('no certificate'));
  }
});

test('what it says comes from it, whatever it says', async () => {
  const { identity, stream } = await liar();
  const one = await stream();
  one.send(framed(pingOf(4_711)));
  await until(() => host.messages.some(({ message }) => 'seq' in message && message.seq === 4_711));
  const from = host.messages
    .filter(({ message }) => 'seq' in message && message.seq === 4_711)
    .map((each) => each.from);
  expect(from).toEqual([identity.peerId]);
});

test('what a newer node may say is passed over', async () => {
  const { identity, stream } = await liar();
  const one = await stream();
  const future = create(ControlSchema);
  future.$unknown = [{ no: 900, wireType: 2, data: Buffer.from([1, 2]) }];
  one.send(framed(toBinary(ControlSchema, future)));
  one.send(framed(pingOf(4_712)));
  await until(() => host.messages.some(({ message }) => 'seq' in message && message.seq === 4_712));
  expect(host.network.connected()).toContain(identity.peerId);
});

test('it has a few streams, not hundreds', async () => {
  const { node, stream } = await liar();
  const streams: Stream[] = [];
  for (let i = 0; i < 30; i++) {
    const one = await stream().catch(() => undefined);
    if (one) streams.push(one);
  }
  await until(() => streams.filter(({ status }) => status === 'open').length <= 4);
  expect(node.getConnections()).toHaveLength(1);
});

test('it reads nothing, and what waits for it is bounded', async () => {
  const { identity, node } = await liar();
  // It takes the stream of the host, and lets it fill up.
  await node.handle(controlProtocol, (stream) => stream.pause(), { maxInboundStreams: 10 });
  const before = host.network.links.dropped();
  const body = new Uint8Array(100_000);
  for (let i = 0; i < (4 * bytesWaiting) / body.byteLength; i++) {
    host.network.sendParcel(identity.peerId, 'nobody', body);
  }
  expect(host.network.links.dropped() - before).toBeGreaterThan(((2 * bytesWaiting) / body.byteLength) | 0);
  host.network.send(witness.peer, { kind: 'ping', seq: 4_713, rumours: [] });
  await until(() => witness.messages.some(({ message }) => 'seq' in message && message.seq === 4_713));
});

test('nothing that it says after it was revoked is heard', async () => {
  const { identity, node, stream } = await liar();
  const one = await stream();
  one.send(framed(pingOf(4_714)));
  await until(() => host.messages.some(({ message }) => 'seq' in message && message.seq === 4_714));
  revoke(host.identity, identity.peerId);
  try {
    one.send(framed(pingOf(4_715)));
  } catch {
    // Closed already.
  }
  await until(() => node.getConnections().length === 0);
  host.network.send(witness.peer, { kind: 'ping', seq: 4_716, rumours: [] });
  await until(() => witness.messages.some(({ message }) => 'seq' in message && message.seq === 4_716));
  expect(host.messages.some(({ message }) => 'seq' in message && message.seq === 4_715)).toBe(false);
});

test('certificates and addresses that it makes up are nobody, and nobody is dialled for them', async () => {
  const { identity, stream } = await liar();
  const ghost = newKey();
  const contacts = [{ peerId: ghost.peerId, addresses: ['127.0.0.1:9'] }];
  const one = await stream();
  one.send(framed(encodeControl({ case: 'certificates', value: { certificates: [identity.certificate()] } })));
  one.send(framed(encodeControl({ case: 'contacts', value: { contacts } })));
  one.send(framed(pingOf(4_717)));
  await until(() => host.messages.some(({ message }) => 'seq' in message && message.seq === 4_717));
  expect([...host.network.contacts()].map(([peer]) => peer)).not.toContain(ghost.peerId);
});

test('records that it hands to Kademlia are kept by nobody', async () => {
  const { node } = await liar();
  const signal = AbortSignal.timeout(20_000);
  const isRouted = ({ services }: typeof node): boolean =>
    (services.kad as unknown as { routingTable: { size: number } }).routingTable.size > 0;
  await until(() => isRouted(node));
  const cid = CID.createV1(0x55, Multihash.create(0x12, new Uint8Array(32)));
  let sent = 0;
  for await (const event of node.services.kad.provide(cid, { signal })) {
    if (event.name === 'SEND_QUERY' && event.messageName === 'ADD_PROVIDER') sent += 1;
  }
  expect(sent).toBeGreaterThan(0);
  const { node: other } = await liar();
  await until(() => isRouted(other));
  // It would tell of itself.
  await node.stop();
  const providers: string[] = [];
  for await (const event of other.services.kad.findProviders(cid, { signal })) {
    if ('providers' in event) providers.push(...event.providers.map(({ id }) => id.toString()));
  }
  expect(providers).toEqual([]);
});
