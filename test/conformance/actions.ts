/** Actions that run /bin/sh, and what the target told while it ran them. */
import { fromBinary } from '@bufbuild/protobuf';
import type { MessageInitShape } from '@bufbuild/protobuf';
import { anyUnpack } from '@bufbuild/protobuf/wkt';
import { readdir, readFile } from 'node:fs/promises';
import { type Digest, type DigestFunction, emptyDigest } from '../../protos/digest.ts';
import {
  ActionSchema,
  type ActionResult,
  type Command_OutputDirectoryFormat,
  CommandSchema,
  type ExecuteOperationMetadata,
  ExecuteOperationMetadataSchema,
  type ExecuteRequestSchema,
  type ExecuteResponse,
  ExecuteResponseSchema,
  Execution,
  type PlatformSchema,
  TreeSchema,
  type Tree,
} from '../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import type { Operation } from '../../protos/gen/google/longrunning/operations_pb.ts';
import { type PreconditionFailure, PreconditionFailureSchema } from '../../protos/gen/google/rpc/error_details_pb.ts';
import { type Code, codeName } from '../../protos/status.ts';
import type { CallOptions, Outcome, StreamReply } from './client.ts';
import type { Context } from './context.ts';
import { fetchBlob, putMessage, putTree, type TreeSpec, wire, wireFn } from './fixtures.ts';

/** Longer than any action of the suite runs, queueing included. */
const executeDeadlineMs = 90_000;
/** How long a killed process may still be seen. */
const goneMs = 5_000;

export interface ActionSpec {
  /** Run by `/bin/sh -c`, unless `argv` is given. */
  readonly script?: string;
  readonly argv?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  readonly inputs?: TreeSpec;
  /** Instead of `inputs`: a root that is stored already, or is not on purpose. */
  readonly inputRoot?: Digest;
  /** Leaves an empty input root to the rule that it is always there. */
  readonly skipEmptyRoot?: boolean;
  readonly outputPaths?: readonly string[];
  readonly outputFiles?: readonly string[];
  readonly outputDirectories?: readonly string[];
  readonly workingDirectory?: string;
  readonly timeoutMs?: number;
  readonly doNotCache?: boolean;
  readonly platform?: MessageInitShape<typeof PlatformSchema>;
  readonly commandPlatform?: MessageInitShape<typeof PlatformSchema>;
  readonly nodeProperties?: readonly string[];
  readonly format?: Command_OutputDirectoryFormat;
  readonly fn?: DigestFunction;
  /** Makes two actions with the same spec one; by default each is its own. */
  readonly salt?: Uint8Array;
}

/** Stores an action with all it needs. */
export async function putAction(context: Context, spec: ActionSpec): Promise<Digest> {
  const fn = spec.fn ?? context.fn;
  const env = { PATH: '/usr/bin:/bin', ...spec.env };
  const command = await putMessage(
    context,
    CommandSchema,
    {
      arguments: [...(spec.argv ?? ['/bin/sh', '-c', spec.script ?? 'true'])],
      environmentVariables: Object.entries(env)
        .toSorted(([a], [b]) => (a < b ? -1 : 1))
        .map(([name, value]) => ({ name, value })),
      outputPaths: [...(spec.outputPaths ?? [])],
      outputFiles: [...(spec.outputFiles ?? [])],
      outputDirectories: [...(spec.outputDirectories ?? [])],
      workingDirectory: spec.workingDirectory ?? '',
      outputNodeProperties: [...(spec.nodeProperties ?? [])],
      ...(spec.format === undefined ? {} : { outputDirectoryFormat: spec.format }),
      ...(spec.commandPlatform ? { platform: spec.commandPlatform } : {}),
    },
    fn,
  );
  const inputs = spec.inputs ?? {};
  const emptyRoot = spec.skipEmptyRoot && Object.keys(inputs).length === 0;
  const inputRoot = spec.inputRoot ?? (emptyRoot ? emptyDigest(fn) : await putTree(context, inputs, fn));
  return putActionMessage(
    context,
    {
      commandDigest: wire(command),
      inputRootDigest: wire(inputRoot),
      doNotCache: spec.doNotCache ?? false,
      salt: spec.salt ?? context.fresh(16),
      ...(spec.timeoutMs === undefined
        ? {}
        : { timeout: { seconds: BigInt(Math.floor(spec.timeoutMs / 1000)), nanos: (spec.timeoutMs % 1000) * 1e6 } }),
      ...(spec.platform ? { platform: spec.platform } : {}),
    },
    fn,
  );
}

export function putActionMessage(
  context: Context,
  action: MessageInitShape<typeof ActionSchema>,
  fn = context.fn,
): Promise<Digest> {
  return putMessage(context, ActionSchema, action, fn);
}

/** Fields of an ExecuteRequest beside those that name the action. */
export type ExecuteFields = Omit<MessageInitShape<typeof ExecuteRequestSchema>, '$typeName' | '$unknown'>;

