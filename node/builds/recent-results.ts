/**
 * What lookups found lately: how long the action took when it ran, and who gave the result. A lookup tells its client the
 * result only; the record of the hit needs the rest.
 */
import { timestampMs } from '@bufbuild/protobuf/wkt';
import { digestKey } from '../../protos/digest.ts';
import type {
  ActionResult,
  ExecutedActionMetadata,
} from '../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import type { ActionCache, ActionKey } from '../storage/action-cache.ts';
import * as limits from './limits.ts';

interface RecentResult {
  readonly runMs: number;
}

export interface RecentResults {
  /** The cache, observed. */
  observe(actions: ActionCache): ActionCache;
  /** The result came from a member. */
  onFound(key: ActionKey, from: string): void;
  runMs(key: ActionKey): number;
  /** The member that the result came from after `sinceMs`; `undefined` when it was here before. */
  foundAt(key: ActionKey, sinceMs: number): string | undefined;
}

export function createRecentResults(nowMs: () => number): RecentResults {
  const results = new Map<string, RecentResult>();
  const found = new Map<string, { readonly from: string; readonly atMs: number }>();
  return {
    observe: (actions) => ({
      async get(key, options) {
        const result = await actions.get(key, options);
        if (result) remember(results, nameOf(key), { runMs: runMsOf(result) });
        return result;
      },
      put: (key, result, options) => actions.put(key, result, options),
    }),
    onFound: (key, from) => remember(found, nameOf(key), { from, atMs: nowMs() }),
    runMs: (key) => results.get(nameOf(key))?.runMs ?? 0,
    foundAt(key, sinceMs) {
      const one = found.get(nameOf(key));
      return one && one.atMs >= sinceMs ? one.from : undefined;
    },
  };
}

/** What the command took, as who ran it wrote down; 0 when it did not. */
export function runMsOf({ executionMetadata: metadata }: ActionResult): number {
  if (!metadata) return 0;
  const command = between(metadata, 'executionStartTimestamp', 'executionCompletedTimestamp');
  return command > 0 ? command : between(metadata, 'workerStartTimestamp', 'workerCompletedTimestamp');
}

type Stamp =
  | 'executionStartTimestamp'
  | 'executionCompletedTimestamp'
  | 'workerStartTimestamp'
  | 'workerCompletedTimestamp';

function between(metadata: ExecutedActionMetadata, from: Stamp, to: Stamp): number {
  const [start, end] = [metadata[from], metadata[to]];
  return start && end ? Math.max(0, timestampMs(end) - timestampMs(start)) : 0;
}

function nameOf({ instance, action }: ActionKey): string {
  return `${digestKey(action)} ${instance}`;
}

/** The newest are kept. */
function remember<T>(map: Map<string, T>, name: string, value: T): void {
  map.delete(name);
  map.set(name, value);
  const [oldest] = map.keys();
  if (map.size > limits.recentResultsMax && oldest !== undefined) map.delete(oldest);
}
