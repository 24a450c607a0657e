/** Audits among real nodes: what is planted is found, named, and gone everywhere. */
import { create } from '@bufbuild/protobuf';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { AuditJob, AuditStatus } from '../../../node/builds/audit/auditor.ts';
import { type Digest, digestKey, toWireDigest } from '../../../protos/digest.ts';
import { ActionResultSchema } from '../../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { digestOf } from '../../../protos/hasher.ts';
import { until } from '../../support/until.ts';
import { type Office, type OfficeNode, openOffice } from '../offload/office.ts';

let office: Office;
let anna: OfficeNode;
let ben: OfficeNode;
let cora: OfficeNode;

beforeAll(async () => {
  office = await openOffice({ lends: 1 }, { lends: 1 }, { lends: 1 });
  [anna, ben, cora] = office.nodes as [OfficeNode, OfficeNode, OfficeNode];
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

/** As a member does that wants others to use what it made up. */
async function plantForged(node: OfficeNode, action: Digest, path: string, text: string): Promise<void> {
  const bytes = Buffer.from(text);
  const digest = digestOf('sha256', bytes);
  await node.upload('sha256', [{ digest, bytes }]);
  const actionResult = create(ActionResultSchema, { outputFiles: [{ path, digest: toWireDigest(digest) }] });
  await node.actionCache.updateActionResult({ ...node.request(action), actionResult });
}
