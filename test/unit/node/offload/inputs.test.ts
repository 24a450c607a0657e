import { create, toBinary } from '@bufbuild/protobuf';
import { expect, test } from 'vitest';
import { createBlobHints, inputsOf } from '../../../../node/offload/blob-hints.ts';
import { bringInputs } from '../../../../node/offload/inputs.ts';
import type { PreparedAction } from '../../../../node/execution/prepare.ts';
import { type Digest, digestKey, toWireDigest } from '../../../../protos/digest.ts';
import {
  ActionSchema,
  CommandSchema,
  DirectorySchema,
} from '../../../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { digestOf } from '../../../../protos/hasher.ts';
import { createInputTrees } from '../../../../sandbox/input-tree.ts';

/** A store in memory, and what it takes from another one batch by batch. */
function createStore(from?: Map<string, Uint8Array>) {
  const blobs = new Map<string, Uint8Array>();
  const batches: number[] = [];
  const missing = (digests: readonly Digest[]): Digest[] => digests.filter((digest) => !blobs.has(digestKey(digest)));
  return {
    blobs,
    batches,
    put(bytes: Uint8Array): Digest {
      const digest = digestOf('sha256', bytes);
      blobs.set(digestKey(digest), bytes);
      return digest;
    },
    get: async (digest: Digest) => blobs.get(digestKey(digest)),
    missing: async (digests: readonly Digest[]) => missing(digests),
    bring: async (digests: readonly Digest[]): Promise<Digest[]> => {
      const wanted = missing(digests);
      if (wanted.length > 0) batches.push(wanted.length);
      for (const digest of wanted) {
        const bytes = from?.get(digestKey(digest));
        if (bytes) blobs.set(digestKey(digest), bytes);
      }
      return missing(digests);
    },
  };
}

/** An action with a file at the bottom of some directories. */
function action(depth: number) {
  const store = createStore();
  const file = store.put(Buffer.from('at the bottom'));
  let directory = store.put(
    toBinary(DirectorySchema, create(DirectorySchema, { files: [{ name: 'f', digest: toWireDigest(file) }] })),
  );
  for (let level = 1; level < depth; level++) {
    const digest = toWireDigest(directory);
    directory = store.put(
      toBinary(DirectorySchema, create(DirectorySchema, { directories: [{ name: `d${level}`, digest }] })),
    );
  }
  const command = store.put(toBinary(CommandSchema, create(CommandSchema, { arguments: ['true'] })));
  const message = create(ActionSchema, {
    commandDigest: toWireDigest(command),
    inputRootDigest: toWireDigest(directory),
  });
  return { store, file, root: directory, message, digest: store.put(toBinary(ActionSchema, message)) };
}

const portsOf = (store: ReturnType<typeof createStore>) => ({
  local: store,
  trees: createInputTrees(store),
  bring: store.bring,
});

test('everything that an action needs comes, level by level', async () => {
  const { store, digest } = action(4);
  const here = createStore(store.blobs);
  const { root } = await bringInputs(portsOf(here), digest, {});
  expect(root.depth).toBe(4);
  expect(here.blobs).toEqual(store.blobs);
  // The Action; Command and root; three levels; the file.
  expect(here.batches).toEqual([1, 2, 1, 1, 1, 1]);
});

test('what nobody has is named', async () => {
  const { store, digest, file } = action(2);
  store.blobs.delete(digestKey(file));
  await expect(bringInputs(portsOf(createStore(store.blobs)), digest, {})).rejects.toThrow(file.hash);
});

test('with a hint of its submitter all of it comes at once', async () => {
  const { store, digest, root, message } = action(6);
  const here = createStore(store.blobs);
  const there = createBlobHints({ send: () => {}, bring: here.bring });
  const hints = createBlobHints({ send: (_, body) => there.onParcel('anna', body), bring: store.bring });
  const found = await createInputTrees(store).find(root);
  if (!('root' in found)) throw new Error('the tree is not whole');
  const key = { instance: 'main', action: digest };
  hints.tell('ben', key, inputsOf({ action: message, digest } as PreparedAction, found.root));
  using _ = there.use(key, 'anna');
  await bringInputs(portsOf(here), digest, {});
  expect(here.blobs).toEqual(store.blobs);
  expect(here.batches).toEqual([8, 1]);
});
