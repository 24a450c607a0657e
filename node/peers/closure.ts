/** What has to be near an executor before it can work: an action with its command and inputs, and its result's blobs. */
import { fromBinary } from '@bufbuild/protobuf';
import { type Digest, digestFunctions, digestKey, fromWireDigest } from '../../protos/digest.ts';
import {
  ActionSchema,
  DirectorySchema,
  type Digest as WireDigest,
} from '../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { StatusError } from '../../protos/status.ts';
import type { ActionCache } from '../storage/action-cache.ts';
import type { BlobStore } from '../storage/blob-store.ts';
import { createResultClosures } from '../storage/result-closure.ts';
import * as limits from './limits.ts';

/** All blobs below a root Directory, itself included. Throws NOT_FOUND for one that is not here. */
export async function closureOfTree(blobs: Pick<BlobStore, 'get'>, root: Digest): Promise<Digest[]> {
  const found = new Map([[digestKey(root), root]]);
  const open = [root];
  const add = (wire: WireDigest | undefined, isDirectory: boolean): void => {
    const digest = fromWireDigest(wire, digestFunctions[root.fn].wire);
    if (found.has(digestKey(digest))) return;
    if (found.size >= limits.closureMax) {
      throw new StatusError('RESOURCE_EXHAUSTED', `more than ${limits.closureMax} blobs are below ${digestKey(root)}`);
    }
    found.set(digestKey(digest), digest);
    if (isDirectory) open.push(digest);
  };
  for (let digest = open.pop(); digest; digest = open.pop()) {
    const directory = fromBinary(DirectorySchema, await bytesOf(blobs, digest));
    for (const file of directory.files) add(file.digest, false);
    for (const child of directory.directories) add(child.digest, true);
  }
  return [...found.values()];
}

/** An action, its command, its inputs, and what its result names when there is one here under the empty instance name. */
export async function closureOfAction(
  blobs: Pick<BlobStore, 'get'>,
  actions: Pick<ActionCache, 'get'>,
  action: Digest,
): Promise<Digest[]> {
  const { wire } = digestFunctions[action.fn];
  const { commandDigest, inputRootDigest } = fromBinary(ActionSchema, await bytesOf(blobs, action));
  const inputs = await closureOfTree(blobs, fromWireDigest(inputRootDigest, wire, 'the input root'));
  const result = await actions.get({ instance: '', action });
  const outputs = result ? (await createResultClosures(blobs).of(result, action.fn)).needed : [];
  const all = [action, fromWireDigest(commandDigest, wire, 'the command'), ...inputs, ...outputs];
  return [...new Map(all.map((digest) => [digestKey(digest), digest])).values()];
}

async function bytesOf(blobs: Pick<BlobStore, 'get'>, digest: Digest): Promise<Uint8Array> {
  const bytes = digest.sizeBytes <= limits.messageBytesMax ? await blobs.get(digest) : undefined;
  if (!bytes) throw new StatusError('NOT_FOUND', `blob ${digestKey(digest)} is not here, so nobody can be given it`);
  return bytes;
}
