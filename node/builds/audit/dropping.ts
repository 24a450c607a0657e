/** The action cache without the results that an audit dropped: neither found nor stored any more. */
import { digestKey } from '../../../protos/digest.ts';
import type { ActionCache, ActionKey } from '../../storage/action-cache.ts';
import type { ActionResult } from '../../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { fingerprint } from './compare.ts';
import type { Ledger } from './ledger.ts';

type DroppedResults = Pick<Ledger, 'isDropped' | 'hasDropped'>;

export function isDroppedResult(
  ledger: DroppedResults,
  { instance, action }: ActionKey,
  result: ActionResult,
): boolean {
  const key = digestKey(action);
  return ledger.hasDropped(key, instance) && ledger.isDropped(key, instance, fingerprint(action.fn, result));
}

/**
 * An entry that was dropped counts as absent; another result of the same action may take its place. Storing a dropped result
 * again does nothing, since it may come from anybody who still has it.
 */
export function withoutDropped(inner: ActionCache, ledger: DroppedResults): ActionCache {
  const isDropped = (key: ActionKey, result: ActionResult): boolean => isDroppedResult(ledger, key, result);
  return {
    async get(key, options) {
      const result = await inner.get(key, options);
      return result && !isDropped(key, result) ? result : undefined;
    },
    async put(key, result, options) {
      if (!isDropped(key, result)) await inner.put(key, result, options);
    },
  };
}
