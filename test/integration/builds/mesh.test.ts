/** Records, audits and drains among real nodes: what is planted is found, named, and gone everywhere. */
import { create } from '@bufbuild/protobuf';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { AuditJob, AuditStatus } from '../../../node/builds/audit/auditor.ts';
import type { BuildReport, BuildSummary, Explanation } from '../../../node/builds/records.ts';
import type { TopFrame } from '../../../node/builds/top.ts';
import { type Digest, digestKey, toWireDigest } from '../../../protos/digest.ts';
import { ActionResultSchema } from '../../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { digestOf } from '../../../protos/hasher.ts';
import { until } from '../../support/until.ts';
import { potluck } from '../cli/potluck.ts';
import { type Office, type OfficeNode, only, openOffice } from '../offload/office.ts';

let office: Office;
let anna: OfficeNode;
let ben: OfficeNode;
let cora: OfficeNode;

beforeAll(async () => {
  office = await openOffice({ lends: 1 }, { lends: 1 }, { lends: 1 });
  [anna, ben, cora] = office.nodes as [OfficeNode, OfficeNode, OfficeNode];
  await until(async () => (await ask<TopFrame>(anna, 'top')).peers.every(({ guestSlots }) => guestSlots > 0));
}, 90_000);
afterAll(() => office?.[Symbol.asyncDispose]());

async function ask<T>(node: OfficeNode, path: string, method = 'GET'): Promise<T> {
  const response = await fetch(`${node.http}/api/${path}`, { method });
  const text = await response.text();
  if (!response.ok) throw new Error(`${response.status} ${text}`);
  return JSON.parse(text) as T;
}

async function audited(node: OfficeNode, action: Digest): Promise<AuditJob> {
  const path = `audit/${encodeURIComponent(digestKey(action))}`;
  let job = await ask<AuditJob>(node, path, 'POST');
  await until(async () => (job = await ask<AuditJob>(node, path)).state !== 'running');
  return job;
}

function isKnown(node: OfficeNode, action: Digest): Promise<boolean> {
  return node.actionCache.getActionResult(node.request(action)).then(
    () => true,
    () => false,
  );
}

test('an action that does not come out the same twice is named, and its result is gone from every member', async () => {
  const script = 'date +%s%N > moment; echo same > steady';
  const action = await anna.prepare({ script, command: { outputPaths: ['moment', 'steady'] } });
  await anna.execute(action).last;
  // Ben has it from anna.
  await until(() => isKnown(ben, action));
  const job = await audited(anna, action);
  expect(job).toMatchObject({ state: 'done', verdict: 'nonDeterministic', error: null });
  const { mismatch } = job;
  expect(mismatch).toMatchObject({ dropped: 'everywhere', toldBy: null });
  expect(new Set([mismatch?.known.node, mismatch?.again.node, mismatch?.third?.node]).size).toBe(3);
  expect(mismatch?.differences.map(({ output }) => output)).toEqual(['moment']);
  expect(mismatch?.differences[0]?.first?.offset).toBeGreaterThan(0);
  for (const other of [ben, cora]) {
    await until(async () => (await ask<AuditStatus>(other, 'audit')).mismatches.length === 1);
    const { mismatches } = await ask<AuditStatus>(other, 'audit');
    expect(mismatches[0]).toMatchObject({ verdict: 'nonDeterministic', toldBy: anna.peerId, dropped: 'everywhere' });
  }
  for (const node of [anna, ben, cora]) expect(await isKnown(node, action)).toBe(false);
  // It is made anew when it is asked for.
  expect((await anna.execute(action).response).cachedResult).toBe(false);
});

test('a result that a member forged is found out, dropped, and its maker avoided', async () => {
  const script = 'echo true > out';
  const action = await anna.prepare({ script, command: { outputPaths: ['out'] } });
  await plantForged(ben, action, 'out', 'forged\n');
  await until(() => isKnown(anna, action));
  const job = await audited(anna, action);
  expect(job).toMatchObject({ state: 'done', verdict: 'wrong' });
  expect(job.mismatch).toMatchObject({ dropped: 'everywhere', known: { node: ben.peerId } });
  expect(job.mismatch?.differences).toMatchObject([{ output: 'out', first: { offset: 0 } }]);
  await until(async () => !(await isKnown(cora, action)) && !(await isKnown(ben, action)));
  const response = await cora.execute(action).response;
  expect(await cora.text(response.result?.outputFiles[0]?.digest)).toBe('true\n');
});

test('a member that leaves in the middle of an audit ends it in good order', async () => {
  const pair = await openOffice({ lends: 0 }, { lends: 1 });
  const [dora, emil] = pair.nodes as [OfficeNode, OfficeNode];
  const action = await dora.prepare({ script: 'sleep 0.5; date +%N > out', command: { outputPaths: ['out'] } });
  await dora.execute(action).last;
  await ask<AuditJob>(dora, `audit/${encodeURIComponent(digestKey(action))}`, 'POST');
  await until(async () => (await ask<TopFrame>(emil, 'top')).guests.length > 0);
  await pair[Symbol.asyncDispose]();
});

