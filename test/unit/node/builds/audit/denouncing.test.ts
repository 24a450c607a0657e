/** Denouncements between members with real identities: what convinces, and what a member that lies can do with them. */
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { createDenouncing, type Evidence, type Proven, prove } from '../../../../../node/builds/audit/denouncing.ts';
import { denouncementsPerHour } from '../../../../../node/builds/audit/limits.ts';
import { createVouching, type SandboxClass, type VouchingIdentity } from '../../../../../node/peers/vouching.ts';
import type { ActionKey } from '../../../../../node/storage/action-cache.ts';
import {
  type ActionResult,
  ActionResultSchema,
} from '../../../../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { SignedDenouncementSchema } from '../../../../../protos/gen/potluck/mesh/v1/audit_pb.ts';
import type { VouchedResult } from '../../../../../protos/gen/potluck/mesh/v1/results_pb.ts';
import { toWireDigest } from '../../../../../protos/digest.ts';
import { digestOf } from '../../../../../protos/hasher.ts';
import { createRealMesh } from '../../../../support/real-mesh.ts';
import { createTestClock } from '../../../../support/test-clock.ts';

const mesh = createRealMesh();
const otherMesh = createRealMesh();
const clock = createTestClock();
let [anna, ben, cora, dora]: VouchingIdentity[] = [];
let stranger: VouchingIdentity;

beforeAll(async () => {
  for (let at = 0; at < 4; at += 1) [anna, ben, cora, dora] = [ben, cora, dora, (await mesh.join()).identity];
  stranger = (await otherMesh.join()).identity;
});
afterAll(async () => {
  await mesh.close();
  await otherMesh.close();
});

const key: ActionKey = { instance: 'main', action: digestOf('sha256', Buffer.from('the action')) };

function result(text: string, exitCode = 0): ActionResult {
  const digest = toWireDigest(digestOf('sha256', Buffer.from(text)));
  return create(ActionResultSchema, { exitCode, outputFiles: [{ path: 'out', digest }] });
}

function by(
  who: VouchingIdentity | undefined,
  text: string,
  of: ActionKey = key,
  exitCode = 0,
  how: SandboxClass = 'bubblewrap',
): VouchedResult {
  if (!who) throw new Error('not made yet');
  return createVouching(who, 'members').vouch(of, result(text, exitCode), how);
}

/** What `auditor` sends with this evidence. */
async function told(auditor: VouchingIdentity | undefined, evidence: Evidence): Promise<Uint8Array> {
  let sent: Uint8Array | undefined;
  const denouncing = createDenouncing({
    identity: () => auditor,
    trust: 'members',
    ask: async (_, __, body) => void (sent = body),
    clock,
    onProven: () => {},
    onRefused: () => {},
    onLog: () => {},
  });
  await denouncing.tell(evidence, ['somebody']);
  if (!sent) throw new Error('nothing was sent');
  return sent;
}

async function proven(auditor: VouchingIdentity | undefined, evidence: Evidence): Promise<Proven | string> {
  return prove(dora as VouchingIdentity, 'members', await told(auditor, evidence));
}

test('two members who got other outputs convince everybody', async () => {
  const denounced = by(anna, 'forged');
  const evidence: Evidence = { key, denounced, reruns: [by(ben, 'true'), by(cora, 'true')] };
  expect(await proven(ben, evidence)).toMatchObject({
    key,
    auditor: ben?.peerId,
    known: { node: anna?.peerId },
    again: { node: ben?.peerId },
    third: { node: cora?.peerId },
  });
});

