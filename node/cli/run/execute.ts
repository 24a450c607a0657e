/** Runs one action on a server and stays with it until it is done, through broken streams. */
import { anyUnpack } from '@bufbuild/protobuf/wkt';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  DigestFunction_Value,
  type ExecuteOperationMetadata,
  ExecuteOperationMetadataSchema,
  type ExecuteResponse,
  ExecuteResponseSchema,
  Execution,
} from '../../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { type Operation, Operations } from '../../../protos/gen/google/longrunning/operations_pb.ts';
import { type Digest, toWireDigest } from '../../../protos/digest.ts';
import { codeName, StatusError } from '../../../protos/status.ts';
import * as limits from './limits.ts';
import type { Remote } from './transfer.ts';

export interface ExecuteOptions {
  readonly signal: AbortSignal;
  readonly skipCacheLookup: boolean;
  readonly onMetadata: (metadata: ExecuteOperationMetadata) => void;
}

/**
 * Resolves to the final response, whose status may be DEADLINE_EXCEEDED with a partial result; throws a StatusError for
 * every other failure. When `signal` aborts, the server is told to cancel.
 */
export async function execute(remote: Remote, action: Digest, options: ExecuteOptions): Promise<ExecuteResponse> {
  const execution = remote.connection.client(Execution);
  const { signal } = options;
  let name: string | undefined;
  let waits = 0;
  try {
    for (;;) {
      const calls =
        name === undefined
          ? execution.execute(
              {
                instanceName: remote.instance,
                actionDigest: toWireDigest(action),
                skipCacheLookup: options.skipCacheLookup,
                digestFunction: DigestFunction_Value.SHA256,
              },
              { signal },
            )
          : execution.waitExecution({ name }, { signal });
      try {
        for await (const operation of calls) {
          name = operation.name;
          const metadata = operation.metadata && anyUnpack(operation.metadata, ExecuteOperationMetadataSchema);
          if (metadata) options.onMetadata(metadata);
          if (operation.done) return responseOf(operation);
        }
      } catch (error) {
        if (!(error instanceof StatusError) || !isBrokenStream(error, name)) throw error;
        // A node that was restarted has forgotten the operation; its caches have not forgotten the inputs.
        if (error.code === 'NOT_FOUND') name = undefined;
        if (waits === limits.waitAttemptsMax) throw error;
      }
      if (++waits > limits.waitAttemptsMax) {
        throw new StatusError('UNAVAILABLE', 'the server ended the execution without a result, again and again');
      }
      await sleep(limits.retryDelayMs * 2 ** (waits - 1), undefined, { signal });
    }
  } catch (error) {
    if (signal.aborted && name !== undefined) await cancel(remote, name);
    throw error;
  }
}

function isBrokenStream(error: StatusError, name: string | undefined): boolean {
  return name !== undefined && (error.code === 'UNAVAILABLE' || error.code === 'NOT_FOUND');
}

function responseOf({ result }: Operation): ExecuteResponse {
  if (result.case === 'error') throw new StatusError(codeName(result.value.code), result.value.message);
  const response = result.case === 'response' ? anyUnpack(result.value, ExecuteResponseSchema) : undefined;
  if (!response) throw new StatusError('INTERNAL', 'the server says that the execution is done, but gives no result');
  const { status } = response;
  if (status?.code && codeName(status.code) !== 'DEADLINE_EXCEEDED') {
    throw new StatusError(codeName(status.code), status.message, { details: status.details });
  }
  return response;
}

/** Best effort: a server that cannot be told finds out when nobody waits any more. */
async function cancel(remote: Remote, name: string): Promise<void> {
  const operations = remote.connection.client(Operations);
  await operations.cancelOperation({ name }, { timeoutMs: limits.cancelTimeoutMs }).catch(() => undefined);
}
