import { create, toBinary } from '@bufbuild/protobuf';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { createVouching, withVoucher } from '../../../node/peers/vouching.ts';
import type { ActionKey } from '../../../node/storage/action-cache.ts';
import { toWireDigest } from '../../../protos/digest.ts';
import {
  ActionResultSchema,
  DirectorySchema,
  TreeSchema,
} from '../../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { digestOf } from '../../../protos/hasher.ts';
import { randomBlob } from '../../contract/blobs.ts';
import { createRealMesh, type TierNode } from '../../support/real-mesh.ts';
import { until } from '../../support/until.ts';

let mesh: ReturnType<typeof createRealMesh>;
let nodes: TierNode[];

beforeEach(() => {
  mesh = createRealMesh();
  nodes = [];
});
afterEach(async () => {
  for (const node of nodes) await node[Symbol.asyncDispose]();
  await mesh.close();
});

async function open(...options: Parameters<(typeof mesh)['open']>): Promise<TierNode> {
  const node = await mesh.open(...options);
  nodes.push(node);
  return node;
}

const keyOf = (instance = ''): ActionKey => ({ instance, action: randomBlob(142).digest });

/** A result with two files, a directory and stdout, whose blobs the node has. */
async function produce(node: TierNode, key: ActionKey) {
  const files = [randomBlob(10), randomBlob(90_000)];
  const inside = randomBlob(5_000);
  const stdout = randomBlob(300);
  const tree = toBinary(
    TreeSchema,
    create(TreeSchema, {
      root: create(DirectorySchema, { files: [{ name: 'inside', digest: toWireDigest(inside.digest) }] }),
    }),
  );
  const treeDigest = digestOf('sha256', tree);
  const blobs = [...files, inside, stdout, { digest: treeDigest, bytes: tree }];
  await node.store.blobs.putMany(blobs);
  const result = create(ActionResultSchema, {
    outputFiles: files.map(({ digest }, at) => ({ path: `file${at}`, digest: toWireDigest(digest) })),
    outputDirectories: [{ path: 'dir', treeDigest: toWireDigest(treeDigest) }],
    stdoutDigest: toWireDigest(stdout.digest),
    exitCode: 0,
    executionMetadata: { worker: 'somewhere' },
  });
  await node.peers.actions('upload').put(key, result);
  return { result, digests: blobs.map(({ digest }) => digest) };
}

test('a result of another member is found, as it was stored, with all its blobs here', async () => {
  const [anna, ben] = [await open(), await open()];
  const key = keyOf('office/linux');
  const { result, digests } = await produce(anna, key);
  const found = await ben.peers.actions('upload').get(key);
  expect(found).toEqual(result);
  expect(await ben.store.blobs.missing(digests)).toEqual([]);
  expect(ben.peers.tally()).toMatchObject({ foundResults: 1, receivedBlobs: digests.length });
  // It stays, and goes on to others under the word of who made it.
  await anna.die();
  expect(await ben.peers.actions('upload').get(key)).toEqual(result);
  const cleo = await open();
  expect(await cleo.peers.actions('upload').get(key)).toEqual(result);
});

test('hundreds of lookups at once become few calls, and each gets its own', async () => {
  const [anna, ben] = [await open(), await open()];
  const keys = Array.from({ length: 150 }, () => keyOf());
  const results = [];
  for (const key of keys) results.push((await produce(anna, key)).result);
  const found = await Promise.all([...keys, keyOf()].map((key) => ben.peers.actions('upload').get(key)));
  expect(found).toEqual([...results, undefined]);
});

test('a result whose blobs are gone everywhere is none', async () => {
  const [anna, ben] = [await open(), await open()];
  const key = keyOf();
  const { result } = await produce(anna, key);
  const lost = randomBlob(50);
  const [file] = result.outputFiles;
  if (!file) throw new Error('no file');
  // Anna's word for a result that names a blob which nobody has.
  const bad = { ...result, outputFiles: [{ ...file, digest: toWireDigest(lost.digest) }] };
  const vouched = createVouching(anna.identity, 'members').vouch(key, bad, 'none');
  await anna.store.actions.put(key, withVoucher(result, vouched));
  expect(await ben.peers.actions('upload').get(key)).toBeUndefined();
});

