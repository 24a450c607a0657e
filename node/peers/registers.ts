/** What the tier asks the mesh's coordinators; whoever drives the machine answers (node/offload/registers.ts). */
import type { BlobKey } from '../../mesh/core/ids.ts';
import type { InvalidationReason, Register } from '../../mesh/core/registers/types.ts';
import type { ActionResult } from '../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import type { VouchedResult } from '../../protos/gen/potluck/mesh/v1/results_pb.ts';
import type { ActionKey } from '../storage/action-cache.ts';

/** `answered`: by the leader of the action's shard, within a small budget. */
export interface Looked {
  readonly answered: boolean;
  readonly register: Register | undefined;
}

export interface Registers {
  /** Never rejects. */
  lookUp(key: ActionKey): Promise<Looked>;
  /** Offers a result that nobody had claimed; its blobs are here. It fills an empty register only. */
  publish(key: ActionKey, result: ActionResult, vouched: VouchedResult): Promise<void>;
  /** Has an entry that names this result blob dropped everywhere. */
  invalidate(key: ActionKey, result: BlobKey, reason: InvalidationReason): void;
}
