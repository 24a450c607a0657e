import { expect, test } from 'vitest';
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
  expect(anna.network.certified(cora.peer)?.name).toBe('cora');

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
