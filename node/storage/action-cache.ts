/** Action results by (instance name, digest function, action digest). */
import type { Digest } from '../../protos/digest.ts';
import type { ActionResult } from '../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import type { CallOptions } from './blob-store.ts';

export interface ActionKey {
  /** May be empty or of several segments. */
  readonly instance: string;
  /** The digest function is the action digest's. */
  readonly action: Digest;
}

export interface ActionCache {
  /**
   * The result, or `undefined`: a result any of whose blobs (files, Trees and all inside, stdout, stderr) is not held
   * counts as absent. A hit lengthens the life of the entry and of all it names.
   */
  get(key: ActionKey, options?: CallOptions): Promise<ActionResult | undefined>;

  /**
   * Stores a result; resolves when it is durable. Its blobs must be held by then, or FAILED_PRECONDITION names the missing ones,
   * in the text and as a PreconditionFailure of type MISSING. Throws INVALID_ARGUMENT for malformed digests, a Tree that is
   * none, and inline contents that do not have their digest.
   */
  put(key: ActionKey, result: ActionResult, options?: CallOptions): Promise<void>;
}
