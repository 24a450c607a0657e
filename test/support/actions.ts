/**
 * A small client of the Remote Execution API: hands actions to a node, waits for all of them, and keeps what the node
 * said about each: the stages it went through, who ran it, what came out.
 */
import { create, type DescMessage, type MessageInitShape, toBinary } from '@bufbuild/protobuf';
import { anyUnpack, timestampMs } from '@bufbuild/protobuf/wkt';
import { connectGrpc } from '../../node/reapi/grpc-client.ts';
import { type Digest, digestKey, makeDigest, toWireDigest } from '../../protos/digest.ts';
import {
  ActionCache,
  type ActionResult,
  ActionSchema,
  CommandSchema,
  ContentAddressableStorage,
  type Digest as WireDigest,
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
  /** What it leaves in `out` is its output. */
  readonly argv: readonly string[];
  /** Its files: bytes, or HASH/SIZE of what is stored already. */
  readonly inputs?: Readonly<Record<string, Uint8Array | string>>;
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
  /** Stores bytes and tells HASH/SIZE of each. */
  put(blobs: readonly Uint8Array[]): Promise<string[]>;
  /** The bytes of HASH/SIZE; undefined when they are not to be had. */
  get(blob: string): Promise<Uint8Array | undefined>;
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
  /** Told of each stage, and of each worker that takes the action on; empty while nobody has. */
  readonly onProgress?: (name: string, stage: Stage, worker: string) => void;
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

  async function store(blobs: Iterable<Blob>): Promise<void> {
    const requests: { digest: WireDigest; data: Uint8Array }[] = [];
    let bytes = 0;
    const flush = async (): Promise<void> => {
      bytes = 0;
      const { responses } = await storage.batchUpdateBlobs({ requests: requests.splice(0) });
      const failed = responses.find(({ status }) => status && status.code !== 0);
      if (failed) throw new Error(`an upload failed: ${failed.status?.message}`);
    };
    for (const { digest, data } of blobs) {
      if (requests.length > 0 && bytes + data.byteLength > batchBytesMax) await flush();
      requests.push({ digest: toWireDigest(digest), data });
      bytes += data.byteLength;
    }
    if (requests.length > 0) await flush();
  }

  async function upload(specs: readonly ActionSpec[]): Promise<void> {
    const all = specs.flatMap((spec) => encoded(spec).blobs);
    await store(new Map(all.map((blob) => [digestKey(blob.digest), blob])).values());
  }

  async function execute(spec: ActionSpec, { signal, onProgress }: ExecuteOptions = {}): Promise<ActionRun> {
    const started = performance.now();
    const stages: Stage[] = [];
    let worker = '';
    let last: Operation | undefined;
    let failure: StatusError | undefined;
    try {
      const request = { actionDigest: toWireDigest(encoded(spec).action) };
      for await (const operation of execution.execute(request, signal ? { signal } : {})) {
        last = operation;
        const metadata = operation.metadata && anyUnpack(operation.metadata, ExecuteOperationMetadataSchema);
        if (!metadata) continue;
        const stage = stageNames[metadata.stage] ?? 'unknown';
        const by = metadata.partialExecutionMetadata?.worker ?? worker;
        if (stage === stages.at(-1) && by === worker) continue;
        if (stage !== stages.at(-1)) stages.push(stage);
        worker = by;
        onProgress?.(spec.name, stage, worker);
      }
    } catch (error) {
      if (!(error instanceof StatusError)) throw error;
      failure = error;
    }
    return { name: spec.name, stages, tookMs: performance.now() - started, ...answerOf(last, failure) };
  }

  return {
    async put(contents) {
      const blobs = contents.map((data) => ({ digest: digestOf(fn, data), data }));
      await store(blobs);
      return blobs.map(({ digest }) => `${digest.hash}/${digest.sizeBytes}`);
    },
    async get(blob) {
      const { responses } = await storage.batchReadBlobs({ digests: [wireOf(blob)] });
      const [answer] = responses;
      return answer?.status?.code ? undefined : answer?.data;
    },
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

/** Well below what a server takes in one message. */
const batchBytesMax = 2_000_000;

export function shell(script: string): string[] {
  return ['/bin/sh', '-c', script];
}

/** `count` actions that take `ms` each and nobody has run; each leaves its name. */
export function sleepers(label: string, count: number, ms: number): ActionSpec[] {
  return Array.from({ length: count }, (_, index) => {
    const name = `${label}-${index}`;
    return { name, argv: shell(`sleep ${ms / 1000}; echo ${name} > out`) };
  });
}

interface Blob {
  readonly digest: Digest;
  readonly data: Uint8Array;
}

function encoded(spec: ActionSpec): { readonly action: Digest; readonly blobs: readonly Blob[] } {
  const blobs: Blob[] = [];
  const keep = (data: Uint8Array): Digest => {
    const digest = digestOf(fn, data);
    blobs.push({ digest, data });
    return digest;
  };
  const put = <Desc extends DescMessage>(schema: Desc, init: MessageInitShape<Desc>): Digest =>
    keep(toBinary(schema, create(schema, init)));
  const files = Object.entries(spec.inputs ?? {})
    .toSorted(([one], [other]) => (one < other ? -1 : 1))
    .map(([name, input]) => ({ name, digest: typeof input === 'string' ? wireOf(input) : toWireDigest(keep(input)) }));
  const platform = {
    properties: Object.entries(spec.platform ?? {})
      .toSorted(([one], [other]) => (one < other ? -1 : 1))
      .map(([name, value]) => ({ name, value })),
  };
  const command = put(CommandSchema, {
    arguments: [...spec.argv],
    environmentVariables: [{ name: 'PATH', value: '/usr/bin:/bin' }],
    outputPaths: ['out'],
    platform,
  });
  const action = put(ActionSchema, {
    commandDigest: toWireDigest(command),
    inputRootDigest: toWireDigest(put(DirectorySchema, { files })),
    salt: Buffer.from(spec.name),
    doNotCache: spec.doNotCache ?? false,
    platform,
    ...(spec.timeoutMs !== undefined && {
      timeout: { seconds: BigInt(Math.floor(spec.timeoutMs / 1000)), nanos: (spec.timeoutMs % 1000) * 1e6 },
    }),
  });
  return { action, blobs };
}

function wireOf(text: string): WireDigest {
  const [hash = '', size] = text.split('/');
  return toWireDigest(makeDigest(fn, hash, Number(size)));
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
