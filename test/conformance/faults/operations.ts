/** Ways to change what an execution says, and what it runs. */
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import type { DescMessage, MessageShape } from '@bufbuild/protobuf';
import { type Any, anyPack, anyUnpack } from '@bufbuild/protobuf/wkt';
import type { DigestFunction } from '../../../protos/digest.ts';
import {
  ActionCache,
  type Action,
  type ActionResult,
  ActionSchema,
  type Command,
  CommandSchema,
  ContentAddressableStorage,
  type Digest,
  DigestFunction_Value,
  DigestSchema,
  type ExecuteOperationMetadata,
  ExecuteOperationMetadataSchema,
  type ExecuteResponse,
  ExecuteResponseSchema,
  Execution,
} from '../../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import type { Operation } from '../../../protos/gen/google/longrunning/operations_pb.ts';
import { PreconditionFailureSchema } from '../../../protos/gen/google/rpc/error_details_pb.ts';
import { StatusSchema } from '../../../protos/gen/google/rpc/status_pb.ts';
import { digestOf } from '../../../protos/hasher.ts';
import type { Client } from '../client.ts';
import { type Ending, type Fault, fault, faults } from './proxy.ts';

const { execute, waitExecution } = Execution.method;

export function responseOf(operation: Operation): ExecuteResponse | undefined {
  return operation.result.case === 'response' ? anyUnpack(operation.result.value, ExecuteResponseSchema) : undefined;
}

export function changedOperations(change: (operation: Operation) => void): Fault {
  return faults(
    fault(execute, () => ({ response: change })),
    fault(waitExecution, () => ({ response: change })),
  );
}

export function changedMetadata(change: (metadata: ExecuteOperationMetadata, operation: Operation) => void): Fault {
  return changedOperations((operation) => {
    const metadata = operation.metadata && anyUnpack(operation.metadata, ExecuteOperationMetadataSchema);
    if (!metadata) return;
    change(metadata, operation);
    operation.metadata = anyPack(ExecuteOperationMetadataSchema, metadata);
  });
}

export function changeResponse(operation: Operation, change: (response: ExecuteResponse) => void): void {
  const response = responseOf(operation);
  if (!response) return;
  change(response);
  operation.result = { case: 'response', value: anyPack(ExecuteResponseSchema, response) };
}

export function changedResponses(change: (response: ExecuteResponse) => void): Fault {
  return changedOperations((operation) => changeResponse(operation, change));
}

export function changedResults(change: (result: ActionResult) => void): Fault {
  return changedResponses((response) => {
    if (response.result) change(response.result);
  });
}

/** Changes or (by `undefined`) drops the subjects of MISSING violations, wherever they are told. */
export function changedSubjects(change: (subject: string, index: number) => string | undefined): Fault {
  const changed = (details: Any[]): Any[] =>
    details.map((detail) => {
      const failure = anyUnpack(detail, PreconditionFailureSchema);
      if (!failure) return detail;
      failure.violations = failure.violations.flatMap((violation, index) => {
        const subject = change(violation.subject, index);
        return subject === undefined ? [] : [{ ...violation, subject }];
      });
      return anyPack(PreconditionFailureSchema, failure);
    });
  const inTrailers = (ending: Ending) => {
    const [packed] = ending.metadata.get('grpc-status-details-bin');
    if (!(packed instanceof Buffer)) return;
    const status = fromBinary(StatusSchema, packed);
    status.details = changed(status.details);
    ending.metadata.set('grpc-status-details-bin', Buffer.from(toBinary(StatusSchema, status)));
  };
  const inResponse = (operation: Operation) =>
    changeResponse(operation, (response) => {
      if (response.status) response.status.details = changed(response.status.details);
    });
  return faults(
    fault(execute, () => ({ ending: inTrailers, response: inResponse })),
    fault(waitExecution, () => ({ ending: inTrailers, response: inResponse })),
  );
}

/**
 * Runs another action than the one that was asked for, where `rewrite` changes it (and returns true), and answers as if
 * it were the one; its result is found in the action cache under both.
 */
export function rewrittenActions(
  rewrite: (action: Action, command: Command, upstream: Client, fn: DigestFunction) => boolean | Promise<boolean>,
): Fault {
  const rewritten = new Map<string, Digest>();
  return faults(
    fault(execute, () => {
      let asked: Digest | undefined;
      return {
        async request(message, upstream) {
          asked = message.actionDigest;
          const fn: DigestFunction = message.digestFunction === DigestFunction_Value.BLAKE3 ? 'blake3' : 'sha256';
          const action = await load(upstream, ActionSchema, message.actionDigest, fn);
          const command = action && (await load(upstream, CommandSchema, action.commandDigest, fn));
          if (!asked || !action || !command || !(await rewrite(action, command, upstream, fn))) return;
          action.commandDigest = await store(upstream, CommandSchema, command, fn);
          message.actionDigest = await store(upstream, ActionSchema, action, fn);
          rewritten.set(asked.hash, message.actionDigest);
        },
        response(operation) {
          const metadata = operation.metadata && anyUnpack(operation.metadata, ExecuteOperationMetadataSchema);
          if (!metadata || !asked) return;
          metadata.actionDigest = asked;
          operation.metadata = anyPack(ExecuteOperationMetadataSchema, metadata);
        },
      };
    }),
    fault(ActionCache.method.getActionResult, () => ({
      request(message) {
        const other = rewritten.get(message.actionDigest?.hash ?? '');
        if (other) message.actionDigest = other;
      },
    })),
  );
}

export async function load<D extends DescMessage>(
  upstream: Client,
  schema: D,
  digest: Digest | undefined,
  fn: DigestFunction,
): Promise<MessageShape<D> | undefined> {
  if (!digest) return undefined;
  const { response } = await upstream.unary(ContentAddressableStorage.method.batchReadBlobs, {
    digests: [digest],
    digestFunction: fn === 'blake3' ? DigestFunction_Value.BLAKE3 : DigestFunction_Value.SHA256,
  });
  const [entry] = response?.responses ?? [];
  if (!entry || (entry.status?.code ?? 0) !== 0) return undefined;
  try {
    return fromBinary(schema, entry.data);
  } catch {
    // Not such a message: the server will say so.
    return undefined;
  }
}

export async function store<D extends DescMessage>(
  upstream: Client,
  schema: D,
  message: MessageShape<D>,
  fn: DigestFunction,
): Promise<Digest> {
  const data = toBinary(schema, message);
  const { hash, sizeBytes } = digestOf(fn, data);
  const digest = create(DigestSchema, { hash, sizeBytes: BigInt(sizeBytes) });
  await upstream.unary(ContentAddressableStorage.method.batchUpdateBlobs, {
    requests: [{ digest, data }],
    digestFunction: fn === 'blake3' ? DigestFunction_Value.BLAKE3 : DigestFunction_Value.SHA256,
  });
  return digest;
}
