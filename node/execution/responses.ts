/** The messages that clients of the execution service see. */
import { create, toBinary } from '@bufbuild/protobuf';
import { type Any, anyPack, timestampFromMs } from '@bufbuild/protobuf/wkt';
import { type Digest, digestFunctions, toWireDigest } from '../../protos/digest.ts';
import {
  type ActionResult,
  ExecuteOperationMetadataSchema,
  type ExecuteResponse,
  ExecuteResponseSchema,
  type ExecutionStage_Value,
  ExecutedActionMetadataSchema,
} from '../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { type Operation, OperationSchema } from '../../protos/gen/google/longrunning/operations_pb.ts';
import type { StatusError } from '../../protos/status.ts';
import { toWireStatus } from '../reapi/grpc-status.ts';
import { serverLogName } from './server-log.ts';

/** The answer of an execution that ran to an end: any exit code is OK; an error stands in the status. */
export function executeResponse(fields: {
  readonly result?: ActionResult | undefined;
  readonly error?: StatusError | undefined;
  readonly cachedResult?: boolean;
  readonly message?: string;
  /** What the worker wrote about it. */
  readonly log?: Digest | undefined;
}): ExecuteResponse {
  const { result, error, cachedResult = false, message = '', log } = fields;
  return create(ExecuteResponseSchema, {
    ...(result && { result }),
    cachedResult,
    status: toWireStatus(error),
    message,
    ...(log && { serverLogs: { [serverLogName]: { digest: toWireDigest(log), humanReadable: true } } }),
  });
}

export function encodedBytes(response: ExecuteResponse): number {
  return toBinary(ExecuteResponseSchema, response).byteLength;
}

export interface OperationState {
  readonly name: string;
  readonly action: Digest;
  readonly stage: ExecutionStage_Value;
  readonly stdoutStreamName: string;
  readonly stderrStreamName: string;
  readonly worker: string;
  readonly queuedAtMs: number | undefined;
  readonly startedAtMs: number | undefined;
  /** Set exactly when the stage is COMPLETED. */
  readonly response: ExecuteResponse | undefined;
}

export function operationMessage(state: OperationState): Operation {
  const partial = create(ExecutedActionMetadataSchema, {
    worker: state.worker,
    ...(state.queuedAtMs !== undefined && { queuedTimestamp: timestampFromMs(state.queuedAtMs) }),
    ...(state.startedAtMs !== undefined && { workerStartTimestamp: timestampFromMs(state.startedAtMs) }),
  });
  const metadata = create(ExecuteOperationMetadataSchema, {
    stage: state.stage,
    actionDigest: toWireDigest(state.action),
    digestFunction: digestFunctions[state.action.fn].wire,
    stdoutStreamName: state.stdoutStreamName,
    stderrStreamName: state.stderrStreamName,
    ...(!state.response && { partialExecutionMetadata: partial }),
  });
  return create(OperationSchema, {
    name: state.name,
    metadata: anyPack(ExecuteOperationMetadataSchema, metadata),
    done: state.response !== undefined,
    ...(state.response && { result: { case: 'response' as const, value: packResponse(state.response) } }),
  });
}

function packResponse(response: ExecuteResponse): Any {
  return anyPack(ExecuteResponseSchema, response);
}
