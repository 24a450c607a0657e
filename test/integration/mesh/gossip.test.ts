/** What members pass on for others: three hosts in a row, over real links. */
import { afterEach, expect, test } from 'vitest';
import { createDoor } from '../../../mesh/net/admission/door.ts';
import { createHost, type Gossip, type Host } from '../../../mesh/net/host/host.ts';
import { createRealMesh } from '../../support/real-mesh.ts';
import { until } from '../../support/until.ts';

const mesh = createRealMesh();
const hosts: Host[] = [];
afterEach(async () => {
  await Promise.all(hosts.splice(0).map((host) => host.stop()));
  await mesh.close();
});

interface Listener {
  readonly host: Host;
  readonly heard: string[];
}

/** Takes what begins with "news" for news, and everything else for junk. */
async function listener(): Promise<Listener> {
  const { identity } = await mesh.join();
  const heard: string[] = [];
  const host = await createHost({
    identity,
    door: createDoor({
      identity,
      onMember: () => {},
      onJoined: () => {},
      onRefused: () => {},
      contacts: () => [],
    }),
    listen: { host: '127.0.0.1', port: 0 },
    mdns: false,
    onConnected: () => {},
    onDisconnected: () => {},
    onDiscovered: () => {},
    onGossip(bytes): Gossip {
      const text = Buffer.from(bytes).toString();
      if (!heard.includes(text)) heard.push(text);
      return text.startsWith('news') ? 'news' : 'junk';
    },
  });
  hosts.push(host);
  await host.start();
  return { host, heard };
}

test('news reaches members that are not neighbours, and junk goes no further than the first', async () => {
  const [from, middle, far] = [await listener(), await listener(), await listener()];
  const [address = ''] = middle.host.addresses();
  for (const { host } of [from, far]) await host.connectTo(address, { signal: AbortSignal.timeout(10_000) });
  // Who gossips with whom is settled once a second.
  let count = 0;
  await until(async () => {
    await from.host.gossip(Buffer.from(`news ${++count}`));
    return far.heard.length > 0;
  });
  const before = far.heard.length;
  await from.host.gossip(Buffer.from('junk'));
  await until(() => middle.heard.includes('junk'));
  await from.host.gossip(Buffer.from('news at last'));
  await until(() => far.heard.includes('news at last'));
  expect(far.heard.slice(before)).not.toContain('junk');
});
