/** The commands that show builds, against a real node, as a person or a script runs them. */
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { connectGrpc } from '../../../node/reapi/grpc.ts';
import {
  ActionCache,
  RequestMetadataSchema,
} from '../../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import type { BuildReport, BuildSummary } from '../../../node/builds/records.ts';
import type { TopFrame } from '../../../node/builds/top.ts';
import { type NodeProcess, startNode } from '../../support/node-process.ts';
import { potluck } from '../cli/potluck.ts';

let dir: string;
let node: NodeProcess;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'potluck-builds-'));
  await mkdir(join(dir, 'work'));
  await writeFile(join(dir, 'work', 'in'), 'steady\n');
  node = await startNode({
    dataDir: join(dir, 'data'),
    args: ['--slots', '2', '--mesh', 'off', '--cache-size', '1GB'],
  });
  for (const script of ['cat in > out', 'date +%N > out', 'cat in > out', 'exit 3']) {
    await potluck(['run', '--remote', node.grpc, '--input', 'in', '--output', 'out', '--', 'sh', '-c', script], {
      cwd: join(dir, 'work'),
    });
  }
});
afterAll(async () => {
  await node?.kill();
  await rm(dir, { recursive: true, force: true });
});

function ask(...words: string[]) {
  return potluck([...words, '--http', node.http]);
}

async function json<T>(...words: string[]): Promise<T> {
  const { exitCode, stdout, stderr } = await ask(...words, '--json');
  expect(stderr + String(exitCode)).toBe('0');
  return JSON.parse(stdout) as T;
}

/** Of an action by what its client named it, or by how it ended. */
async function actionOf(outcome: string): Promise<string> {
  const { builds } = await json<{ builds: BuildSummary[] }>('builds');
  const report = await json<BuildReport>('builds', 'show', builds[0]?.id ?? '');
  const found = report.slowest.find((one) => one.outcome === outcome);
  return found?.action ?? '';
}

test('builds are listed and shown, to a person and the same to a program', async () => {
  const { builds } = await json<{ builds: BuildSummary[] }>('builds');
  expect(builds).toHaveLength(1);
  const [build] = builds;
  expect(build).toMatchObject({ active: true, failed: 1 });
  expect(build?.sources).toMatchObject({ 'hit-local': 1, here: 3, peer: 0 });
  const overHttp = await fetch(`http://${node.http}/api/builds`).then((response) => response.json());
  expect(overHttp).toEqual({ builds });
  const table = await ask('builds');
  expect(table.stdout).toContain(build?.id);
  const shown = await ask('builds', 'show', build?.id.slice(0, -4) ?? '');
  expect(shown).toMatchObject({ exitCode: 0, stderr: '' });
  for (const text of ['1 result of this node', '3 here, 0 on peers', 'Slowest:', 'Failed:', 'command-failed']) {
    expect(shown.stdout).toContain(text);
  }
  expect(await ask('builds', 'show', 'nothing-like-it')).toMatchObject({
    exitCode: 1,
    stderr: 'potluck: build "nothing-like-it" is not recorded here; see potluck builds\n',
  });
});

test('an action is explained', async () => {
  const action = await actionOf('command-failed');
  const explained = await ask('explain', action.split('/')[1]?.slice(0, 10) ?? '');
  expect(explained).toMatchObject({ exitCode: 0, stderr: '' });
  expect(explained.stdout).toContain(action);
  expect(explained.stdout).toContain('it ran here; command-failed');
  expect(explained.stdout).toMatch(/\+0 ms +submitted/);
  expect((await ask('explain', 'xyz')).stderr).toContain('is no action');
  expect((await ask('explain')).exitCode).toBe(2);
});

test('an action that differs is named with the byte where it does; a steady one passes', async () => {
  const { builds } = await json<{ builds: BuildSummary[] }>('builds');
  const { slowest } = await json<BuildReport>('builds', 'show', builds[0]?.id ?? '');
  const exits: (number | null)[] = [];
  for (const { action } of slowest.filter(({ outcome }) => outcome === 'succeeded')) {
    const { exitCode, stdout } = await ask('audit', action);
    exits.push(exitCode);
    expect(stdout).toMatch(
      exitCode === 0 ? /the same, bit for bit/ : /out: contents differ[^]*first differing byte: \d/,
    );
  }
  expect(exits.sort((a, b) => Number(a) - Number(b))).toEqual([0, 1]);
  const listed = await ask('audit');
  expect(listed.stdout).toContain('NOT DETERMINISTIC');
  expect(await node.metric('potluck_audits_total', { outcome: 'nonDeterministic' })).toBe(1);
  // Its records of builds do not count what was only run again.
  const after = await json<{ builds: BuildSummary[] }>('builds');
  expect(after.builds[0]?.sources).toEqual(builds[0]?.sources);
});

test('top prints one frame where there is no terminal', async () => {
  const once = await ask('top');
  expect(once).toMatchObject({ exitCode: 0, stderr: '' });
  expect(once.stdout).toContain('0 of 2 busy');
  expect(once.stdout).not.toContain('\x1b');
  expect((await json<TopFrame>('top')).slots).toBe(2);
});

test('a client that only caches has a record under the name that it gives, with its tool', async () => {
  const connection = connectGrpc(node.grpc);
  const metadata = {
    toolInvocationId: 'c0ffee-1',
    correlatedInvocationsId: 'nightly',
    toolDetails: { toolName: 'bazel', toolVersion: '8.4.2' },
    actionMnemonic: 'Genrule',
    targetId: '//:x',
  };
  const { create, toBinary } = await import('@bufbuild/protobuf');
  const header = toBinary(RequestMetadataSchema, create(RequestMetadataSchema, metadata));
  const headers = { 'build.bazel.remote.execution.v2.requestmetadata-bin': header };
  const actionDigest = { hash: 'ab'.repeat(32), sizeBytes: 3n };
  const cache = connection.client(ActionCache);
  await expect(cache.getActionResult({ actionDigest }, { headers } as never)).rejects.toThrow('NOT_FOUND');
  await cache.updateActionResult({ actionDigest, actionResult: { exitCode: 0 } }, { headers } as never);
  await cache.getActionResult({ actionDigest }, { headers } as never);
  connection.close();
  const report = await json<BuildReport>('builds', 'show', 'c0ffee');
  expect(report).toMatchObject({ id: 'c0ffee-1', tool: 'bazel 8.4.2', correlated: 'nightly', misses: 1 });
  expect(report.sources).toMatchObject({ 'hit-local': 1, uploaded: 1 });
});

test('strange requests are refused as everywhere below /api', async () => {
  const get = (path: string, headers: Record<string, string> = {}) => fetch(`http://${node.http}${path}`, { headers });
  expect((await get('/api/builds/%')).status).toBe(400);
  expect((await get('/api/explain/ab')).status).toBe(400);
  expect((await get('/api/nothing')).status).toBe(404);
  expect((await get('/api/builds', { origin: 'http://evil.example' })).status).toBe(403);
  const posted = await fetch(`http://${node.http}/api/builds`, { method: 'POST' });
  expect(posted.status).toBe(405);
  const crossSite = await fetch(`http://${node.http}/api/audit/abcdef`, {
    method: 'POST',
    headers: { 'sec-fetch-site': 'cross-site' },
  });
  expect(crossSite.status).toBe(403);
});
