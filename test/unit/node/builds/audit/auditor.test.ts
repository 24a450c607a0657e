/** The auditor with runs that a test makes up: when it runs something again, and what follows. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { create } from '@bufbuild/protobuf';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { type Auditor, createAuditor, type Dropped } from '../../../../../node/builds/audit/auditor.ts';
import { withoutDropped } from '../../../../../node/builds/audit/dropping.ts';
import { openLedger } from '../../../../../node/builds/audit/ledger.ts';
import {
  auditedForMs,
  auditsPerHour,
  elsewherePauseMs,
  elsewhereTries,
  idlePollMs,
  waitingMax,
} from '../../../../../node/builds/audit/limits.ts';
import type { Reexecute } from '../../../../../node/builds/audit/reexecute.ts';
import type { BlobReader, BlobStore } from '../../../../../node/storage/blob-store.ts';
import { type Digest, digestKey, toWireDigest } from '../../../../../protos/digest.ts';
import {
  type ActionResult,
  ActionResultSchema,
} from '../../../../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { digestOf } from '../../../../../protos/hasher.ts';
import { StatusError } from '../../../../../protos/status.ts';
import { createTestClock } from '../../../../support/test-clock.ts';
import { until } from '../../../../support/until.ts';

let dir: string;
let clock: ReturnType<typeof createTestClock>;
let auditor: Auditor | undefined;
/** What the next re-executions give, and whom they were told to avoid. */
let outcomes: (ActionResult | Error)[];
let avoided: (readonly string[])[];
let dropped: Dropped[];
let isIdle: boolean;
let others: string[];

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'potluck-audit-'));
  clock = createTestClock();
  [outcomes, avoided, dropped, isIdle, others] = [[], [], [], true, []];
});
afterEach(async () => {
  await auditor?.close();
  await rm(dir, { recursive: true });
});

const held = new Map<string, Uint8Array>();
const blobs: Pick<BlobStore, 'get' | 'open'> = {
  get: async (digest) => held.get(digestKey(digest)),
  async open(digest): Promise<BlobReader | undefined> {
    const bytes = held.get(digestKey(digest));
    if (!bytes) return undefined;
    return {
      digest,
      async *read({ offset, length } = { offset: 0, length: bytes.byteLength }) {
        yield bytes.subarray(offset, offset + length);
      },
      [Symbol.asyncDispose]: async () => {},
    };
  },
};

function resultOf(text: string, exitCode = 0): ActionResult {
  const bytes = Buffer.from(text);
  const digest = digestOf('sha256', bytes);
  held.set(digestKey(digest), bytes);
  const outputFiles = [{ path: 'out', digest: toWireDigest(digest) }];
  return create(ActionResultSchema, { exitCode, outputFiles, executionMetadata: { worker: 'this machine' } });
}

const ledger = () => openLedger(join(dir, 'audit.jsonl'), (reason) => expect.fail(reason));

function given(percent = 100, known: ActionResult | undefined = resultOf('known')): Auditor {
  const reexecute: Reexecute = async (_, { avoid }) => {
    avoided.push(avoid);
    const outcome = outcomes.shift() ?? new StatusError('UNAVAILABLE', 'nobody runs it');
    if (outcome instanceof Error) throw outcome;
    return { result: outcome, vouched: undefined };
  };
  auditor = createAuditor({
    percent,
    clock,
    random: () => 0.5,
    self: () => 'me',
    others: () => others,
    known: async () => known && { result: known, vouched: undefined },
    reexecute,
    blobs,
    ledger: ledger(),
    isIdle: () => isIdle,
    onEvidence: () => expect.fail('there was no evidence for others'),
    onDropped: (one) => void dropped.push(one),
    onLog: () => {},
  });
  return auditor;
}

function hit(text = 'x'): { action: Digest; instance: string; mnemonic: string; target: string } {
  return { action: digestOf('sha256', Buffer.from(text)), instance: '', mnemonic: 'Genrule', target: '//:x' };
}

test('a hit is audited once this node is idle, and not again for a day', async () => {
  const subject = given();
  isIdle = false;
  outcomes = [resultOf('known')];
  subject.onHit(hit());
  clock.advance(idlePollMs);
  expect(avoided).toEqual([]);
  isIdle = true;
  clock.advance(idlePollMs);
  await until(() => subject.status().audits.same === 1);
  expect(avoided).toEqual([['me']]);
  subject.onHit(hit());
  clock.advance(idlePollMs);
  expect(subject.status().waiting).toBe(0);
  clock.advance(auditedForMs);
  subject.onHit(hit());
  expect(subject.status().waiting).toBe(1);
});

