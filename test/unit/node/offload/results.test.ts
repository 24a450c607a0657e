import { create, toBinary } from '@bufbuild/protobuf';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Token } from '../../../../mesh/core/ids.ts';
import type { Identity } from '../../../../mesh/net/identity/identity.ts';
import { type Expected, createResults, endedWell, outcomeOf } from '../../../../node/offload/results.ts';
import { createVouching, type Ending, type Trust } from '../../../../node/peers/vouching.ts';
import type { ActionKey } from '../../../../node/storage/action-cache.ts';
import { type Digest, digestKey, toWireDigest } from '../../../../protos/digest.ts';
import { ActionResultSchema } from '../../../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { VouchedResultSchema } from '../../../../protos/gen/potluck/mesh/v1/results_pb.ts';
import { digestOf } from '../../../../protos/hasher.ts';
import { createRealMesh } from '../../../support/real-mesh.ts';

const mesh = createRealMesh();
let anna: Identity;
let ben: Identity;
beforeAll(async () => {
  anna = (await mesh.join()).identity;
  ben = (await mesh.join()).identity;
});
afterAll(() => mesh.close());

interface Blob {
  readonly digest: Digest;
  readonly bytes: Uint8Array;
}

function blobOf(text: string): Blob {
  const bytes = Buffer.from(text);
  return { digest: digestOf('sha256', bytes), bytes };
}

/** A store in memory. */
function createStore() {
  const blobs = new Map<string, Uint8Array>();
  const put = ({ digest, bytes }: Blob): void => void blobs.set(digestKey(digest), bytes);
  return {
    blobs,
    put,
    get: async (digest: Digest) => blobs.get(digestKey(digest)),
    missing: async (digests: readonly Digest[]) => digests.filter((digest) => !blobs.has(digestKey(digest))),
    async putMany(many: readonly Blob[]) {
      many.forEach(put);
      return many.map(() => undefined);
    },
  };
}

let serial = 0;
const keyOf = (): ActionKey => ({ instance: '', action: blobOf(`action ${(serial += 1)}`).digest });
const token = (counter: number): Token => ({ generation: 1, term: 1, counter });

/** Ben makes a result with one output; Anna gets at his blobs. */
async function handOver(
  options: { trust?: Trust; ending?: Ending; token?: Token; key?: ActionKey; forge?: Identity } = {},
) {
  const [here, there] = [createStore(), createStore()];
  const output = blobOf(`output ${(serial += 1)}`);
  there.put(output);
  const key = options.key ?? keyOf();
  const result = create(ActionResultSchema, {
    exitCode: options.ending ? 1 : 0,
    outputFiles: [{ path: 'out', digest: toWireDigest(output.digest) }],
  });
  const signer = options.forge ?? ben;
  const made = await createResults({
    local: there,
    bring: async (digests) => await there.missing(digests),
    vouching: createVouching(signer, 'members'),
    self: signer.peerId,
  }).make(key, result, 'bubblewrap', { token: options.token, ending: options.ending ?? endedWell });
  const results = createResults({
    local: here,
    async bring(digests) {
      for (const digest of digests) {
        const bytes = there.blobs.get(digestKey(digest));
        if (bytes) here.put({ digest, bytes });
      }
      return await here.missing(digests);
    },
    vouching: createVouching(anna, options.trust ?? 'members'),
    self: anna.peerId,
  });
  const expected: Expected = { name: made.name, key, token: options.token };
  return {
    here,
    there,
    output,
    key,
    made,
    expected,
    bring: (other: Partial<Expected> = {}) => results.bring({ ...expected, ...other }, {}),
  };
}