test('a false denouncement achieves nothing', async () => {
  const honest = by(anna, 'true');
  const lie = by(ben, 'lie');
  const other: ActionKey = { ...key, action: digestOf('sha256', Buffer.from('another action')) };
  const takesTwo = /it takes two members/;
  const cases: [name: string, evidence: Evidence, why: RegExp][] = [
    ['its own word twice', { key, denounced: honest, reruns: [lie, by(ben, 'lie')] }, takesTwo],
    ['its own word and a run that agrees', { key, denounced: honest, reruns: [lie, by(cora, 'true')] }, takesTwo],
    ['its own word and who made the result', { key, denounced: honest, reruns: [lie, by(anna, 'old')] }, takesTwo],
    ['one word', { key, denounced: honest, reruns: [lie] as never }, takesTwo],
    ['the result of another action', { key, denounced: honest, reruns: [lie, by(cora, 'x', other)] }, /another action/],
    ['a run that failed', { key, denounced: honest, reruns: [lie, by(cora, 'x', key, 1)] }, /did not succeed/],
    ['what a client brought', { key, denounced: honest, reruns: [lie, by(cora, 'x', key, 0, 'upload')] }, /a client/],
    ['a stranger', { key, denounced: honest, reruns: [lie, by(stranger, 'lie')] }, /another mesh|signature/],
    ['nothing', { key: other, denounced: honest, reruns: [lie, lie] }, /no result of that action/],
  ];
  for (const [name, evidence, why] of cases) expect(await proven(ben, evidence), name).toMatch(why);
});

test('a denouncement that was altered, or is of another mesh, is not looked into', async () => {
  const evidence: Evidence = { key, denounced: by(anna, 'forged'), reruns: [by(ben, 'true'), by(cora, 'true')] };
  const signed = fromBinary(SignedDenouncementSchema, await told(ben, evidence));
  const payload = Buffer.from(signed.statement?.payload ?? []);
  payload[payload.length - 1] = (payload.at(-1) ?? 0) ^ 1;
  const altered = { ...signed, statement: { ...signed.statement, payload } } as typeof signed;
  expect(prove(dora as VouchingIdentity, 'members', toBinary(SignedDenouncementSchema, altered))).toMatch(
    /signature|malformed/,
  );
  expect(prove(dora as VouchingIdentity, 'members', await told(stranger, evidence))).toMatch(/another mesh|signature/);
  expect(prove(dora as VouchingIdentity, 'members', Buffer.from('garbage'))).toMatch(/malformed/);
});

test('where only publishers are believed, so are they alone against a result', async () => {
  const evidence: Evidence = { key, denounced: by(anna, 'forged'), reruns: [by(ben, 'true'), by(cora, 'true')] };
  expect(prove(dora as VouchingIdentity, 'publishers', await told(ben, evidence))).toMatch(/not believed/);
});

test('a member that floods others with denouncements is heard so often and no more, and is named when it proves nothing', async () => {
  const taken: Proven[] = [];
  const refused: string[] = [];
  const denouncing = createDenouncing({
    identity: () => dora,
    trust: 'members',
    ask: async () => {},
    clock,
    onProven: (one) => taken.push(one),
    onRefused: (peer, reason) => refused.push(`${peer}: ${reason}`),
    onLog: () => {},
  });
  const body = await told(ben, { key, denounced: by(anna, 'forged'), reruns: [by(ben, 'true'), by(cora, 'true')] });
  for (let at = 0; at < denouncementsPerHour; at += 1) await denouncing.take('ben', body);
  await expect(denouncing.take('ben', body)).rejects.toMatchObject({ code: 'RESOURCE_EXHAUSTED' });
  await denouncing.take('anna', body);
  clock.advance(3_600_000);
  await denouncing.take('ben', body);
  expect(taken).toHaveLength(denouncementsPerHour + 2);
  expect(refused).toEqual([]);
  const lie = await told(ben, { key, denounced: by(anna, 'true'), reruns: [by(ben, 'lie'), by(ben, 'lie')] });
  await expect(denouncing.take('ben', lie)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
  expect(refused).toEqual([expect.stringMatching(/^ben: it takes two members/)]);
  expect(taken).toHaveLength(denouncementsPerHour + 2);
});
