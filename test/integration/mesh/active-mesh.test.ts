/** Nodes that are awake in one mesh: the machine over real links, its log, and a clock that the test can move. */
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join as joinPath } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import type { MemberStatus } from '../../../mesh/core/membership/records.ts';
import { join } from '../../../mesh/net/admission/joining.ts';
import { openIdentity } from '../../../mesh/net/identity/identity.ts';
import { foundMesh, invite, revoke } from '../../../mesh/net/identity/issuer.ts';
import { newKey } from '../../../mesh/net/identity/keys.ts';
import { recordSigner } from '../../../mesh/net/identity/records.ts';
import { type ActiveMesh, startActiveMesh } from '../../../node/mesh/active-mesh.ts';
import { createMeshClock } from '../../../node/mesh/clock.ts';
import type { MeshConfig } from '../../../node/config/config.ts';
import { openMeshNode } from '../../../node/mesh/mesh-node.ts';
import { readLog } from '../../../node/mesh/durable-log.ts';
import { statusOf } from '../../../node/mesh/status.ts';
import { until } from '../../support/until.ts';

const dirs: string[] = [];
const awake = new Set<ActiveMesh>();
afterEach(async () => {
  await Promise.all([...awake].map((mesh) => stop(mesh)));
  for (const dir of dirs.splice(0)) rmSync(dir, { recursive: true, force: true });
});

function newDir(): string {
  const dir = mkdtempSync(joinPath(tmpdir(), 'potluck-active-'));
  dirs.push(dir);
  return dir;
}

const config: MeshConfig = {
  listen: '127.0.0.1:0',
  dataListen: '127.0.0.1:0',
  bootstrap: [],
  site: 'lab',
  discovery: false,
  trust: 'members',
  uploadBytesPerSecond: undefined,
  replicas: 1,
};

interface Slept {
  ms: number;
}

/** A clock of this machine that believes to have been suspended for as long as the test says. */
function clockWith(slept: Slept) {
  return createMeshClock({
    runningMs: () => performance.now(),
    wallMs: () => Date.now() + slept.ms,
    sinceBootMs: () => performance.now() + slept.ms,
  });
}

async function wake(dataDir: string, bootstrap: readonly string[], slept: Slept = { ms: 0 }): Promise<ActiveMesh> {
  const identity = openIdentity({ dataDir });
  if (!identity) throw new Error('no identity');
  const mesh = await startActiveMesh({
    identity,
    dataDir,
    config: { ...config, bootstrap },
    clock: clockWith(slept),
    onLog: () => {},
  });
  awake.add(mesh);
  return mesh;
}

async function stop(mesh: ActiveMesh, presence: 'suspended' | 'left' = 'suspended'): Promise<void> {
  if (awake.delete(mesh)) await mesh.close(presence);
}

async function twoNodes() {
  const [annaDir, benDir] = [newDir(), newDir()];
  foundMesh({ dataDir: annaDir, name: 'anna', nowMs: Date.now() });
  const anna = await wake(annaDir, []);
  const { secret } = invite(anna.identity, { ttlMs: 60_000, roles: [] });
  await join({ secret, addresses: anna.network.addresses() }, { dataDir: benDir, name: 'ben' });
  const slept = { ms: 0 };
  const ben = await wake(benDir, anna.network.addresses(), slept);
  await until(() => seen(anna, ben) === 'alive' && seen(ben, anna) === 'alive');
  return { anna, ben, benDir, slept };
}

function seen(by: ActiveMesh, who: ActiveMesh): MemberStatus | undefined {
  return by.machine.membership.status(who.identity.peerId);
}

function incarnationOf(by: ActiveMesh, who: ActiveMesh): number {
  return by.machine.membership.get(who.identity.peerId)?.record.incarnation ?? 0;
}

