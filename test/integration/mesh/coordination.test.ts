/** Shards of members that run the whole peer over real links: who leads them, and what becomes of them. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join as joinPath } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { actionKey } from '../../../mesh/core/ids.ts';
import { shardOf } from '../../../mesh/core/shards/placement.ts';
import { join } from '../../../mesh/net/admission/joining.ts';
import { openIdentity } from '../../../mesh/net/identity/identity.ts';
import { foundMesh, invite } from '../../../mesh/net/identity/issuer.ts';
import type { MeshConfig } from '../../../node/config/config.ts';
import { type ActiveMesh, startActiveMesh } from '../../../node/mesh/active-mesh.ts';
import { coordinationStatusOf } from '../../../node/mesh/coordination-status.ts';
import { createMeshClock } from '../../../node/mesh/clock.ts';
import { openMeshNode } from '../../../node/mesh/mesh-node.ts';
import { until } from '../../support/until.ts';

const dirs: string[] = [];
const awake = new Set<ActiveMesh>();
afterEach(async () => {
  await Promise.all([...awake].map((mesh) => stop(mesh)));
  for (const dir of dirs.splice(0)) rmSync(dir, { recursive: true, force: true });
});

interface Told {
  readonly log: string[];
  readonly lookedUp: Map<number, readonly string[]>;
}

const told = new WeakMap<ActiveMesh, Told>();

function newDir(): string {
  const dir = mkdtempSync(joinPath(tmpdir(), 'potluck-shards-'));
  dirs.push(dir);
  return dir;
}

async function wake(dataDir: string, bootstrap: readonly string[]): Promise<ActiveMesh> {
  const identity = openIdentity({ dataDir });
  if (!identity) throw new Error('no identity');
  const config: MeshConfig = {
    listen: '127.0.0.1:0',
    dataListen: '127.0.0.1:0',
    bootstrap,
    site: '',
    discovery: false,
    trust: 'members',
    uploadBytesPerSecond: undefined,
    replicas: 1,
  };
  const heard: Told = { log: [], lookedUp: new Map() };
  const mesh = await startActiveMesh({
    identity,
    dataDir,
    config,
    clock: createMeshClock(),
    onLog: (_, text) => void heard.log.push(text),
    openTier: async () => ({
      dataAddress: '127.0.0.1:9',
      held: [[blob, 10]],
      capacityBytes: 1e9,
      perform: () => {},
      close: async () => {},
    }),
    openOffloading: async () => ({
      holds: () => [],
      perform(work) {
        if (work.kind === 'lookedUp') {
          heard.lookedUp.set(
            work.lookup,
            work.found.map(({ key }) => key),
          );
        }
      },
      close: async () => {},
    }),
  });
  told.set(mesh, heard);
  awake.add(mesh);
  return mesh;
}

async function stop(mesh: ActiveMesh): Promise<void> {
  if (awake.delete(mesh)) await mesh.close('suspended');
}

/** As a crash looks to the others: its last words and what it would hand over reach nobody. */
async function crash(mesh: ActiveMesh): Promise<void> {
  await mesh.network.close();
  await stop(mesh);
}

const blob = `sha256/${'ab'.repeat(32)}/10`;

/** Members that see one another, and their data directories; the first made the mesh. */
async function members(count: number): Promise<{ meshes: ActiveMesh[]; dataDirs: string[] }> {
  const dataDirs = Array.from({ length: count }, newDir);
  const [first] = dataDirs as [string];
  foundMesh({ dataDir: first, name: 'founder', nowMs: Date.now() });
  const meshes = [await wake(first, [])];
  const [founder] = meshes as [ActiveMesh];
  for (const dataDir of dataDirs.slice(1)) {
    const { secret } = invite(founder.identity, { ttlMs: 60_000, roles: [] });
    await join({ secret, addresses: founder.network.addresses() }, { dataDir, name: 'member' });
    meshes.push(await wake(dataDir, founder.network.addresses()));
  }
  await until(() => meshes.every((mesh) => alive(mesh) === count - 1), 30_000);
  return { meshes, dataDirs };
}

function alive(mesh: ActiveMesh): number {
  return mesh.members().filter(({ status }) => status === 'alive').length;
}

/** Every shard has a leader that these members agree on. */
async function allLed(meshes: readonly ActiveMesh[], voters = 1): Promise<void> {
  await until(() => {
    const ids = new Set(meshes.map(({ identity }) => identity.peerId));
    const statuses = meshes.map((mesh) => coordinationStatusOf(mesh).list);
    const [one = []] = statuses;
    return one.every(({ leader, shard, voters: here }) => {
      const agreed = statuses.every((list) => list[shard]?.leader === leader);
      return leader !== null && ids.has(leader) && agreed && here.length >= voters;
    });
  }, 60_000);
}

let requests = 0;

/** Which of these actions have a result, asked of the leaders. */
async function found(mesh: ActiveMesh, keys: readonly string[]): Promise<readonly string[]> {
  const { lookedUp } = told.get(mesh) as Told;
  const lookup = ++requests;
  mesh.driver.deliver({ kind: 'lookup', lookup, keys });
  await until(() => lookedUp.has(lookup), 30_000);
  return [...(lookedUp.get(lookup) ?? [])].sort();
}

