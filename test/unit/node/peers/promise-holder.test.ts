import { create, toBinary } from '@bufbuild/protobuf';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { createPromiseHolder, type PromiseHolder } from '../../../../node/peers/promise-holder.ts';
import { openStore, type Store } from '../../../../node/storage/open-store.ts';
import { type Digest, digestKey, toWireDigest } from '../../../../protos/digest.ts';
import { ActionResultSchema } from '../../../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { ResultStatementSchema, VouchedResultSchema } from '../../../../protos/gen/potluck/mesh/v1/results_pb.ts';
import { digestOf } from '../../../../protos/hasher.ts';
import { randomBlob } from '../../../contract/blobs.ts';
import { until } from '../../../support/until.ts';

let dir: string;
let store: Store;
let holder: PromiseHolder | undefined;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'potluck-promises-'));
  store = await openStore({ dataDir: dir, sizeLimitBytes: 256 * 1024 ** 2, durability: 'fast' });
});
afterEach(async () => {
  holder?.close();
  await store.close();
  await rm(dir, { recursive: true, force: true });
});

/** A result with one output, as a blob; the output is stored unless told otherwise. */
async function storeResult(withOutput = true) {
  const output = randomBlob(20_000);
  const result = create(ActionResultSchema, { outputFiles: [{ path: 'out', digest: toWireDigest(output.digest) }] });
  const statement = create(ResultStatementSchema, { result: toBinary(ActionResultSchema, result) });
  const payload = toBinary(ResultStatementSchema, statement);
  const bytes = toBinary(VouchedResultSchema, create(VouchedResultSchema, { statement: { payload } }));
  const digest = digestOf('sha256', bytes);
  await store.blobs.putMany([{ digest, bytes }, ...(withOutput ? [output] : [])]);
  return { name: digestKey(digest), digest, output: output.digest };
}

function holding(pins: { readonly blob: string }[], nowMs = () => performance.now()) {
  const broken: string[] = [];
  holder = createPromiseHolder({
    local: store.blobs,
    pinned: () => pins,
    onBroken: (reason) => broken.push(reason),
    nowMs,
  });
  return { holder, broken };
}

/** Those that are left when everything that may go has gone. */
async function survivors(...digests: Digest[]): Promise<Digest[]> {
  await store.gc({ targetBytes: 0 });
  const missing = new Set((await store.blobs.missing(digests)).map(digestKey));
  return digests.filter((digest) => !missing.has(digestKey(digest)));
}

test('a promised result is kept with all that it names, and nothing else is', async () => {
  const [promised, other] = [await storeResult(), await storeResult()];
  const { holder: held } = holding([{ blob: promised.name }]);
  await until(() => held.size() === 1);
  expect(await survivors(promised.digest, promised.output, other.digest, other.output)).toEqual([
    promised.digest,
    promised.output,
  ]);
});

test('what was promised before a restart is held again', async () => {
  const { name, digest, output } = await storeResult();
  holding([{ blob: name }]).holder.close();
  const { holder: again } = holding([{ blob: name }]);
  await until(() => again.size() === 1);
  expect(await survivors(digest, output)).toEqual([digest, output]);
});

test('a blob that is no result is kept alone', async () => {
  const blob = randomBlob(5_000);
  await store.blobs.putMany([blob]);
  const { holder: held } = holding([{ blob: digestKey(blob.digest) }]);
  await until(() => held.size() === 1);
  expect(await survivors(blob.digest)).toEqual([blob.digest]);
});

test('outputs that are gone are said, and nothing is held in their place', async () => {
  const { name } = await storeResult(false);
  const { broken, holder: held } = holding([{ blob: name }]);
  await until(() => broken.length > 0);
  expect(broken[0]).toContain(name);
  expect(held.size()).toBe(0);
});

test('what is held for a promise that is about to be made is there when it is made', async () => {
  const { name, digest, output } = await storeResult();
  const { holder: held } = holding([]);
  expect(await held.hold(name, [digest, output])).toBe(true);
  expect(await survivors(digest, output)).toEqual([digest, output]);
  expect(await held.hold('sha256/00/1', [randomBlob(10).digest])).toBe(false);
});
