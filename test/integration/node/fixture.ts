/** A whole node in this process, served on real sockets, and clients for it. */
import { create, fromBinary, type MessageInitShape, toBinary } from '@bufbuild/protobuf';
import { anyUnpack } from '@bufbuild/protobuf/wkt';
import { chmod, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { NodeConfig } from '../../../node/config/config.ts';
import { createNode, type NodePorts, type PotluckNode } from '../../../node/create-node.ts';
import { connectGrpc } from '../../../node/reapi/grpc.ts';
import { type Digest, digestFunctions, toWireDigest } from '../../../protos/digest.ts';
import {
  ActionCache,
  ActionSchema,
  Capabilities,
  type Command,
  CommandSchema,
  ContentAddressableStorage,
  DirectorySchema,
  ExecuteOperationMetadataSchema,
  type ExecuteOperationMetadata,
  type ExecuteResponse,
  ExecuteResponseSchema,
  Execution,
} from '../../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { ByteStream } from '../../../protos/gen/google/bytestream/bytestream_pb.ts';
import { type Operation, Operations } from '../../../protos/gen/google/longrunning/operations_pb.ts';
import { PreconditionFailureSchema } from '../../../protos/gen/google/rpc/error_details_pb.ts';
import type { Status } from '../../../protos/gen/google/rpc/status_pb.ts';
import { Health } from '../../../protos/gen/grpc/health/v1/health_pb.ts';
import { digestOf } from '../../../protos/hasher.ts';
import type { StatusError } from '../../../protos/status.ts';

const mebibyte = 1024 ** 2;

export const testConfig: Omit<NodeConfig, 'dataDir'> = {
  listen: ['127.0.0.1:0'],
  http: '127.0.0.1:0',
  cacheSizeBytes: 256 * mebibyte,
  slots: 2,
  instances: undefined,
  durability: 'fast',
  tls: undefined,
  bearerTokenFile: undefined,
  bwrapPath: undefined,
  defaultActionTimeoutMs: 60_000,
  maxActionTimeoutMs: 120_000,
  platformProperties: [],
  validateHttpActionResults: true,
  remoteAsset: false,
  auditPercent: 0,
  logFormat: 'text',
};

export interface ActionSpec {
  /** For `/bin/sh -c`. */
  readonly script: string;
  /** Files of the input root by name. */
  readonly inputs?: Readonly<Record<string, string>>;
  readonly command?: MessageInitShape<typeof CommandSchema>;
  readonly action?: MessageInitShape<typeof ActionSchema>;
  readonly fn?: Digest['fn'];
}

export interface BuiltAction {
  readonly digest: Digest;
  readonly command: Command;
  /** Action, command, root directory and files. */
  readonly blobs: {
    readonly action: TestBlob;
    readonly command: TestBlob;
    readonly root: TestBlob;
    readonly files: TestBlob[];
  };
}

interface TestBlob {
  readonly digest: Digest;
  readonly bytes: Uint8Array;
}

export function buildAction({
  script,
  inputs = {},
  command = {},
  action = {},
  fn = 'sha256',
}: ActionSpec): BuiltAction {
  const blob = (bytes: Uint8Array): TestBlob => ({ digest: digestOf(fn, bytes), bytes });
  const files = Object.entries(inputs)
    .sort(([a], [b]) => Buffer.compare(Buffer.from(a), Buffer.from(b)))
    .map(([name, text]) => ({ name, ...blob(Buffer.from(text)) }));
  const root = create(DirectorySchema, {
    files: files.map(({ name, digest }) => ({ name, digest: toWireDigest(digest) })),
  });
  const commandMessage = create(CommandSchema, { arguments: ['/bin/sh', '-c', script], ...command });
  const rootBlob = blob(toBinary(DirectorySchema, root));
  const commandBlob = blob(toBinary(CommandSchema, commandMessage));
  const actionBlob = blob(
    toBinary(
      ActionSchema,
      create(ActionSchema, {
        commandDigest: toWireDigest(commandBlob.digest),
        inputRootDigest: toWireDigest(rootBlob.digest),
        ...action,
      }),
    ),
  );
  return {
    digest: actionBlob.digest,
    command: commandMessage,
    blobs: { action: actionBlob, command: commandBlob, root: rootBlob, files },
  };
}

export async function openNode(overrides: Partial<NodeConfig> = {}, ports: NodePorts = {}) {
  const own = overrides.dataDir === undefined ? await mkdtemp(join(tmpdir(), 'potluck-test-')) : undefined;
  // Actions of a node that runs as root run as another user, who must be able to come here.
  if (own) await chmod(own, 0o755);
  const dataDir = overrides.dataDir ?? join(own as string, 'data');
  const node = await createNode({ ...testConfig, ...overrides, dataDir }, ports);
  const connection = connectGrpc(node.facts.grpc[0] as string);
  const cas = connection.client(ContentAddressableStorage);
  const execution = connection.client(Execution);
  const actionCache = connection.client(ActionCache);

  const upload = async (fn: Digest['fn'], blobs: readonly TestBlob[], instanceName = ''): Promise<void> => {
    const answer = await cas.batchUpdateBlobs({
      instanceName,
      digestFunction: digestFunctions[fn].wire,
      requests: blobs.map(({ digest, bytes }) => ({ digest: toWireDigest(digest), data: bytes })),
    });
    for (const { status } of answer.responses) if (status && status.code !== 0) throw new Error(status.message);
  };
  const request = (digest: Digest, extra: Partial<ExecuteExtras> = {}) => ({
    actionDigest: toWireDigest(digest),
    digestFunction: digestFunctions[digest.fn].wire,
    ...extra,
  });

  return {
    node: node as PotluckNode,
    dataDir,
    cas,
    execution,
    actionCache,
    operations: connection.client(Operations),
    byteStream: connection.client(ByteStream),
    capabilities: connection.client(Capabilities),
    health: connection.client(Health),
    http: `http://${node.facts.http}`,
    upload,
    request,

    /** Uploads an action with all it needs. */
    async prepare(spec: ActionSpec, instanceName = ''): Promise<Digest> {
      const { digest, blobs } = buildAction(spec);
      await upload(digest.fn, [blobs.action, blobs.command, blobs.root, ...blobs.files], instanceName);
      return digest;
    },

    /** Starts an Execute call and follows it. */
    execute(digest: Digest, extra: Partial<ExecuteExtras> = {}): Followed {
      const abort = new AbortController();
      return follow(execution.execute(request(digest, extra), { signal: abort.signal }), abort);
    },
    wait(name: string): Followed {
      const abort = new AbortController();
      return follow(execution.waitExecution({ name }, { signal: abort.signal }), abort);
    },

    async text(blob: { hash: string; sizeBytes: bigint } | undefined): Promise<string> {
      if (!blob) return '';
      const { responses } = await cas.batchReadBlobs({ digests: [blob] });
      return Buffer.from(responses[0]?.data ?? []).toString();
    },
    load(): { executing: number; queued: number } {
      const { executing = 0, queued = 0 } = node.status().execution ?? {};
      return { executing, queued };
    },

    async [Symbol.asyncDispose]() {
      connection.close();
      await node.close({ drainMaxMs: 0 });
      if (own) await rm(own, { recursive: true, force: true });
    },
  };
}

export type TestNode = Awaited<ReturnType<typeof openNode>>;

export interface ExecuteExtras {
  readonly instanceName: string;
  readonly skipCacheLookup: boolean;
  readonly executionPolicy: { readonly priority: number };
  readonly inlineStdout: boolean;
  readonly inlineStderr: boolean;
  readonly inlineOutputFiles: string[];
}

export interface Followed {
  /** All operations so far. */
  readonly seen: readonly Operation[];
  /** Resolves with the first operation. */
  readonly first: Promise<Operation>;
  /** Resolves with the last one when the stream ended well; rejects with the call's status. */
  readonly last: Promise<Operation>;
  /** The response inside the last one. */
  readonly response: Promise<ExecuteResponse>;
  /** Breaks the call off, as a client does that goes away. */
  leave(): Promise<void>;
}

function follow(stream: AsyncIterable<Operation>, abort: AbortController): Followed {
  const seen: Operation[] = [];
  const first = Promise.withResolvers<Operation>();
  const last = (async () => {
    for await (const operation of stream) {
      seen.push(operation);
      first.resolve(operation);
    }
    const operation = seen.at(-1);
    if (!operation) throw new Error('the stream ended without an operation');
    return operation;
  })();
  last.catch((error: unknown) => first.reject(error));
  const response = last.then(responseOf);
  for (const promise of [first.promise, last, response]) promise.catch(() => {});
  return {
    seen,
    first: first.promise,
    last,
    response,
    async leave() {
      abort.abort();
      await last.catch(() => {});
    },
  };
}

export function responseOf(operation: Operation): ExecuteResponse {
  if (!operation.done || operation.result.case !== 'response') throw new Error('the operation has no response');
  return fromBinary(ExecuteResponseSchema, operation.result.value.value);
}

export function metadataOf(operation: Operation): ExecuteOperationMetadata {
  const metadata = operation.metadata && anyUnpack(operation.metadata, ExecuteOperationMetadataSchema);
  if (!metadata) throw new Error('the operation has no metadata');
  return metadata;
}

/** Subjects of the MISSING violations of a status, sorted. */
export function missingSubjects(status: StatusError | Status | undefined): string[] {
  return (status?.details ?? [])
    .flatMap((detail) => anyUnpack(detail, PreconditionFailureSchema)?.violations ?? [])
    .filter(({ type }) => type === 'MISSING')
    .map(({ subject }) => subject)
    .sort();
}
