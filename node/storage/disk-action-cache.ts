/** Action results as values of the index, never newer than the blobs they name. */
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { anyPack } from '@bufbuild/protobuf/wkt';
import { type Digest, digestKey, digestPath } from '../../protos/digest.ts';
import {
  type ActionResult,
  ActionResultSchema,
} from '../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { PreconditionFailureSchema } from '../../protos/gen/google/rpc/error_details_pb.ts';
import { StatusError } from '../../protos/status.ts';
import type { ActionCache, ActionKey } from './action-cache.ts';
import type { LocalBlobStore } from './blob-store.ts';
import { changeBytes, type Committer } from './committer.ts';
import type { Counters } from './counters.ts';
import { keyText, resultKey } from './entry-key.ts';
import * as limits from './limits.ts';
import type { Recency } from './recency.ts';
import type { Residency } from './residency.ts';
import { createResultClosures } from './result-closure.ts';
import type { Space } from './space.ts';
import type { IndexChange, StoreIndex } from './store-index.ts';

export interface DiskActionCacheOptions {
  readonly index: StoreIndex;
  readonly committer: Committer;
  readonly recency: Recency;
  readonly residency: Residency;
  readonly space: Space;
  readonly blobs: LocalBlobStore;
  readonly counters: Counters;
}

export function createDiskActionCache(options: DiskActionCacheOptions): ActionCache {
  const { index, committer, recency, residency, space, blobs, counters } = options;
  const closures = createResultClosures(blobs);

  async function isComplete(result: ActionResult, action: Digest): Promise<boolean> {
    try {
      const { needed, missing } = await closures.of(result, action.fn);
      return missing.length === 0 && (await blobs.missing(needed)).length === 0;
    } catch (error) {
      // It passed these checks when it was stored; what fails them now cannot be served.
      if (error instanceof StatusError && error.code === 'INVALID_ARGUMENT') return false;
      throw error;
    }
  }

  return {
    async get(actionKey, { signal } = {}) {
      signal?.throwIfAborted();
      const key = resultKey(actionKey);
      const name = { key, text: keyText(key) };
      const entry = residency.has(name) ? index.find(key) : undefined;
      const bytes = entry && index.value(entry);
      if (!bytes) {
        counters.resultMisses++;
        return undefined;
      }
      const result = fromBinary(ActionResultSchema, bytes);
      if (!(await isComplete(result, actionKey.action))) {
        counters.resultIncomplete++;
        return undefined;
      }
      recency.touch(name);
      counters.resultHits++;
      return result;
    },

    async put(actionKey, result, { signal } = {}) {
      signal?.throwIfAborted();
      const key = resultKey(actionKey);
      const { needed, missing } = await closures.of(result, actionKey.action.fn);
      // Pinned, so that none is evicted between the check and the commit.
      using pin = await blobs.pin(needed);
      const absent = [...missing, ...pin.missing];
      if (absent.length > 0) throw missingBlobs(actionKey, absent);
      const change: IndexChange = { kind: 'inline', key, value: toBinary(ActionResultSchema, result) };
      const what = `storing the result of action ${digestKey(actionKey.action)}`;
      const lease = await space.reserve({ fileBytes: 0, indexBytes: changeBytes(change) }, what, signal && { signal });
      try {
        await residency.settle(keyText(key));
        await committer.commit([change], lease.release);
      } finally {
        lease.release();
      }
    },
  };
}

function missingBlobs({ action }: ActionKey, absent: readonly Digest[]): StatusError {
  const unique = [...new Map(absent.map((digest) => [digestKey(digest), digest])).values()];
  const named = unique.slice(0, limits.namedMissingMax).map(digestKey).join(', ');
  const more = unique.length > limits.namedMissingMax ? ` and ${unique.length - limits.namedMissingMax} more` : '';
  const violations = unique.map((digest) => ({
    type: 'MISSING',
    subject: `blobs/${digestPath(digest)}`,
    description: '',
  }));
  return new StatusError(
    'FAILED_PRECONDITION',
    `the result of action ${digestKey(action)} names blobs that are not in the cache: ${named}${more}`,
    { details: [anyPack(PreconditionFailureSchema, create(PreconditionFailureSchema, { violations }))] },
  );
}
