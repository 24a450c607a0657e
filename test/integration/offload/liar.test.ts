/** A member that takes actions and hands over what nobody should believe. */
import { create, toBinary } from '@bufbuild/protobuf';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { openIdentity, type Identity } from '../../../mesh/net/identity/identity.ts';
import { type ActiveMesh, startActiveMesh } from '../../../node/mesh/active-mesh.ts';
import { actionOf, blobName } from '../../../node/offload/keys.ts';
import { createPeerTier } from '../../../node/peers/peer-tier.ts';
import { createVouching } from '../../../node/peers/vouching.ts';
import type { ActionKey } from '../../../node/storage/action-cache.ts';
import { openStore } from '../../../node/storage/open-store.ts';
import { ActionResultSchema } from '../../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { type VouchedResult, VouchedResultSchema } from '../../../protos/gen/potluck/mesh/v1/results_pb.ts';
import { digestOf } from '../../../protos/hasher.ts';
import { until } from '../../support/until.ts';
import { type Office, type OfficeNode, openOffice } from './office.ts';

const nothing = create(ActionResultSchema, { exitCode: 0 });
const roomBytes = 10_000_000_000;

/** A member with the real mesh of a node, but results as the test makes them. */
async function plantLiar(office: Office, lie: (key: ActionKey, identity: Identity) => VouchedResult) {
  await using parts = new AsyncDisposableStack();
  const dataDir = await mkdtemp(join(tmpdir(), 'potluck-liar-'));
  parts.defer(() => rm(dataDir, { recursive: true, force: true }));
  const address = await office.admit(dataDir);
  const identity = openIdentity({ dataDir });
  if (!identity) throw new Error('no identity');
  const store = await openStore({ dataDir: join(dataDir, 'store'), sizeLimitBytes: 1024 ** 3, durability: 'fast' });
  parts.defer(() => store.close());
  let mesh: ActiveMesh | undefined;
  const peers = createPeerTier({
    store,
    capacityBytes: roomBytes,
    listen: '127.0.0.1:0',
    members: () => [...(mesh?.machine.membership.members() ?? [])],
    trust: 'members',
    onLog: () => {},
  });
  const opened = await startActiveMesh({
    identity,
    dataDir,
    config: {
      listen: '127.0.0.1:0',
      dataListen: '127.0.0.1:0',
      bootstrap: [address],
      site: 'office',
      discovery: false,
      trust: 'members',
      uploadBytesPerSecond: undefined,
      replicas: 1,
    },
    openTier: (ports) => peers.open(ports),
    openOffloading: async (given) => ({
      holds: () => [],
      perform(work) {
        if (work.kind === 'fetchInputs') given.deliver({ kind: 'inputsFetched', run: work.run, ok: true });
        if (work.kind !== 'run') return;
        const key = actionOf(work.key);
        const bytes = toBinary(VouchedResultSchema, lie(key, identity));
        const digest = digestOf(key.action.fn, bytes);
        void store.blobs.putMany([{ digest, bytes }]).then(() => {
          const outcome = { result: blobName(digest), sizeBytes: digest.sizeBytes, cacheable: true };
          given.deliver({ kind: 'ran', run: work.run, outcome, runMs: 1 });
        });
      },
      close: async () => {},
    }),
    onLog: () => {},
  });
  mesh = opened;
  parts.defer(() => opened.close('left'));
  const capabilities = ['ISA=x86-64', 'ISA=arm-a64', 'OSFamily=linux', 'OSFamily=macos', 'bait=yes'].sort();
  opened.driver.deliver({ kind: 'slots', slots: 4, guests: true, guestSlots: 4, capabilities });
  opened.driver.deliver({ kind: 'owner', present: false });
  const open = parts.move();
  return { peerId: identity.peerId, [Symbol.asyncDispose]: () => open.disposeAsync() };
}

const other: ActionKey = { instance: '', action: digestOf('sha256', Buffer.from('another action')) };

test.each<[string, (key: ActionKey, identity: Identity) => VouchedResult]>([
  ['another action', (_, identity) => createVouching(identity, 'members').vouch(other, nothing, 'bubblewrap')],
  [
    'nobody, whose signature was changed',
    (key, identity) => {
      const vouched = createVouching(identity, 'members').vouch(key, nothing, 'bubblewrap');
      const signature = Buffer.from(vouched.statement?.signature ?? []);
      signature[0] = (signature[0] ?? 0) ^ 1;
      if (vouched.statement) vouched.statement.signature = signature;
      return vouched;
    },
  ],
])('a result that is made for %s is refused, told, and the action runs where it was asked for', async (_, lie) => {
  const platformProperties = [{ name: 'bait', value: 'yes' }];
  await using office = await openOffice({ slots: 1, platformProperties });
  const [anna] = office.nodes as [OfficeNode];
  await using liar = await plantLiar(office, lie);
  await until(() => anna.node.status().mesh?.members.alive === 1);
  const busy = anna.execute(await anna.prepare({ script: 'sleep 2' }));
  await until(() => anna.load().executing === 1);
  const action = await anna.prepare({
    script: 'echo the truth > out',
    command: { outputPaths: ['out'] },
    action: { platform: { properties: platformProperties } },
  });
  const { status, result } = await anna.execute(action).response;
  expect(status?.code).toBe(0);
  expect(await anna.text(result?.outputFiles[0]?.digest)).toBe('the truth\n');
  expect(result?.executionMetadata?.worker).toContain(anna.peerId);
  expect(anna.node.status().offload.lies).toBeGreaterThan(0);
  expect(anna.log.join('\n')).toContain(`${liar.peerId}: its result of action`);
  await busy.response;
});