test('a result whose outputs cannot be looked at is judged all the same', async () => {
  const known = resultOf('nobody has it');
  held.clear();
  const subject = given(0, known);
  outcomes = [resultOf('true'), resultOf('true')];
  subject.begin(hit());
  await until(() => subject.job(hit())?.state === 'done');
  expect(subject.job(hit())?.mismatch?.differences[0]?.what).toMatch(/could not be compared/);
  expect(dropped).toHaveLength(1);
});

test('the share of hits is as configured; a flood of hits is bounded', () => {
  const few = given(49);
  few.onHit(hit());
  expect(few.status().waiting).toBe(0);
  const all = given(51);
  isIdle = false;
  for (let at = 0; at < waitingMax + 50; at += 1) all.onHit(hit(`${at}`));
  expect(all.status().waiting).toBe(waitingMax);
});

test('no more than so many audits begin within an hour', async () => {
  const subject = given();
  for (let at = 0; at < auditsPerHour + 5; at += 1) {
    outcomes = [resultOf('known')];
    subject.onHit(hit(`${at}`));
    clock.advance(idlePollMs);
    if (at < auditsPerHour) await until(() => subject.status().audits.same === at + 1);
  }
  expect(subject.status()).toMatchObject({ audits: { same: auditsPerHour }, waiting: 5 });
});

test('an action that does not come out the same twice is named, with what differs, and its result is gone for good', async () => {
  const known = resultOf('built at 12:00');
  const subject = given(0, known);
  outcomes = [resultOf('built at 13:00'), resultOf('built at 14:00')];
  subject.begin(hit());
  await until(() => subject.job(hit())?.state === 'done');
  const [mismatch] = subject.status().mismatches;
  expect(mismatch).toMatchObject({ verdict: 'nonDeterministic', dropped: 'here', mnemonic: 'Genrule', target: '//:x' });
  expect(mismatch?.differences).toMatchObject([{ output: 'out', first: { offset: 10 } }]);
  expect(dropped).toMatchObject([{ reason: 'nonDeterministic' }]);
  await subject.close();

  // It is known to differ, and not sampled again.
  const restarted = given(100);
  restarted.onHit(hit());
  expect(restarted.status().waiting).toBe(0);

  // Also after a restart, and though somebody brings it back; another result may take its place.
  const kept = new Map<string, ActionResult>();
  const inner = {
    get: async () => kept.get('it'),
    put: async (_: unknown, result: ActionResult) => void kept.set('it', result),
  };
  const cache = withoutDropped(inner, ledger());
  await cache.put(hit(), known);
  expect(kept.size).toBe(0);
  kept.set('it', known);
  expect(await cache.get(hit())).toBeUndefined();
  await cache.put(hit(), resultOf('another'));
  expect(await cache.get(hit())).toBeDefined();
  expect(ledger().mismatches()).toEqual([mismatch]);
});

test('what a client brought and nobody can confirm is told, and stays', async () => {
  const uploaded = { ...resultOf('known'), executionMetadata: undefined } as unknown as ActionResult;
  const subject = given(0, uploaded);
  outcomes = [resultOf('otherwise'), new StatusError('UNAVAILABLE', 'nobody is there')];
  subject.begin(hit());
  await until(() => subject.job(hit())?.state === 'done');
  expect(subject.job(hit())).toMatchObject({ verdict: 'unconfirmed', mismatch: { dropped: 'no', third: null } });
  expect(dropped).toEqual([]);
});

test('a run that fails says nothing about the result', async () => {
  const subject = given(0);
  outcomes = [resultOf('half done', 1)];
  subject.begin(hit());
  await until(() => subject.job(hit())?.state === 'done');
  expect(avoided).toHaveLength(1);
  expect(subject.status().audits).toMatchObject({ wrong: 0, nonDeterministic: 0 });
  expect(subject.status().mismatches[0]?.differences[0]).toMatchObject({ output: 'exit code', what: '0, then 1' });
});

test('what cannot be run again is said, and counts as nothing', async () => {
  const subject = given(0);
  outcomes = [new StatusError('FAILED_PRECONDITION', 'inputs are gone')];
  subject.begin(hit());
  await until(() => subject.job(hit())?.state === 'failed');
  expect(subject.job(hit())).toMatchObject({ error: 'inputs are gone', verdict: null });
  expect(subject.status()).toMatchObject({ audits: { impossible: 1 }, mismatches: [] });
});

test('a run that differs is made again while there are others who did not make it', async () => {
  const subject = given(0);
  others = ['me', 'anna'];
  // All of them by this node, though anna is there: she may be busy.
  outcomes = Array.from({ length: 2 * elsewhereTries }, (_, at) => resultOf(`otherwise ${at}`));
  subject.begin(hit());
  await until(() => {
    clock.advance(elsewherePauseMs);
    return subject.job(hit())?.state === 'done';
  });
  expect(avoided).toHaveLength(2 * elsewhereTries);
  expect(subject.job(hit())).toMatchObject({ verdict: 'nonDeterministic', mismatch: { dropped: 'here' } });
});