test('two members see each other, and one that stops is away, not suspected', async () => {
  const { anna, ben, benDir } = await twoNodes();
  expect(statusOf(anna)).toMatchObject({
    administrator: true,
    members: { alive: 1 },
    sites: { lab: 1 },
    connections: 1,
  });
  const before = incarnationOf(anna, ben);
  await stop(ben);
  await until(() => seen(anna, ben) === 'suspended');
  // Its next life speaks above the one before, which its log remembers.
  const { records } = readLog(readFileSync(joinPath(benDir, 'mesh', 'peer.log'), 'utf8'));
  expect(records).not.toEqual([]);
  const again = await wake(benDir, anna.network.addresses());
  await until(() => seen(anna, again) === 'alive');
  expect(incarnationOf(anna, again)).toBeGreaterThan(before);
});

test('a machine that slept says so before anything else, and is believed to be there', async () => {
  const { anna, ben, slept } = await twoNodes();
  const before = incarnationOf(anna, ben);
  slept.ms = 8 * 3_600_000;
  await until(() => incarnationOf(anna, ben) > before);
  await until(() => seen(anna, ben) === 'alive' && seen(ben, anna) === 'alive');
});

test('one that leaves has left', async () => {
  const { anna, ben } = await twoNodes();
  await stop(ben, 'left');
  await until(() => seen(anna, ben) === 'left');
});

test('one whose membership is revoked is gone from every view at once, and hears why', async () => {
  const { anna, ben } = await twoNodes();
  revoke(anna.identity, ben.identity.peerId);
  expect(seen(anna, ben)).toBe('dead');
  await until(() => statusOf(ben).revoked);
  await until(() => anna.network.connected().length === 0);
});

test('a mesh whose port is taken costs the node nothing but the mesh, and one process holds it', async () => {
  const taken = createServer().listen(0, '127.0.0.1');
  await once(taken, 'listening');
  const dataDir = newDir();
  foundMesh({ dataDir, name: 'anna', nowMs: Date.now() });
  const identity = openIdentity({ dataDir });
  if (identity) invite(identity, { ttlMs: 60_000, roles: [] });
  const { port } = taken.address() as AddressInfo;
  const log: string[] = [];
  const options = {
    dataDir,
    config: { ...config, listen: `127.0.0.1:${port}` },
    onLog: (_: string, text: string) => void log.push(text),
  };
  const node = await openMeshNode(options);
  expect(node.status()).toMatchObject({ state: 'alone', problem: expect.stringContaining('cannot listen') as string });
  expect(log).toEqual([expect.stringContaining('choose another address with --mesh-listen')]);
  await expect(openMeshNode(options)).rejects.toThrow(/another potluck node/);
  await node.close();
  taken.close();
  const again = await openMeshNode(options);
  expect(again.status()).toMatchObject({ state: 'connected', problem: null, issuer: true });
  await again.close();
});

test('what a member says of keys that have no certificate is not believed', async () => {
  const { anna, ben } = await twoNodes();
  const ghost = newKey();
  const { attributes } = ben.machine.membership.self();
  const record = { id: ghost.peerId, incarnation: 1, presence: 'here', attributes, signature: '' } as const;
  const statement = [anna.identity.mesh.id, ghost.peerId, 1, 'here', ...Object.values(attributes)];
  const signature = ghost.sign('potluck/member-record/1', Buffer.from(JSON.stringify(statement)));
  const signed = { ...record, signature: Buffer.from(signature).toString('base64') };
  // It lacks nothing but a certificate.
  expect(recordSigner(anna.identity, { get: () => anna.identity.membership() }).verify(signed)).toBe(true);
  const rumours = [{ record: signed, verdict: 'here', by: ben.identity.peerId }] as const;
  ben.network.send(anna.identity.peerId, { kind: 'sync', reply: false, rumours });
  let heard = false;
  anna.network.onParcel('after', () => (heard = true));
  ben.network.sendParcel(anna.identity.peerId, 'after', new Uint8Array());
  await until(() => heard);
  expect(anna.members().map((member) => member.record.id)).toEqual([ben.identity.peerId]);
});
