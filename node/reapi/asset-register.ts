/**
 * Which content a URI with qualifiers stands for, as pushed or fetched before.
 *
 * Entries live in the action cache, under a digest of their own making: there they are durable, keep what they name from
 * eviction and count as absent once any of it is gone.
 */
import { create } from '@bufbuild/protobuf';
import {
  anyPack,
  anyUnpack,
  type Timestamp,
  TimestampSchema,
  timestampFromMs,
  timestampMs,
} from '@bufbuild/protobuf/wkt';
import { type Digest, digestFunctions, fromWireDigest, toWireDigest } from '../../protos/digest.ts';
import type { Qualifier } from '../../protos/gen/build/bazel/remote/asset/v1/remote_asset_pb.ts';
import { ActionResultSchema } from '../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { digestOf } from '../../protos/hasher.ts';
import type { ActionCache, ActionKey } from '../storage/action-cache.ts';

export type AssetKind = 'blob' | 'directory';

export interface AssetName {
  readonly instance: string;
  readonly fn: Digest['fn'];
  readonly kind: AssetKind;
  readonly uri: string;
  readonly qualifiers: readonly Qualifier[];
}

export interface Asset {
  /** Of the blob, or of the root Directory. */
  readonly digest: Digest;
  /** When it was pushed, or when fetching it began. */
  readonly sinceMs: number;
  readonly expireAt: Timestamp | undefined;
}

export interface AssetRegister {
  get(name: AssetName, options: { readonly signal: AbortSignal }): Promise<Asset | undefined>;
  /** The content must be held: FAILED_PRECONDITION otherwise. */
  put(name: AssetName, asset: Asset, options: { readonly signal: AbortSignal }): Promise<void>;
}

export function createAssetRegister(actions: ActionCache, nowMs: () => number): AssetRegister {
  return {
    async get(name, options) {
      const result = await actions.get(keyOf(name), options);
      const wire =
        name.kind === 'blob' ? result?.outputFiles[0]?.digest : result?.outputDirectories[0]?.rootDirectoryDigest;
      const since = result?.executionMetadata?.workerCompletedTimestamp;
      if (!wire || !since) return undefined;
      const [packed] = result?.executionMetadata?.auxiliaryMetadata ?? [];
      const expireAt = packed && anyUnpack(packed, TimestampSchema);
      if (expireAt && timestampMs(expireAt) <= nowMs()) return undefined;
      return { digest: fromWireDigest(wire, digestFunctions[name.fn].wire), sinceMs: timestampMs(since), expireAt };
    },
    async put(name, { digest, sinceMs, expireAt }, options) {
      const content = toWireDigest(digest);
      const result = create(ActionResultSchema, {
        outputFiles: name.kind === 'blob' ? [{ path: 'asset', digest: content }] : [],
        outputDirectories: name.kind === 'directory' ? [{ path: 'asset', rootDirectoryDigest: content }] : [],
        executionMetadata: {
          workerCompletedTimestamp: timestampFromMs(sinceMs),
          auxiliaryMetadata: expireAt ? [anyPack(TimestampSchema, expireAt)] : [],
        },
      });
      await actions.put(keyOf(name), result, options);
    },
  };
}

function keyOf({ instance, fn, kind, uri, qualifiers }: AssetName): ActionKey {
  const sorted = qualifiers.map(({ name, value }) => [name, value]).sort(([a = ''], [b = '']) => (a < b ? -1 : 1));
  return { instance, action: digestOf(fn, Buffer.from(JSON.stringify(['potluck remote asset', kind, uri, sorted]))) };
}
