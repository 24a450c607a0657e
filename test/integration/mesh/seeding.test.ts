import { create, toBinary } from '@bufbuild/protobuf';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { SeedReport, SeedWhat } from '../../../node/peers/seed-jobs.ts';
import { type Digest, toWireDigest } from '../../../protos/digest.ts';
import {
  ActionSchema,
  DirectorySchema,
} from '../../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { digestOf } from '../../../protos/hasher.ts';
import { randomBlob } from '../../contract/blobs.ts';
import { createRealMesh, type TierNode } from '../../support/real-mesh.ts';

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

/** Seeds and follows it to its end. */
async function seed(from: TierNode, to: TierNode, what: SeedWhat): Promise<SeedReport> {
  let report = await from.peers.seed({ step: 'start', to: to.identity.peerId, replicas: 1, what });
  while (!report.isDone) report = await from.peers.seed({ step: 'progress', job: report.job });
  return report;
}

const name = ({ hash, sizeBytes }: Digest): string => `${hash}/${sizeBytes}`;

/** An action over a tree of two directories; everything is in the store of `node`. */
async function makeAction(node: TierNode) {
  const files = [randomBlob(20), randomBlob(30_000), randomBlob(2_500_000)];
  const directory = (message: Parameters<typeof create<typeof DirectorySchema>>[1]) => {
    const bytes = toBinary(DirectorySchema, create(DirectorySchema, message));
    return { digest: digestOf('sha256', bytes), bytes };
  };
  const below = directory({
    files: files.slice(1).map(({ digest }, at) => ({ name: `f${at}`, digest: toWireDigest(digest) })),
  });
  const root = directory({
    files: files.slice(0, 1).map(({ digest }) => ({ name: 'f', digest: toWireDigest(digest) })),
    directories: [{ name: 'd', digest: toWireDigest(below.digest) }],
  });
  const command = randomBlob(40);
  const bytes = toBinary(
    ActionSchema,
    create(ActionSchema, {
      commandDigest: toWireDigest(command.digest),
      inputRootDigest: toWireDigest(root.digest),
    }),
  );
  const action = { digest: digestOf('sha256', bytes), bytes };
  const tree = [root, below, ...files];
  await node.store.blobs.putMany([action, command, ...tree]);
  return {
    action,
    root,
    all: [action, command, ...tree].map(({ digest }) => digest),
    tree: tree.map(({ digest }) => digest),
  };
}

test('an action is seeded with its command and all its inputs; again costs nothing', async () => {
  const [anna, ben] = [await open(), await open()];
  const { action, all } = await makeAction(anna);
  const report = await seed(anna, ben, { kind: 'action', digest: name(action.digest) });
  expect(report.targets).toMatchObject([{ peer: ben.identity.peerId, doneBlobs: all.length, totalBlobs: all.length }]);
  expect(await ben.store.blobs.missing(all)).toEqual([]);
  const storedBlobs = ben.store.stats().counters.storedBlobs;
  expect((await seed(anna, ben, { kind: 'action', digest: name(action.digest) })).targets[0]?.error).toBeUndefined();
  expect(ben.store.stats().counters.storedBlobs).toBe(storedBlobs);
});

test('a tree, and a list of blobs in a file, of which some are there already', async () => {
  const [anna, ben] = [await open(), await open()];
  const { root, tree } = await makeAction(anna);
  await seed(anna, ben, { kind: 'tree', digest: name(root.digest) });
  expect(await ben.store.blobs.missing(tree)).toEqual([]);
  const more = Array.from({ length: 300 }, (_, at) => randomBlob(at));
  await anna.store.blobs.putMany(more);
  const dir = await mkdtemp(join(tmpdir(), 'potluck-seed-'));
  const path = join(dir, 'list');
  await writeFile(path, [...tree, ...more.map(({ digest }) => digest)].map(name).join('\n'));
  const report = await seed(anna, ben, { kind: 'blobs', path });
  expect(report.targets).toMatchObject([{ doneBlobs: tree.length + 300 }]);
  expect(await ben.store.blobs.missing(more.map(({ digest }) => digest))).toEqual([]);
  await rm(dir, { recursive: true });
});

test('what is not here, and who is not there, is said', async () => {
  const [anna, ben] = [await open(), await open()];
  await expect(seed(anna, ben, { kind: 'tree', digest: name(randomBlob(9).digest) })).rejects.toMatchObject({
    code: 'NOT_FOUND',
  });
  await expect(
    anna.peers.seed({ step: 'start', to: 'atlantis', replicas: 1, what: { kind: 'tree', digest: 'x' } }),
  ).rejects.toMatchObject({ code: 'NOT_FOUND' });
});

test('a member takes only a share of its cache in a day', async () => {
  const [anna, ben] = [await open(), await open({ capacityBytes: 1_000_000 })];
  const { action } = await makeAction(anna);
  const report = await seed(anna, ben, { kind: 'action', digest: name(action.digest) });
  expect(report.targets[0]?.error).toContain('takes no more blobs');
});
