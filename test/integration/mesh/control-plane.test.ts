import { createSocket } from 'node:dgram';
import { readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import type { PeerMessage } from '../../../mesh/core/peer.ts';
import { membershipMs } from '../../../mesh/net/identity/limits.ts';
import { revoke } from '../../../mesh/net/identity/issuer.ts';
import { until } from '../../support/until.ts';
import { createMeeting } from './meeting.ts';

test('three nodes join with tokens, see each other, and find each other again after a restart', async () => {
  await using meeting = createMeeting();
  const anna = await meeting.found('anna');
  const ben = await meeting.joinThrough(anna, 'ben');
  const cora = await meeting.joinThrough(anna, 'cora');
  // Ben was told of Cora by Anna only.
  await until(() => ben.network.connected().includes(cora.peer));
  await until(() => anna.network.connected().length === 2);
  expect(anna.roster.get(cora.peer)?.name).toBe('cora');

  ben.network.send(cora.peer, { kind: 'ping', seq: 7, rumours: [] });
  await until(() => cora.messages.length > 0);
  expect(cora.messages[0]).toEqual({ from: ben.peer, message: { kind: 'ping', seq: 7, rumours: [] } });
  await until(() => ben.network.links.roundTripMs(cora.peer) !== undefined);

  await Promise.all([ben.stop(), cora.stop()]);
  await until(() => anna.network.connected().length === 0);
  // No address is given this time.
  const again = await meeting.start(ben.dataDir);
  await until(() => again.network.connected().includes(anna.peer));
});

test('a revocation closes open connections everywhere', async () => {
  await using meeting = createMeeting();
  const anna = await meeting.found('anna');
  const ben = await meeting.joinThrough(anna, 'ben');
  const cora = await meeting.joinThrough(anna, 'cora');
  await until(() => ben.network.connected().length === 2 && cora.network.connected().length === 2);
  revoke(anna.identity, ben.peer);
  await until(() => ben.network.connected().length === 0);
  expect(cora.identity.isRevoked(ben.peer)).toBe(true);
  expect(cora.network.connected()).toEqual([anna.peer]);
});

/** A free port for multicast, or `undefined` where datagrams to a group do not come back. */
async function multicastPort(): Promise<number | undefined> {
  const socket = createSocket({ type: 'udp4', reuseAddr: true });
  try {
    return await new Promise((resolve) => {
      socket.once('error', () => resolve(undefined));
      socket.once('message', () => resolve(socket.address().port));
      setTimeout(() => resolve(undefined), 1_000);
      socket.bind(0, () => {
        socket.addMembership('224.0.0.251');
        socket.send('x', socket.address().port, '224.0.0.251');
      });
    });
  } finally {
    socket.close();
  }
}

test('members on one network find each other by multicast, without any address', async (context) => {
  const mdnsPort = await multicastPort();
  if (mdnsPort === undefined) return context.skip('multicast does not work on this machine');
  await using meeting = createMeeting();
  const anna = await meeting.found('anna');
  const ben = await meeting.joinThrough(anna, 'ben');
  await Promise.all([anna.stop(), ben.stop()]);
  for (const { dataDir } of [anna, ben]) rmSync(join(dataDir, 'mesh', 'peers.json'), { force: true });
  const [annaAgain, benAgain] = [
    await meeting.start(anna.dataDir, { mdnsPort }),
    await meeting.start(ben.dataDir, { mdnsPort }),
  ];
  await until(() => annaAgain.network.connected().includes(ben.peer));
  expect(benAgain.network.discovered() + annaAgain.network.discovered()).toBeGreaterThan(0);
});

test('a member that nobody has an address of is found through the others', async () => {
  await using meeting = createMeeting();
  const anna = await meeting.found('anna');
  const ben = await meeting.joinThrough(anna, 'ben');
  const cora = await meeting.joinThrough(anna, 'cora');
  await until(() => [...ben.network.contacts()].some(([peer]) => peer === cora.peer));
  await ben.stop();
  // Ben remembers Anna only, and hears of Cora from nobody: what is left is to ask for her.
  const path = join(ben.dataDir, 'mesh', 'peers.json');
  const book = JSON.parse(readFileSync(path, 'utf8')) as Record<string, unknown>;
  expect(Object.keys(book)).toContain(cora.peer);
  rmSync(path);
  const again = await meeting.start(ben.dataDir, { bootstrap: [anna.address] });
  await until(() => {
    again.network.send(cora.peer, { kind: 'ping', seq: 1, rumours: [] });
    return cora.messages.some(({ from }) => from === ben.peer);
  });
});

test('whoever was away hears of a revocation when it is back', async () => {
  await using meeting = createMeeting();
  const anna = await meeting.found('anna');
  const ben = await meeting.joinThrough(anna, 'ben');
  const cora = await meeting.joinThrough(anna, 'cora');
  await until(() => cora.network.connected().length === 2);
  await cora.stop();
  revoke(anna.identity, ben.peer);
  // Cora still knows where Ben is, and that he was a member.
  const again = await meeting.start(cora.dataDir);
  await until(() => again.identity.isRevoked(ben.peer));
  await until(() => !again.network.connected().includes(ben.peer));
  expect(again.network.connected()).toEqual([anna.peer]);
});

test('a membership is renewed from half of its life on, and is cut when it has ended', async () => {
  await using meeting = createMeeting();
  const anna = await meeting.found('anna');
  const ben = await meeting.joinThrough(anna, 'ben');
  await until(() => [...ben.network.contacts()].some(([peer]) => peer === anna.peer));
  const firstEnd = ben.identity.membership().notAfterMs;
  await ben.stop();
  anna.clock.offsetMs = membershipMs * 0.6;
  const again = await meeting.start(ben.dataDir, { offsetMs: membershipMs * 0.6 });
  await until(() => again.identity.membership().notAfterMs > firstEnd);
  await until(() => (anna.roster.get(ben.peer)?.notAfterMs ?? 0) > firstEnd);
  expect(again.identity.membership()).toMatchObject({ roles: ['executor'], name: 'ben' });

  anna.clock.offsetMs = membershipMs * 2;
  anna.network.tend();
  await until(() => anna.network.connected().length === 0);
  expect(anna.log.some((line) => line.includes('membership is over'))).toBe(true);
});

test.each<readonly [string, PeerMessage]>([
  ['about blobs', { kind: 'whoHas', seq: 1, places: [0.5] }],
  ['about registers', { kind: 'lookup', id: 1, shard: 0, keys: [''], fresh: false }],
  ['about shards', { kind: 'askShards', shards: [1_000_000] }],
  ['about claims', { kind: 'renewRequests', requests: new Array(20_000).fill({ shard: 0, request: 'r' }) }],
])('a member that speaks nonsense %s is cut, and the others are not bothered', async (_, nonsense) => {
  await using meeting = createMeeting();
  const anna = await meeting.found('anna');
  const ben = await meeting.joinThrough(anna, 'ben');
  await until(() => anna.network.connected().includes(ben.peer));
  ben.network.send(anna.peer, nonsense);
  await until(() => anna.log.some((line) => line.includes('broke the protocol')));
  expect(anna.messages.some(({ message }) => message.kind === nonsense.kind)).toBe(false);
});

test('a snapshot that is larger than a frame arrives, and what is said after it need not wait', async () => {
  await using meeting = createMeeting();
  const anna = await meeting.found('anna');
  const ben = await meeting.joinThrough(anna, 'ben');
  await until(() => anna.network.connected().includes(ben.peer));
  const tombstone = {
    kind: 'tombstone',
    result: `sha256/${'0'.repeat(64)}/10`,
    reason: 'lost',
    token: undefined,
    writtenAtMs: 1,
    nonDeterministic: false,
  } as const;
  const snapshot = {
    index: 1,
    term: 1,
    configuration: { voters: [`${ben.peer}~1`], learners: [] },
    sizeBytes: 1,
    state: {
      shardMs: 1,
      registers: Array.from({ length: 16_384 }, (_, at) => [`sha256/${'a'.repeat(64)}/${at}/`, tombstone] as const),
      evictedToken: undefined,
      history: 1,
    },
  };
  const message: PeerMessage = {
    kind: 'raft',
    shard: 0,
    generation: { number: 1, hash: 1, forced: false },
    from: `${ben.peer}~1`,
    to: `${anna.peer}~2`,
    message: { kind: 'snapshot', term: 1, snapshot },
  };
  ben.network.send(anna.peer, message);
  ben.network.send(anna.peer, { kind: 'askShards', shards: [1] });
  const heard = (): string[] => anna.messages.map(({ message: { kind } }) => kind);
  await until(() => heard().includes('raft'));
  expect(anna.messages.find(({ message: { kind } }) => kind === 'raft')?.message).toEqual(message);
  expect(heard().indexOf('askShards')).toBeLessThan(heard().indexOf('raft'));
});

test('parcels reach their channel', async () => {
  await using meeting = createMeeting();
  const anna = await meeting.found('anna');
  const ben = await meeting.joinThrough(anna, 'ben');
  const received: unknown[] = [];
  anna.network.onParcel('greetings', (from, body) => received.push([from, Buffer.from(body).toString()]));
  ben.network.sendParcel(anna.peer, 'nobody listens here', Buffer.from('?'));
  ben.network.sendParcel(anna.peer, 'greetings', Buffer.from('hello'));
  await until(() => received.length > 0);
  expect(received).toEqual([[ben.peer, 'hello']]);
});
