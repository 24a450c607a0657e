/** The commands of the mesh against real nodes, each a process of its own on loopback. */
import { mkdtemp, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { Answers } from '../../../node/mesh/admin-requests.ts';
import type { MeshStatus } from '../../../node/mesh/status.ts';
import { type NodeProcess, startNode } from '../../support/node-process.ts';
import { until } from '../../support/until.ts';
import { potluck } from '../cli/potluck.ts';

let dir: string;
const nodes: NodeProcess[] = [];

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'potluck-commands-'));
});
afterAll(async () => {
  await Promise.all(nodes.map((node) => node.kill()));
  await rm(dir, { recursive: true, force: true });
});

async function up(name: string, ...args: string[]): Promise<NodeProcess> {
  const mesh = ['--mesh-listen', '127.0.0.1:0', '--mesh-discovery', 'off', '--site', `at-${name}`];
  const node = await startNode({
    dataDir: join(dir, name),
    args: ['--slots', '0', '--cache-size', '1GB', ...mesh, ...args],
  });
  nodes.push(node);
  return node;
}

/** Runs a command on the data directory of `name`; `exitCode` and what was said. */
function ask(name: string, ...words: string[]) {
  return potluck([...words, '--data-dir', join(dir, name)]);
}

async function answer<K extends keyof Answers>(name: string, command: K, ...words: string[]): Promise<Answers[K]> {
  const { exitCode, stdout, stderr } = await ask(name, ...command.split(' '), ...words, '--json');
  expect(stderr + String(exitCode)).toBe('0');
  return JSON.parse(stdout) as Answers[K];
}

async function meshOf(node: NodeProcess): Promise<MeshStatus> {
  return (await node.status()).mesh as MeshStatus;
}

test('machines are invited, join, are seen, come back, are revoked and leave', async () => {
  const [anna, ben] = await Promise.all([up('anna'), up('ben')]);
  // Nobody was invited: no port is open, and nothing of a mesh is on disk.
  expect(await meshOf(anna)).toMatchObject({ state: 'alone', meshId: null, addresses: [] });
  await expect(stat(join(dir, 'anna', 'mesh', 'node.key'))).rejects.toThrow('ENOENT');

  const first = await answer('anna', 'invite');
  expect((await stat(join(dir, 'anna', 'mesh', 'node.key'))).mode & 0o777).toBe(0o600);
  expect((await stat(join(dir, 'anna', 'mesh', 'admin.sock'))).mode & 0o777).toBe(0o600);
  const joined = await ask('ben', 'join', first.token, '--name', 'ben');
  expect(joined.stdout).toContain('as executor');
  await until(async () => (await meshOf(ben)).members.alive === 1, 40_000);
  expect(await meshOf(ben)).toMatchObject({ state: 'connected', administrator: false, sites: { 'at-anna': 1 } });

  // Used again, by a node that does not run.
  const again = await ask('cora', 'join', first.token);
  expect(again.exitCode).toBe(1);
  expect(again.stderr).toContain('Invitations are good once');
  const second = await answer('anna', 'invite', '--roles', 'executor,publisher', '--ttl', '5m');
  await answer('cora', 'join', second.short, '--name', 'cora');
  const cora = await up('cora');
  await until(async () => (await meshOf(cora)).members.alive === 2, 40_000);
  await until(async () => (await meshOf(ben)).members.alive === 2, 40_000);

  // After a restart nobody is told an address, and the certificate of a member still counts.
  await ben.stop();
  await until(async () => (await meshOf(anna)).members.suspended === 1, 40_000);
  const benAgain = await up('ben');
  await until(async () => (await meshOf(benAgain)).members.alive === 2, 40_000);

  expect((await ask('ben', 'invite')).stderr).toContain('no issuer');
  await answer('anna', 'issuer add', 'ben');
  await until(async () => (await meshOf(benAgain)).issuer, 40_000);
  await answer('ben', 'invite');

  const { peerId } = await answer('ben', 'revoke', 'cora');
  await until(async () => (await meshOf(cora)).connections === 0, 40_000);
  const { peers } = await answer('anna', 'peers');
  expect(peers.find((peer) => peer.peerId === peerId)).toMatchObject({ connected: false, status: 'revoked' });
  expect((await ask('anna', 'peers')).stdout).toContain('ben');

  expect((await ask('anna', 'leave')).stderr).toContain("administrator's key");
  await answer('ben', 'leave');
  await until(async () => (await meshOf(anna)).members.left === 1, 40_000);
  expect(await meshOf(benAgain)).toMatchObject({ state: 'alone' });
}, 180_000);

test('what is asked wrongly is answered with what to do', async () => {
  for (const [words, hint] of [
    [['join'], 'which invitation'],
    [['join', 'nonsense'], 'this is no invitation'],
    [['join', '0000-0000-0000-0000@127.0.0.1:1'], 'port open in the firewall'],
    [['revoke', 'nobody'], 'in no mesh yet'],
    [['leave'], 'in no mesh yet'],
    [['invite', '--ttl', 'soon'], 'is not a duration'],
    [['invite', '--roles', 'king', '--mesh-listen', '127.0.0.1:9'], 'is no role'],
    [['invite', '--ttl', '30d', '--mesh-listen', '127.0.0.1:9'], 'at most 7 days'],
  ] as const) {
    const { exitCode, stderr } = await ask('nobody', ...words);
    expect(stderr, words.join(' ')).toContain(hint);
    expect(exitCode).not.toBe(0);
    if (words[0] === 'invite') await rm(join(dir, 'nobody'), { recursive: true, force: true });
  }
});
