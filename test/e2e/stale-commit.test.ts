/** An executor that lost its claim long ago and wants its result accepted all the same: nobody takes it, and it shows. */
import { expect, test } from 'vitest';
import { shardOf } from '../../mesh/core/shards/placement.ts';
import { createPlatformOffer } from '../../node/execution/platform.ts';
import type { MeshStatus, PeerLine } from '../../node/mesh/status.ts';
import { digestKey, emptyDigest } from '../../protos/digest.ts';
import { shell } from '../support/actions.ts';
import { lends, openMachineMesh } from '../support/mesh.ts';
import { plantMember } from '../support/planted-member.ts';
import { until } from '../support/until.ts';
import { startBuild } from '../support/watched-build.ts';

const lent = { lent: 'yes' };

test('a commit under a claim that somebody else has by now is refused', { timeout: 120_000 }, async () => {
  await using mesh = await openMachineMesh({
    machines: { anna: ['--slots', '1', ...lends(0)], ben: ['--slots', '1', '--platform', 'lent=yes', ...lends(1)] },
    where: 'loopback',
  });
  const [anna, ben] = [mesh.machine('anna'), mesh.machine('ben')];
  await ben.owner('back');
  // It never renews its claim, and does not look at what becomes of it.
  await using planted = await plantMember(anna, {
    slots: 1,
    capabilities: createPlatformOffer([{ name: 'lent', value: 'yes' }]).capabilities,
    says: (message) => message.kind !== 'renewClaims',
    intercepts: (message) => message.kind === 'committed',
  });
  await until(async () => {
    const { peers } = JSON.parse(await anna.potluck('peers', '--json')) as { peers: readonly PeerLine[] };
    return peers.some(({ peerId, guestSlots }) => peerId === planted.peerId && guestSlots > 0);
  });
  using client = anna.client();
  const action = { name: 'claimed-twice', argv: shell('echo right > out'), platform: lent };
  const build = await startBuild(client, [action]);
  await until(() => planted.runs.length === 1);
  await ben.owner('away');
  const [run] = await build.done;
  expect(run).toMatchObject({ code: 'OK', exitCode: 0 });
  expect(run?.worker).toContain(await ben.peerId());

  const [order] = planted.runs;
  if (!order?.token) throw new Error('it was given no claim');
  const { mesh: seen } = (await anna.node().status()) as { mesh: MeshStatus };
  const { shards = 0, list = [] } = seen.coordination ?? {};
  const shard = shardOf(order.key, shards);
  const leader = list.find((one) => one.shard === shard)?.leader;
  if (!leader) throw new Error(`nobody leads shard ${shard}`);
  const result = digestKey(emptyDigest('sha256'));
  const claim = { shard, key: order.key, token: order.token };
  planted.send(leader, { kind: 'commit', claim, result, cacheable: true, promises: [] });
  await until(() => planted.heard.length > 0);
  expect(planted.heard).toMatchObject([{ kind: 'committed', outcome: 'stale' }]);
  const leading = mesh.machines[leader === (await anna.peerId()) ? 0 : 1];
  expect(await leading?.node().metric('potluck_stale_commits_refused_total')).toBe(1);
  expect(await client.known(action)).toEqual(run?.outputs);
});