test('a result comes with all that it names, and says who made it', async () => {
  const { here, output, made, bring } = await handOver({ token: token(3) });
  const brought = await bring();
  expect(brought.kind).toBe('here');
  if (brought.kind !== 'here') return;
  expect(brought.handed).toMatchObject({ name: made.name, executor: ben.peerId, token: token(3) });
  expect(await here.missing([output.digest])).toEqual([]);
  expect(outcomeOf(brought.handed)).toEqual({
    result: made.name,
    sizeBytes: Number(made.name.split('/')[2]) + output.digest.sizeBytes,
    cacheable: true,
  });
});

test('a failure is handed over like any other, and is not to be cached', async () => {
  const ending = { statusCode: 4, statusMessage: 'too slow', message: 'on ben', serverLog: '' };
  const { bring } = await handOver({ ending });
  const brought = await bring();
  expect(brought.kind === 'here' && brought.handed.ending).toEqual(ending);
  expect(brought.kind === 'here' && outcomeOf(brought.handed).cacheable).toBe(false);
});

describe('is a lie', () => {
  test('made for another action', async () => {
    const { bring } = await handOver();
    expect(await bring({ key: keyOf() })).toMatchObject({
      kind: 'lie',
      reason: expect.stringContaining('another action'),
    });
  });

  test('made under a later claim than the one it is offered for', async () => {
    const { bring } = await handOver({ token: token(5) });
    expect(await bring({ token: token(4) })).toMatchObject({ kind: 'lie' });
    // An older claim that was adopted under a new token is none.
    expect((await bring({ token: token(6) })).kind).toBe('here');
  });

  test('signed by somebody else than who should have made it', async () => {
    const { bring } = await handOver();
    expect(await bring({ executor: anna.peerId })).toMatchObject({ kind: 'lie' });
  });

  test('signed with another key than its signer has', async () => {
    const forger = { ...ben, key: anna.key } as Identity;
    const { bring } = await handOver({ forge: forger });
    expect(await bring()).toMatchObject({ kind: 'lie', reason: expect.stringContaining('signature') });
  });

  test('a genuine result that was taken before, offered for what it was not made for', async () => {
    const { bring } = await handOver({ token: token(5) });
    expect((await bring()).kind).toBe('here');
    expect(await bring({ key: keyOf() })).toMatchObject({
      kind: 'lie',
      reason: expect.stringContaining('another action'),
    });
    expect((await bring({ token: token(4) })).kind).toBe('lie');
    expect((await bring({ executor: anna.peerId })).kind).toBe('lie');
    expect((await bring()).kind).toBe('here');
  });

  test('that is no result at all', async () => {
    const { there, bring } = await handOver();
    const junk = blobOf('not a result');
    there.put(junk);
    expect((await bring({ name: digestKey(junk.digest) })).kind).toBe('lie');
  });

  test('that names nonsense', async () => {
    const { there, key, bring } = await handOver();
    const result = create(ActionResultSchema, {
      outputFiles: [{ path: 'out', digest: { hash: 'zz', sizeBytes: 1n } }],
    });
    const bytes = toBinary(VouchedResultSchema, createVouching(ben, 'members').vouch(key, result, 'bubblewrap'));
    const digest = digestOf('sha256', bytes);
    there.put({ digest, bytes });
    expect((await bring({ name: digestKey(digest) })).kind).toBe('lie');
  });
});

describe('is not to be had', () => {
  test('when an output is gone', async () => {
    const { there, output, bring } = await handOver();
    there.blobs.delete(digestKey(output.digest));
    expect(await bring()).toMatchObject({ kind: 'absent' });
  });

  test('when its executor is not believed, who has not lied', async () => {
    const { bring } = await handOver({ trust: 'self' });
    expect(await bring()).toMatchObject({ kind: 'absent', reason: expect.stringContaining('policy') });
  });
});

test('a result that was checked is not looked at again, unless blobs of it are gone since', async () => {
  const { here, there, output, bring } = await handOver();
  await bring();
  there.blobs.clear();
  expect((await bring()).kind).toBe('here');
  here.blobs.delete(digestKey(output.digest));
  expect((await bring()).kind).toBe('absent');
});