describe('a genuine word for something else', () => {
  test.each([
    ['another action', (key: ActionKey) => ({ ...key, action: randomBlob(7).digest })],
    ['another instance', (key: ActionKey) => ({ ...key, instance: 'elsewhere' })],
    ['another size of the action', (key: ActionKey) => ({ ...key, action: { ...key.action, sizeBytes: 7 } })],
    ['another digest function', (key: ActionKey) => ({ ...key, action: { ...key.action, fn: 'blake3' as const } })],
  ])('%s is refused, and its teller benched', async (_, other) => {
    const [anna, ben] = [await open(), await open()];
    const key = keyOf();
    const { result } = await produce(anna, key);
    const vouched = createVouching(anna.identity, 'members').vouch(other(key), result, 'none');
    await anna.store.actions.put(key, withVoucher(result, vouched));
    expect(await ben.peers.actions('upload').get(key)).toBeUndefined();
    expect(ben.log.join()).toContain('another action or instance');
    // Not even what is right is asked of it for a while.
    const good = keyOf();
    await produce(anna, good);
    expect(await ben.peers.actions('upload').get(good)).toBeUndefined();
  });

  test('of another mesh is refused', async () => {
    const [anna, ben] = [await open(), await open()];
    const otherMesh = createRealMesh();
    const stranger = await otherMesh.join();
    const key = keyOf();
    const { result } = await produce(anna, key);
    const vouched = createVouching(stranger.identity, 'members').vouch(key, result, 'none');
    await anna.store.actions.put(key, withVoucher(result, vouched));
    expect(await ben.peers.actions('upload').get(key)).toBeUndefined();
    expect(ben.log.join()).toContain('another mesh');
    await otherMesh.close();
  });

  test('whose bytes were changed is refused', async () => {
    const [anna, ben] = [await open(), await open()];
    const key = keyOf();
    const { result } = await produce(anna, key);
    const vouched = createVouching(anna.identity, 'members').vouch(key, result, 'none');
    const { statement } = vouched;
    if (!statement) throw new Error('no statement');
    const payload = Buffer.from(statement.payload);
    payload[payload.length - 3] = (payload.at(-3) ?? 0) ^ 1;
    await anna.store.actions.put(key, withVoucher(result, { ...vouched, statement: { ...statement, payload } }));
    expect(await ben.peers.actions('upload').get(key)).toBeUndefined();
    expect(ben.log.join()).toMatch(/signature|malformed|action/);
  });
});

describe('the policy', () => {
  test('publishers: results of others are not believed', async () => {
    const [anna, ben] = [await open(), await open({ trust: 'publishers' })];
    const cleo = await open({ roles: ['publisher'] });
    const key = keyOf();
    await produce(cleo, key);
    expect(await ben.peers.actions('upload').get(key)).toBeDefined();
    // The founder has every role; a plain member has none.
    const dora = await open();
    const plain = keyOf();
    await produce(dora, plain);
    expect(await ben.peers.actions('upload').get(plain)).toBeUndefined();
    expect(await anna.peers.actions('upload').get(plain)).toBeDefined();
  });

  test('who passes on what is not believed here has not lied', async () => {
    const [anna, ben] = [await open(), await open({ trust: 'publishers' })];
    const cleo = await open({ roles: ['publisher'] });
    const dora = await open();
    const [plain, published] = [keyOf(), keyOf()];
    await produce(dora, plain);
    const { result } = await produce(cleo, published);
    expect(await dora.peers.actions('upload').get(published)).toEqual(result);
    await cleo.die();
    await anna.die();
    expect(await ben.peers.actions('upload').get(plain)).toBeUndefined();
    expect(await ben.peers.actions('upload').get(published)).toEqual(result);
  });

  test('self: only what this node made itself comes back from others', async () => {
    const [anna, ben] = [await open(), await open({ trust: 'self' })];
    const [theirs, own] = [keyOf(), keyOf()];
    await produce(anna, theirs);
    expect(await ben.peers.actions('upload').get(theirs)).toBeUndefined();
    const { result } = await produce(ben, own);
    expect(await anna.peers.actions('upload').get(own)).toEqual(result);
  });
});

test('a word outlives its time no more than its certificate', async () => {
  const [anna, ben] = [await open(), await open()];
  const key = keyOf();
  const { result } = await produce(anna, key);
  const vouching = createVouching(ben.identity, 'members');
  const vouched = createVouching(anna.identity, 'members').vouch(key, result, 'none');
  expect(vouching.check(key, vouched).refused).toBeUndefined();
  mesh.clock.nowMs += 400 * 24 * 3_600_000;
  expect(vouching.check(key, vouched).refused).toContain('expired');
});

describe('with replicas', () => {
  test('what one node made is found after it is gone', async () => {
    const [anna, ben] = [await open({ replicas: 2 }), await open()];
    const key = keyOf();
    const { result, digests } = await produce(anna, key);
    await until(async () => (await ben.store.actions.get(key)) !== undefined);
    expect(await ben.store.blobs.missing(digests)).toEqual([]);
    await anna.die();
    expect(await ben.peers.actions('upload').get(key)).toEqual(result);
    // It is still Anna's word.
    const cleo = await open({ trust: 'publishers' });
    expect(await cleo.peers.actions('upload').get(key)).toEqual(result);
  });
});
