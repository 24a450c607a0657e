/**
 * Results as they pass between the node that ran an action and the one that submitted it: a signed statement that is a
 * blob like any other, checked before anything it says counts, and here only together with all that it names.
 */
import { fromBinary, toBinary } from '@bufbuild/protobuf';
import { type BlobKey, compareTokens, type NodeId, type Token } from '../../mesh/core/ids.ts';
import type { Outcome } from '../../mesh/core/agents/messages.ts';
import { parseDigestKey } from '../../mesh/net/data/wire.ts';
import type { Digest } from '../../protos/digest.ts';
import type { ActionResult } from '../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { type VouchedResult, VouchedResultSchema } from '../../protos/gen/potluck/mesh/v1/results_pb.ts';
import { digestOf } from '../../protos/hasher.ts';
import { StatusError } from '../../protos/status.ts';
import type { FetchOptions } from '../peers/fetches.ts';
import type { Ending, SandboxClass, Vouching } from '../peers/vouching.ts';
import type { ActionKey } from '../storage/action-cache.ts';
import type { LocalBlobStore } from '../storage/blob-store.ts';
import { createResultClosures } from '../storage/result-closure.ts';
import { blobName } from './keys.ts';
import * as limits from './limits.ts';

/** A result that was checked, and whose closure is here. */
export interface HandedResult {
  readonly name: BlobKey;
  readonly key: ActionKey;
  readonly vouched: VouchedResult;
  readonly result: ActionResult;
  readonly ending: Ending;
  readonly executor: NodeId;
  readonly token: Token | undefined;
  /** The result blob and every blob that it names. */
  readonly closure: readonly Digest[];
}

/** What a result must be to be taken. */
export interface Expected {
  readonly name: BlobKey;
  readonly key: ActionKey;
  /** Of the claim: the result may have been made under an older one that was adopted, never under a later one. */
  readonly token: Token | undefined;
  /** Who should have signed it; undefined when anybody may. */
  readonly executor?: NodeId | undefined;
}

export type BroughtResult =
  | { readonly kind: 'here'; readonly handed: HandedResult }
  /** Whoever offered it does not keep to the mesh. */
  | { readonly kind: 'lie'; readonly reason: string }
  /** It, or something that it names, could not be had; or it is not believed here. */
  | { readonly kind: 'absent'; readonly reason: string };

export interface Results {
  /** Signs and stores a result of this node's own; its outputs are here. */
  make(
    key: ActionKey,
    result: ActionResult,
    sandboxClass: SandboxClass,
    run: {
      readonly token: Token | undefined;
      readonly ending: Ending;
      /** Before the result blob is stored, whose writing may share its sync with another. */
      readonly onNamed?: (handed: HandedResult) => void;
    },
  ): Promise<HandedResult>;
  /** Brings a result with all that it names, from those named first of all. Throws when `signal` is aborted. */
  bring(expected: Expected, options: FetchOptions): Promise<BroughtResult>;
}

export interface ResultsOptions {
  /** This disk alone. */
  readonly local: Pick<LocalBlobStore, 'get' | 'missing' | 'putMany'>;
  /** Gets what is not here from members; resolves to what cannot be had. */
  readonly bring: (digests: readonly Digest[], options: FetchOptions) => Promise<Digest[]>;
  readonly vouching: Vouching;
  readonly self: NodeId;
}

export const endedWell: Ending = { statusCode: 0, statusMessage: '', message: '', serverLog: '' };

export function outcomeOf({ name, result, ending, closure }: HandedResult): Outcome {
  return {
    result: name,
    sizeBytes: closure.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0),
    cacheable: result.exitCode === 0 && ending.statusCode === 0,
  };
}

