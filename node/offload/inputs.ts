/** Brings what an action needs to the node that will run it: the Action, its Command, the input tree, and every blob in it. */
import { fromBinary } from '@bufbuild/protobuf';
import { type Digest, digestFunctions, fromWireDigest } from '../../protos/digest.ts';
import { type Action, ActionSchema } from '../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { StatusError } from '../../protos/status.ts';
import { type InputDirectory, type InputTrees, treeDigests } from '../../sandbox/input-tree.ts';
import { missingBlobs } from '../execution/missing.ts';
import type { FetchOptions } from '../peers/fetches.ts';
import type { LocalBlobStore } from '../storage/blob-store.ts';

export interface InputPorts {
  /** This disk alone. */
  readonly local: Pick<LocalBlobStore, 'get'>;
  /** Trees read from this disk alone. */
  readonly trees: Pick<InputTrees, 'find'>;
  /** Gets what is not here from members; resolves to what cannot be had. */
  readonly bring: (digests: readonly Digest[], options: FetchOptions) => Promise<Digest[]>;
}

export interface BroughtInputs {
  readonly action: Action;
  readonly root: InputDirectory;
}

/**
 * Level by level, each in one batch, because a Directory names what comes next; files come in one batch at the end.
 * Throws FAILED_PRECONDITION naming what nobody has, INVALID_ARGUMENT for what is no action.
 */
export async function bringInputs(ports: InputPorts, digest: Digest, options: FetchOptions): Promise<BroughtInputs> {
  const { local, trees, bring } = ports;
  const what = `action ${digest.hash}/${digest.sizeBytes}`;
  const need = async (digests: readonly Digest[]): Promise<void> => {
    const absent = await bring(digests, options);
    if (absent.length > 0) throw missingBlobs(absent, what);
  };

  await need([digest]);
  const bytes = await local.get(digest);
  if (!bytes) throw missingBlobs([digest], what);
  const action = fromBinary(ActionSchema, bytes);
  const { wire } = digestFunctions[digest.fn];
  const command = fromWireDigest(action.commandDigest, wire, `the command of ${what}`);
  const inputRoot = fromWireDigest(action.inputRootDigest, wire, `the input root of ${what}`);
  await need([command, inputRoot]);
  for (let wanted = -1; ; ) {
    const found = await trees.find(inputRoot, options.signal && { signal: options.signal });
    if ('root' in found) {
      await need(treeDigests(found.root));
      return { action, root: found.root };
    }
    // Each round reads at least one level more, unless what came is evicted as fast as it comes.
    if (found.named.length <= wanted)
      throw new StatusError('RESOURCE_EXHAUSTED', `${what}: no room for its input tree`);
    wanted = found.named.length;
    await need(found.missing);
  }
}