test('a good result stays', async () => {
  const action = await anna.prepare({
    script: 'mkdir -p dir/sub; cat in > dir/sub/file; ln -s sub/file dir/link',
    inputs: { in: 'steady' },
    command: { outputPaths: ['dir'] },
  });
  await anna.execute(action).last;
  expect(await audited(anna, action)).toMatchObject({ state: 'done', verdict: 'same', mismatch: null });
  expect(await isKnown(anna, action)).toBe(true);
});

test('what nobody asked for, or has the inputs of, is said', async () => {
  await expect(ask(anna, 'audit/beef00', 'POST')).rejects.toThrow(/404 .*no request/);
  const absent = digestOf('sha256', Buffer.from('absent'));
  expect(await audited(anna, absent)).toMatchObject({ state: 'failed', error: expect.stringContaining('no result') });
});

test('what ran on a member is recorded so, with the way it took', async () => {
  const action = await anna.prepare({
    script: 'sleep 0.3; echo there > out',
    action: only(ben),
    command: { outputPaths: ['out'] },
  });
  await anna.execute(action).last;
  const { requests } = await ask<Explanation>(anna, `explain/${action.hash}`);
  expect(requests).toHaveLength(1);
  expect(requests[0]).toMatchObject({ source: 'peer', node: ben.peerId, outcome: 'succeeded' });
  expect(requests[0]?.token).toMatch(/^\d+\.\d+\.\d+$/);
  expect(requests[0]?.decision?.where).toBe('mesh');
  expect(requests[0]?.runMs).toBeGreaterThanOrEqual(300);
  expect(requests[0]?.history.map(({ what, node }) => [what, node])).toContainEqual(['executing', ben.peerId]);
  const { builds } = await ask<{ builds: BuildSummary[] }>(anna, 'builds');
  const report = await ask<BuildReport>(anna, `builds/${encodeURIComponent(builds[0]?.id ?? '')}`);
  expect(report.nodes.find(({ node }) => node === ben.peerId)?.executed).toBeGreaterThanOrEqual(1);
  expect(report.workElsewhereMs).toBeGreaterThanOrEqual(300);
  const { counts } = await ask<TopFrame>(ben, 'top');
  expect(counts.guests.succeeded).toBeGreaterThanOrEqual(1);
});

test('a member is drained by hand, shown so with the reason, and let back', async () => {
  const command = (...words: string[]) => potluck([...words, '--data-dir', anna.dataDir]);
  const drainedAs = async (): Promise<string | null | undefined> =>
    (await ask<TopFrame>(anna, 'top')).peers.find(({ peerId }) => peerId === ben.peerId)?.drained;
  expect(await command('drain', ben.peerId)).toMatchObject({ exitCode: 0 });
  expect(await drainedAs()).toBe('by hand');
  expect((await command('peers')).stdout).toContain('drained: by hand');
  expect(await command('undrain', ben.peerId)).toMatchObject({ exitCode: 0 });
  expect(await drainedAs()).toBeNull();
  expect((await command('drain', anna.peerId)).stderr).toContain('that is this node');
  expect((await command('drain', 'nobody-of-this-name')).stderr).toContain('is not known here');
});

test('in a mesh of two a node believes what it saw itself, and its clients get what it makes anew', async () => {
  await using pair = await openOffice({ lends: 0 }, { lends: 1 });
  const [dora, emil] = pair.nodes as [OfficeNode, OfficeNode];
  const action = await dora.prepare({ script: 'echo true > out', command: { outputPaths: ['out'] } });
  await plantForged(emil, action, 'out', 'forged\n');
  await until(() => isKnown(dora, action));
  const job = await audited(dora, action);
  expect(job).toMatchObject({ verdict: 'wrong', mismatch: { dropped: 'here' } });
  expect((await ask<AuditStatus>(emil, 'audit')).mismatches).toEqual([]);
  const response = await dora.execute(action).response;
  expect(response.cachedResult).toBe(false);
  expect(await dora.text(response.result?.outputFiles[0]?.digest)).toBe('true\n');
});

/** As a member does that wants others to use what it made up. */
async function plantForged(node: OfficeNode, action: Digest, path: string, text: string): Promise<void> {
  const bytes = Buffer.from(text);
  const digest = digestOf('sha256', bytes);
  await node.upload('sha256', [{ digest, bytes }]);
  const actionResult = create(ActionResultSchema, { outputFiles: [{ path, digest: toWireDigest(digest) }] });
  await node.actionCache.updateActionResult({ ...node.request(action), actionResult });
}