/** Leaders that were just elected may still ask for patience. */
async function allFound(mesh: ActiveMesh, keys: readonly string[]): Promise<void> {
  await until(async () => (await found(mesh, keys)).length === keys.length, 30_000);
}

function keysOfAllShards({ identity }: ActiveMesh): string[] {
  const { shards } = identity.mesh;
  const keys = new Map<number, string>();
  for (let at = 0; keys.size < shards; at++) {
    const key = actionKey('', 'sha256', at.toString(16).padStart(64, '0'), 10);
    if (!keys.has(shardOf(key, shards))) keys.set(shardOf(key, shards), key);
  }
  return [...keys.values()].sort();
}

/** Has a result stored in every shard. */
async function publish(mesh: ActiveMesh): Promise<readonly string[]> {
  const keys = keysOfAllShards(mesh);
  for (const key of keys) mesh.driver.deliver({ kind: 'publish', key, result: blob });
  await allFound(mesh, keys);
  return keys;
}

test('a member alone leads every shard, and two keep them together', async () => {
  const { meshes } = await members(2);
  const [one, two] = meshes as [ActiveMesh, ActiveMesh];
  await allLed(meshes);
  const keys = await publish(two);
  await allFound(one, keys);
  // The one that goes hands over what it has.
  await stop(one);
  await allLed([two]);
  await allFound(two, keys);
  expect(coordinationStatusOf(two)).toMatchObject({ leaderless: 0, formedByForce: 0 });
});

test('shards outlive the member that led them, without a word from it', async () => {
  const { meshes, dataDirs } = await members(3);
  await allLed(meshes, 3);
  const keys = await publish(meshes[1] as ActiveMesh);
  const leads = meshes.map((mesh) => coordinationStatusOf(mesh).led);
  const busiest = leads.indexOf(Math.max(...leads));
  const [leader] = meshes.splice(busiest, 1) as [ActiveMesh];
  await crash(leader);
  await allLed(meshes);
  for (const mesh of meshes) await allFound(mesh, keys);

  const [address] = (meshes[0] as ActiveMesh).network.addresses();
  const back = await wake(dataDirs[busiest] as string, [address as string]);
  meshes.push(back);
  await allLed(meshes);
  await allFound(back, keys);
  expect(coordinationStatusOf(back)).toMatchObject({ formedByForce: 0 });
});

test('the last of three says that it is alone, and all heals when the others are back', async () => {
  const { meshes, dataDirs } = await members(3);
  await allLed(meshes, 3);
  const keys = await publish(meshes[0] as ActiveMesh);
  const [one, two, three] = meshes as [ActiveMesh, ActiveMesh, ActiveMesh];
  await Promise.all([crash(one), crash(two)]);
  await until(() => coordinationStatusOf(three).leaderless > 0, 60_000);

  const bootstrap = three.network.addresses();
  const again = await Promise.all(dataDirs.slice(0, 2).map((dataDir) => wake(dataDir, bootstrap)));
  const all = [...again, three];
  await allLed(all);
  for (const mesh of all) await allFound(mesh, keys);
});

test('what was stored is there after everybody was stopped', async () => {
  const { meshes, dataDirs } = await members(3);
  await allLed(meshes, 3);
  const keys = await publish(meshes[2] as ActiveMesh);
  await Promise.all(meshes.map(crash));
  const first = await wake(dataDirs[0] as string, []);
  const others = await Promise.all(dataDirs.slice(1).map((dataDir) => wake(dataDir, first.network.addresses())));
  await allLed([first, ...others]);
  await allFound(first, keys);
});

test('a log from before there were shards is read, and the node that made the mesh founds them', async () => {
  const { meshes, dataDirs } = await members(1);
  const [one] = meshes as [ActiveMesh];
  await allLed(meshes);
  const before = one.machine.membership.self().incarnation;
  await stop(one);
  const path = joinPath(dataDirs[0] as string, 'mesh', 'peer.log');
  const lines = readFileSync(path, 'utf8').split('\n');
  const older = lines.filter((line) => !line.includes('"of":"coordination"'));
  expect(older.length).toBeLessThan(lines.length);
  writeFileSync(path, older.join('\n'));
  const again = await wake(dataDirs[0] as string, []);
  await allLed([again]);
  expect(again.machine.membership.self().incarnation).toBeGreaterThan(before);
});

test('a node alone in its mesh has no peer, and its shards are its own once it has been invited', async () => {
  const dataDir = newDir();
  foundMesh({ dataDir, name: 'alone', nowMs: Date.now() });
  const options = {
    dataDir,
    config: {
      listen: '127.0.0.1:0',
      dataListen: '127.0.0.1:0',
      bootstrap: [],
      site: '',
      discovery: false,
      trust: 'members',
      uploadBytesPerSecond: undefined,
      replicas: 1,
    } as const,
    onLog: () => {},
  };
  const asleep = await openMeshNode(options);
  expect(asleep.status()).toMatchObject({ state: 'alone', coordination: null });
  await asleep.close();
  const identity = openIdentity({ dataDir });
  if (identity) invite(identity, { ttlMs: 60_000, roles: [] });
  await using parts = new AsyncDisposableStack();
  const node = await openMeshNode(options);
  parts.defer(() => node.close());
  await until(() => node.status().coordination?.leaderless === 0);
  const { shards, led, voting } = node.status().coordination ?? {};
  expect([led, voting]).toEqual([shards, shards]);
});
