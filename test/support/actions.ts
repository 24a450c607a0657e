/**
 * A small client of the Remote Execution API: hands actions to a node, waits for all of them, and keeps what the node
 * said about each: the stages it went through, who ran it, what came out.
 */
import { create, type DescMessage, type MessageInitShape, toBinary } from '@bufbuild/protobuf';
import { anyUnpack, timestampMs } from '@bufbuild/protobuf/wkt';
import { connectGrpc } from '../../node/reapi/grpc-client.ts';
import { type Digest, digestKey, toWireDigest } from '../../protos/digest.ts';
import {
  ActionCache,
  type ActionResult,
  ActionSchema,
  CommandSchema,
  ContentAddressableStorage,
  DirectorySchema,
  ExecuteOperationMetadataSchema,
  ExecuteResponseSchema,
  Execution,
  ExecutionStage_Value,
} from '../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import type { Operation } from '../../protos/gen/google/longrunning/operations_pb.ts';
import { digestOf } from '../../protos/hasher.ts';
import { type Code, codeName, StatusError } from '../../protos/status.ts';

export interface ActionSpec {
  /** Two actions of different names are different actions. */
  readonly name: string;
  /** Run by `/bin/sh -c`; what it leaves in `out` is the output. */
  readonly script: string;
  readonly timeoutMs?: number;
  readonly doNotCache?: boolean;
  /** Asked of whoever runs it. */
  readonly platform?: Readonly<Record<string, string>>;
}

export type Stage = 'unknown' | 'cacheCheck' | 'queued' | 'executing' | 'completed';

export interface ActionRun {
  readonly name: string;
  /** Of the call, or of the execution: `OK` whatever the exit code is. */
  readonly code: Code;
  readonly message: string;
  readonly exitCode: number | undefined;
  /** As its execution metadata says; empty without a result. */
  readonly worker: string;
  readonly cached: boolean;
  /** HASH/SIZE of each output by path. */
  readonly outputs: ReadonlyMap<string, string>;
  /** Each stage that the stream told, once for each time that it was entered. */
  readonly stages: readonly Stage[];
  /** From the call to the answer. */
  readonly tookMs: number;
  /** From start to completion of the worker; NaN when it does not say. */
  readonly workerMs: number;
}

export interface ActionClient extends Disposable {
  /** Stores what the actions need. */
  upload(specs: readonly ActionSpec[]): Promise<void>;
  /** Executes one that was uploaded. Never rejects: a failed call is in the run. */
  execute(spec: ActionSpec, options?: ExecuteOptions): Promise<ActionRun>;
  /** Uploads and executes all at once. */
  run(specs: readonly ActionSpec[], options?: ExecuteOptions): Promise<ActionRun[]>;
  /** What the node would answer a client that asks for the result: HASH/SIZE of each output by path. */
  known(spec: ActionSpec): Promise<ReadonlyMap<string, string> | undefined>;
}

export interface ExecuteOptions {
  readonly signal?: AbortSignal;
  readonly onStage?: (name: string, stage: Stage) => void;
}

const fn = 'sha256';
const stageNames: Readonly<Record<ExecutionStage_Value, Stage>> = {
  [ExecutionStage_Value.UNKNOWN]: 'unknown',
  [ExecutionStage_Value.CACHE_CHECK]: 'cacheCheck',
  [ExecutionStage_Value.QUEUED]: 'queued',
  [ExecutionStage_Value.EXECUTING]: 'executing',
  [ExecutionStage_Value.COMPLETED]: 'completed',
};

/** @param address - of a node's gRPC listener, on a socket of the file system when the node is in a network namespace */
export function openActionClient(address: string): ActionClient {
  const connection = connectGrpc(address);
  const execution = connection.client(Execution);
  const storage = connection.client(ContentAddressableStorage);
  const results = connection.client(ActionCache);

  async function upload(specs: readonly ActionSpec[]): Promise<void> {
    const blobs = new Map<string, { digest: Digest; data: Uint8Array }>();
    for (const spec of specs) for (const blob of encoded(spec).blobs) blobs.set(digestKey(blob.digest), blob);
    const all = [...blobs.values()];
    for (let at = 0; at < all.length; at += uploadedAtOnce) {
      const requests = all
        .slice(at, at + uploadedAtOnce)
        .map(({ digest, data }) => ({ digest: toWireDigest(digest), data }));
      const { responses } = await storage.batchUpdateBlobs({ requests });
      const failed = responses.find(({ status }) => status && status.code !== 0);
      if (failed) throw new Error(`an upload failed: ${failed.status?.message}`);
    }
  }

  async function execute(spec: ActionSpec, { signal, onStage }: ExecuteOptions = {}): Promise<ActionRun> {
    const started = performance.now();
    const stages: Stage[] = [];
    let last: Operation | undefined;
    let failure: StatusError | undefined;
    try {
      const request = { actionDigest: toWireDigest(encoded(spec).action) };
      for await (const operation of execution.execute(request, signal ? { signal } : {})) {
        last = operation;
        const stage = stageOf(operation);
        if (stage === undefined || stage === stages.at(-1)) continue;
        stages.push(stage);
        onStage?.(spec.name, stage);
      }
    } catch (error) {
      if (!(error instanceof StatusError)) throw error;
      failure = error;
    }
    return { name: spec.name, stages, tookMs: performance.now() - started, ...answerOf(last, failure) };
  }

  return {
    upload,
    execute,
    async run(specs, options) {
      await upload(specs);
      return Promise.all(specs.map((spec) => execute(spec, options)));
    },
    async known(spec) {
      try {
        return outputsOf(await results.getActionResult({ actionDigest: toWireDigest(encoded(spec).action) }));
      } catch (error) {
        if (error instanceof StatusError && error.code === 'NOT_FOUND') return undefined;
        throw error;
      }
    },
    [Symbol.dispose]: () => connection.close(),
  };
}