export function createResults({ local, bring, vouching, self }: ResultsOptions): Results {
  /** By name, in order of last use. */
  const kept = new Map<BlobKey, HandedResult>();

  function keep(handed: HandedResult): HandedResult {
    kept.delete(handed.name);
    kept.set(handed.name, handed);
    for (const oldest of kept.keys()) {
      if (kept.size <= limits.resultsKept) break;
      kept.delete(oldest);
    }
    return handed;
  }

  /** The signed statement, and what it says; a reason when it is not to be taken. */
  function open(bytes: Uint8Array, expected: Expected): HandedParts | RefusedParts {
    let vouched: VouchedResult;
    try {
      vouched = fromBinary(VouchedResultSchema, bytes);
    } catch {
      return { kind: 'lie', reason: 'it is no result' };
    }
    return check(vouched, expected);
  }

  function check(vouched: VouchedResult, { key, token, executor }: Expected): HandedParts | RefusedParts {
    const checked = vouching.check(key, vouched);
    if (checked.refused !== undefined) return { kind: checked.isLie ? 'lie' : 'absent', reason: checked.refused };
    if (executor !== undefined && checked.executor.peerId !== executor) {
      return { kind: 'lie', reason: `it was signed by ${checked.executor.peerId}` };
    }
    if (checked.token && token && compareTokens(checked.token, token) > 0) {
      return { kind: 'lie', reason: 'it was made under a later claim than the one it is offered for' };
    }
    return { ...checked, kind: 'opened', vouched, executor: checked.executor.peerId };
  }

  /** All blobs that the result names; what is missing on the way is got. */
  async function bringClosure(
    result: ActionResult,
    fn: Digest['fn'],
    options: FetchOptions,
  ): Promise<Digest[] | Digest> {
    const closures = createResultClosures({
      async get(digest) {
        const here = await local.get(digest);
        if (here || (await bring([digest], options)).length > 0) return here;
        return await local.get(digest);
      },
    });
    const { needed, missing } = await closures.of(result, fn);
    const absent = missing[0] ?? (await bring(needed, options))[0];
    return absent ?? needed;
  }

  return {
    async make(key, result, sandboxClass, { token, ending, onNamed = () => {} }) {
      const vouched = vouching.vouch(key, result, sandboxClass, { token, ending });
      const bytes = toBinary(VouchedResultSchema, vouched);
      const digest = digestOf(key.action.fn, bytes);
      const { needed, missing } = await createResultClosures(local).of(result, key.action.fn);
      if (missing.length > 0) throw new StatusError('UNAVAILABLE', 'outputs were lost before they were named');
      const closure = [digest, ...needed];
      const handed = { name: blobName(digest), key, vouched, result, ending, executor: self, token, closure };
      onNamed(handed);
      const [failure] = await local.putMany([{ digest, bytes }]);
      if (failure) throw failure;
      return keep(handed);
    },

    async bring(expected, options) {
      const known = kept.get(expected.name);
      if (known && (await local.missing(known.closure)).length === 0) {
        // A genuine result is offered for another action, or for an older claim, as easily as for its own.
        const checked = check(known.vouched, expected);
        return checked.kind === 'opened' ? { kind: 'here', handed: keep(known) } : checked;
      }
      const digest = parseDigestKey(expected.name);
      if (digest.sizeBytes > limits.resultBytesMax) return { kind: 'lie', reason: 'it is too large for a result' };
      if ((await bring([digest], options)).length > 0) return { kind: 'absent', reason: 'nobody has it' };
      const bytes = await local.get(digest);
      if (!bytes) return { kind: 'absent', reason: 'it is gone again' };
      const opened = open(bytes, expected);
      if (opened.kind !== 'opened') return opened;
      let closure: Digest[] | Digest;
      try {
        closure = await bringClosure(opened.result, digest.fn, options);
      } catch (error) {
        // Names nonsense, or a tree that is none.
        if (error instanceof StatusError && error.code === 'INVALID_ARGUMENT')
          return { kind: 'lie', reason: error.reason };
        throw error;
      }
      if (!Array.isArray(closure)) return { kind: 'absent', reason: `its blob ${blobName(closure)} cannot be had` };
      const { vouched, result, ending, executor, token } = opened;
      const { name, key } = expected;
      return {
        kind: 'here',
        handed: keep({ name, key, vouched, result, ending, executor, token, closure: [digest, ...closure] }),
      };
    },
  };
}

type RefusedParts = Exclude<BroughtResult, { readonly kind: 'here' }>;

interface HandedParts extends Pick<HandedResult, 'vouched' | 'result' | 'ending' | 'executor' | 'token'> {
  readonly kind: 'opened';
}