/** One Execute or WaitExecution from its first message to its status. */
export interface Run extends Outcome {
  readonly operations: readonly Operation[];
  /** The metadata of each operation that had any. */
  readonly metadata: readonly ExecuteOperationMetadata[];
  readonly atMs: readonly number[];
  /** The name of the operation, empty when none was sent. */
  readonly operation: string;
  readonly response?: ExecuteResponse;
  readonly result?: ActionResult;
  /** ExecuteResponse.status; `undefined` without a response. */
  readonly status?: { readonly code: Code; readonly message: string };
  /** Where and how it ended, for messages of violations. */
  readonly summary: string;
}

export async function execute(
  context: Context,
  action: Digest,
  request: ExecuteFields = {},
  options: CallOptions = {},
): Promise<Run> {
  const reply = await context.client.collect(
    Execution.method.execute,
    {
      instanceName: context.instance,
      actionDigest: wire(action),
      digestFunction: wireFn(action.fn),
      ...request,
    },
    { deadlineMs: executeDeadlineMs, ...options },
  );
  return runOf(reply);
}

export async function waitExecution(context: Context, name: string, options: CallOptions = {}): Promise<Run> {
  return runOf(
    await context.client.collect(
      Execution.method.waitExecution,
      { name },
      { deadlineMs: executeDeadlineMs, ...options },
    ),
  );
}

function runOf(reply: StreamReply<Operation>): Run {
  const operations = reply.messages;
  const last = operations.at(-1);
  const response = last?.result.case === 'response' ? anyUnpack(last.result.value, ExecuteResponseSchema) : undefined;
  const status = response && { code: codeName(response.status?.code ?? 0), message: response.status?.message ?? '' };
  const result = response?.result;
  return {
    ...reply,
    operations,
    metadata: operations.flatMap((operation) => metadataOf(operation) ?? []),
    operation: last?.name ?? '',
    ...(response ? { response } : {}),
    ...(result ? { result } : {}),
    ...(status ? { status } : {}),
    summary: [
      `rpc ${reply.code} ${reply.message}`.trim(),
      status ? `response ${status.code} ${status.message}`.trim() : 'no response',
      result ? `exit code ${result.exitCode}` : 'no result',
    ].join(', '),
  };
}

export function metadataOf(operation: Operation): ExecuteOperationMetadata | undefined {
  return operation.metadata && anyUnpack(operation.metadata, ExecuteOperationMetadataSchema);
}

/** The code a run failed with, wherever it was told; `OK` when the command ran to its end. */
export function failureOf(run: Run): { readonly code: Code; readonly message: string } {
  if (run.code !== 'OK') return run;
  return run.status ?? { code: 'UNKNOWN', message: 'the stream ended without a response' };
}

export async function stdoutOf(context: Context, run: Run): Promise<string> {
  return outputText(context, run.result?.stdoutRaw, run.result?.stdoutDigest, run);
}

export async function stderrOf(context: Context, run: Run): Promise<string> {
  return outputText(context, run.result?.stderrRaw, run.result?.stderrDigest, run);
}

async function outputText(
  context: Context,
  raw: Uint8Array | undefined,
  digest: { hash: string; sizeBytes: bigint } | undefined,
  run: Run,
): Promise<string> {
  if (raw && raw.byteLength > 0) return Buffer.from(raw).toString();
  if (!digest || digest.sizeBytes === 0n) return '';
  const fn = functionOf(context, run);
  return (await fetchBlob(context, { fn, hash: digest.hash, sizeBytes: Number(digest.sizeBytes) }))?.toString() ?? '';
}

function functionOf(context: Context, run: Run): DigestFunction {
  const named = run.metadata.at(-1)?.digestFunction ?? 0;
  return context.functions.find((fn) => wireFn(fn) === named) ?? context.fn;
}

/** The content of an output file by its path, or `undefined`. */
export async function outputOf(context: Context, run: Run, path: string): Promise<string | undefined> {
  const file = run.result?.outputFiles.find((output) => output.path === path);
  if (!file?.digest) return undefined;
  const digest = { fn: functionOf(context, run), hash: file.digest.hash, sizeBytes: Number(file.digest.sizeBytes) };
  return (await fetchBlob(context, digest))?.toString();
}

/** The Tree of an output directory and its bytes, or `undefined`. */
export async function treeOf(
  context: Context,
  run: Run,
  path: string,
): Promise<{ readonly tree: Tree; readonly bytes: Buffer } | undefined> {
  const digest = run.result?.outputDirectories.find((output) => output.path === path)?.treeDigest;
  if (!digest) return undefined;
  const bytes = await fetchBlob(context, {
    fn: functionOf(context, run),
    hash: digest.hash,
    sizeBytes: Number(digest.sizeBytes),
  });
  return bytes && { tree: fromBinary(TreeSchema, bytes), bytes };
}

/** The PreconditionFailure among status details. */
export function preconditionFailure(details: Outcome['details']): PreconditionFailure | undefined {
  return details.map((detail) => anyUnpack(detail, PreconditionFailureSchema)).find((failure) => failure !== undefined);
}

/** Whether no process of this machine has `mark` among its arguments, after a moment to go. Linux only, else true. */
export async function processesGone(mark: string): Promise<boolean> {
  if (process.platform !== 'linux') return true;
  for (const endMs = performance.now() + goneMs; performance.now() < endMs; ) {
    const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
    const lines = await Promise.all(pids.map((pid) => readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')));
    if (!lines.some((line) => line.includes(mark))) return true;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  return false;
}