const uploadedAtOnce = 500;

/** `count` actions that take `ms` each and nobody has run; each leaves its name. */
export function sleepers(label: string, count: number, ms: number): ActionSpec[] {
  return Array.from({ length: count }, (_, index) => {
    const name = `${label}-${index}`;
    return { name, script: `sleep ${ms / 1000}; echo ${name} > out` };
  });
}

function encoded(spec: ActionSpec): { action: Digest; blobs: { digest: Digest; data: Uint8Array }[] } {
  const blobs: { digest: Digest; data: Uint8Array }[] = [];
  const put = <Desc extends DescMessage>(schema: Desc, init: MessageInitShape<Desc>): Digest => {
    const data = toBinary(schema, create(schema, init));
    const digest = digestOf(fn, data);
    blobs.push({ digest, data });
    return digest;
  };
  const platform = {
    properties: Object.entries(spec.platform ?? {})
      .toSorted(([one], [other]) => (one < other ? -1 : 1))
      .map(([name, value]) => ({ name, value })),
  };
  const command = put(CommandSchema, {
    arguments: ['/bin/sh', '-c', spec.script],
    environmentVariables: [{ name: 'PATH', value: '/usr/bin:/bin' }],
    outputPaths: ['out'],
    platform,
  });
  const action = put(ActionSchema, {
    commandDigest: toWireDigest(command),
    inputRootDigest: toWireDigest(put(DirectorySchema, {})),
    salt: Buffer.from(spec.name),
    doNotCache: spec.doNotCache ?? false,
    platform,
    ...(spec.timeoutMs !== undefined && {
      timeout: { seconds: BigInt(Math.floor(spec.timeoutMs / 1000)), nanos: (spec.timeoutMs % 1000) * 1e6 },
    }),
  });
  return { action, blobs };
}

function stageOf(operation: Operation): Stage | undefined {
  const metadata = operation.metadata && anyUnpack(operation.metadata, ExecuteOperationMetadataSchema);
  return metadata && stageNames[metadata.stage];
}

type Answer = Omit<ActionRun, 'name' | 'stages' | 'tookMs'>;

function answerOf(operation: Operation | undefined, failure: StatusError | undefined): Answer {
  const none = { exitCode: undefined, worker: '', cached: false, outputs: new Map<string, string>(), workerMs: NaN };
  if (failure) return { ...none, code: failure.code, message: failure.reason };
  const { result } = operation ?? {};
  if (result?.case === 'error') return { ...none, code: codeName(result.value.code), message: result.value.message };
  const response = result?.case === 'response' ? anyUnpack(result.value, ExecuteResponseSchema) : undefined;
  if (!response) return { ...none, code: 'INTERNAL', message: 'the stream ended without an answer' };
  const metadata = response.result?.executionMetadata;
  const { workerStartTimestamp: from, workerCompletedTimestamp: to } = metadata ?? {};
  return {
    code: codeName(response.status?.code ?? 0),
    message: response.status?.message || response.message,
    exitCode: response.result?.exitCode,
    worker: metadata?.worker ?? '',
    cached: response.cachedResult,
    outputs: response.result ? outputsOf(response.result) : new Map<string, string>(),
    workerMs: from && to ? timestampMs(to) - timestampMs(from) : NaN,
  };
}

function outputsOf(result: ActionResult): Map<string, string> {
  return new Map(result.outputFiles.map(({ path, digest }) => [path, `${digest?.hash}/${digest?.sizeBytes}`]));
}

/** How many of the runs each worker did. */
export function countByWorker(runs: readonly ActionRun[]): Map<string, number> {
  const counts = new Map<string, number>();
  for (const { worker } of runs) counts.set(worker, (counts.get(worker) ?? 0) + 1);
  return counts;
}
