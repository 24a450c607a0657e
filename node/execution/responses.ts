/** The messages that clients of the execution service see. */
import { create, toBinary } from '@bufbuild/protobuf';
import { type Any, anyPack, timestampFromMs } from '@bufbuild/protobuf/wkt';
import { type Digest, digestFunctions, fromWireDigest, toWireDigest } from '../../protos/digest.ts';
import {
  type ActionResult,
  ExecuteOperationMetadataSchema,
  type ExecuteResponse,
  ExecuteResponseSchema,
  type ExecutionStage_Value,
  ExecutedActionMetadataSchema,
  type Digest as WireDigest,
} from '../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { type Operation, OperationSchema } from '../../protos/gen/google/longrunning/operations_pb.ts';
import type { StatusError } from '../../protos/status.ts';
import { toWireStatus } from '../reapi/grpc-status.ts';
import type { BlobStore, CallOptions } from '../storage/blob-store.ts';
import * as limits from './limits.ts';

/** What a client asks to have inside the answer besides the digests. */
export interface InlineHints {
  readonly inlineStdout: boolean;
  readonly inlineStderr: boolean;
  readonly inlineOutputFiles: readonly string[];
}

/** The answer of an execution that ran to an end: any exit code is OK; an error stands in the status. */
export function executeResponse(fields: {
  readonly result?: ActionResult | undefined;
  readonly error?: StatusError | undefined;
  readonly cachedResult?: boolean;
  readonly message?: string;
}): ExecuteResponse {
  const { result, error, cachedResult = false, message = '' } = fields;
  return create(ExecuteResponseSchema, {
    ...(result && { result }),
    cachedResult,
    status: toWireStatus(error),
    message,
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

/**
 * The response with what the client asked to have inside, as far as it fits into `inlineBytesMax` and is still held;
 * digests stay. The response itself is not changed.
 */
export async function withInlined(
  response: ExecuteResponse,
  hints: InlineHints,
  fn: Digest['fn'],
  blobs: Pick<BlobStore, 'get'>,
  options?: CallOptions,
): Promise<ExecuteResponse> {
  const { result } = response;
  if (!result || !(hints.inlineStdout || hints.inlineStderr || hints.inlineOutputFiles.length > 0)) return response;
  let leftBytes = limits.inlineBytesMax;
  const read = async (wire: WireDigest | undefined): Promise<Uint8Array | undefined> => {
    if (!wire || Number(wire.sizeBytes) > leftBytes) return undefined;
    const bytes = await blobs.get(fromWireDigest(wire, digestFunctions[fn].wire), options);
    leftBytes -= bytes?.byteLength ?? 0;
    return bytes;
  };
  const inlined: ActionResult = { ...result, outputFiles: [...result.outputFiles] };
  if (hints.inlineStdout) inlined.stdoutRaw = (await read(result.stdoutDigest)) ?? result.stdoutRaw;
  if (hints.inlineStderr) inlined.stderrRaw = (await read(result.stderrDigest)) ?? result.stderrRaw;
  const wanted = new Set(hints.inlineOutputFiles);
  for (const [index, file] of inlined.outputFiles.entries()) {
    if (!wanted.has(file.path)) continue;
    const contents = await read(file.digest);
    if (contents) inlined.outputFiles[index] = { ...file, contents };
  }
  return { ...response, result: inlined };
}
