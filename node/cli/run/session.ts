/** One `potluck run`: inputs, upload, execution, outputs, and the report about them. */
import type { Timestamp } from '@bufbuild/protobuf/wkt';
import { type Digest, fromWireDigest } from '../../../protos/digest.ts';
import {
  type ActionResult,
  Capabilities,
  type Digest as WireDigest,
  DigestFunction_Value,
  type ExecutedActionMetadata,
} from '../../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { StatusError } from '../../../protos/status.ts';
import type { GrpcConnection } from '../../reapi/grpc.ts';
import { CliError, exitCodes } from '../exit-codes.ts';
import { count, formatBytes, formatDuration } from '../format.ts';
import { createProgress, print, printError } from '../terminal.ts';
import { makeAction } from './action.ts';
import { execute } from './execute.ts';
import { readInputs } from './inputs.ts';
import * as limits from './limits.ts';
import { createLiveOutput, type LiveOutput } from './live-output.ts';
import { writeOutputs } from './outputs.ts';
import { readBlob, type Remote, uploadMissing } from './transfer.ts';

export interface RunRequest {
  readonly arguments: readonly string[];
  readonly inputs: readonly string[];
  /** Relative to the current directory. */
  readonly outputs: readonly string[];
  readonly environment: readonly (readonly [string, string])[];
  readonly platform: readonly (readonly [string, string])[];
  readonly timeoutMs: number | undefined;
  readonly noCache: boolean;
  readonly instance: string;
  readonly json: boolean;
}

export interface RunContext {
  readonly connection: GrpcConnection;
  /** For messages. */
  readonly address: string;
  readonly cwd: string;
  /** Aborting cancels the execution on the server. */
  readonly signal: AbortSignal;
}

/** What `--json` prints. Its fields are a promise to scripts; times are milliseconds. */
interface RunReport {
  readonly exitCode: number;
  readonly cached: boolean;
  readonly timedOut: boolean;
  readonly actionDigest: string;
  readonly inputs: { readonly files: number; readonly bytes: number };
  readonly uploaded: { readonly blobs: number; readonly bytes: number };
  readonly outputs: { readonly files: number; readonly bytes: number; readonly missing: readonly string[] };
  /** Of this program. */
  readonly phasesMs: Phases;
  /** Of the execution, as the executor measured it; `null` on a cache hit. */
  readonly executionMs: ExecutionPhases | null;
}

type Phase = 'connect' | 'inputs' | 'upload' | 'execute' | 'download';
type Phases = Readonly<Record<Phase | 'total', number>>;

interface ExecutionPhases {
  readonly queued: number;
  readonly staging: number;
  readonly running: number;
  readonly collecting: number;
}

/** Resolves to the exit status; throws CliError or StatusError when Potluck or the server failed. */
export async function runSession(request: RunRequest, context: RunContext): Promise<number> {
  const { signal, cwd } = context;
  using progress = createProgress();
  const clock = createStopwatch();

  const remote = await reach(request, context);
  clock.lap('connect');
  progress.update('reading the inputs');
  const tree = await readInputs(cwd, request.inputs, signal);
  const { action, blobs } = makeAction({
    ...request,
    outputPaths: request.outputs,
    doNotCache: request.noCache,
    inputRoot: tree.root,
  });
  clock.lap('inputs');

  const upload = () =>
    uploadMissing(remote, [...tree.blobs, ...blobs], {
      signal,
      onProgress: (sent) => progress.update(`uploading: ${count(sent.blobs, 'blob')}, ${formatBytes(sent.bytes)}`),
    });
  const uploaded = await upload();
  clock.lap('upload');

  progress[Symbol.dispose]();
  const stdout = createLiveOutput(remote, request.json ? process.stderr : process.stdout);
  const stderr = createLiveOutput(remote, process.stderr);
  const run = () =>
    execute(remote, action, {
      signal,
      skipCacheLookup: request.noCache,
      onMetadata({ stdoutStreamName, stderrStreamName }) {
        if (stdoutStreamName !== '') stdout.follow(stdoutStreamName);
        if (stderrStreamName !== '') stderr.follow(stderrStreamName);
      },
    });
  // FAILED_PRECONDITION says that inputs were evicted since they were found present: they are sent once more.
  const response = await run().catch(async (error: unknown) => {
    if (!(error instanceof StatusError) || error.code !== 'FAILED_PRECONDITION' || error.details.length === 0)
      throw error;
    await upload();
    return run();
  });
  const { result } = response;
  if (!result) throw new CliError(response.status?.message ?? 'the server sent no result');
  await showRest(remote, result, { stdout, stderr, signal });
  clock.lap('execute');

  const outputs = await writeOutputs(remote, cwd, result, request.outputs, signal);
  clock.lap('download');
  const timedOut = Boolean(response.status?.code);
  const missing = request.outputs.filter((path) => !outputs.made.has(path));
  report(request, {
    exitCode: result.exitCode,
    cached: response.cachedResult,
    timedOut,
    actionDigest: `${action.hash}/${action.sizeBytes}`,
    inputs: { files: tree.files, bytes: tree.fileBytes },
    uploaded,
    outputs: { files: outputs.files, bytes: outputs.bytes, missing },
    phasesMs: clock.phasesMs(),
    executionMs: response.cachedResult ? null : executionPhases(result.executionMetadata),
  });
  if (timedOut) {
    printError(`potluck: the command ran into its time limit: ${response.status?.message ?? ''}`);
    return exitCodes.timedOut;
  }
  if (missing.length > 0 && result.exitCode === 0) {
    throw new CliError(`the command succeeded but did not make these outputs: ${missing.join(', ')}`);
  }
  return result.exitCode;
}

/** Asks the server what it can do, and says so in plain words when nobody is there. */
async function reach(request: RunRequest, { connection, address, signal }: RunContext): Promise<Remote> {
  try {
    const capabilities = await connection
      .client(Capabilities)
      .getCapabilities({ instanceName: request.instance }, { signal, timeoutMs: limits.connectTimeoutMs });
    if (!capabilities.executionCapabilities?.execEnabled) {
      throw new CliError(`the server at ${address} caches but does not execute`);
    }
    if (!capabilities.cacheCapabilities?.digestFunctions.includes(DigestFunction_Value.SHA256)) {
      throw new CliError(`the server at ${address} does not take SHA256 digests`);
    }
    const allowed = Number(capabilities.cacheCapabilities.maxBatchTotalSizeBytes);
    const batchBytesMax = allowed > 0 ? Math.min(allowed, limits.batchBytesMax) : limits.batchBytesMax;
    return { connection, instance: request.instance, batchBytesMax };
  } catch (error) {
    if (!(error instanceof StatusError) || !['UNAVAILABLE', 'DEADLINE_EXCEEDED'].includes(error.code)) throw error;
    if (address.startsWith('grpcs:')) {
      const hint = 'Its authority, when it is a private one, is trusted through GRPC_DEFAULT_SSL_ROOTS_FILE_PATH=FILE.';
      throw new CliError(
        `no TLS connection to ${address}: ${error.reason.replace(/\.? *Resolution note.*/, '')}. ${hint}`,
        exitCodes.runFailed,
        { cause: error },
      );
    }
    throw new CliError(
      `no node answers at ${address}. Start one with "potluck up" (in a checkout: npm start), or name another with --remote.`,
      exitCodes.runFailed,
      { cause: error },
    );
  }
}

async function showRest(
  remote: Remote,
  result: ActionResult,
  options: { readonly stdout: LiveOutput; readonly stderr: LiveOutput; readonly signal: AbortSignal },
): Promise<void> {
  const whole = (raw: Uint8Array, digest: WireDigest | undefined): AsyncIterable<Uint8Array> => {
    const checked: Digest | undefined = digest && fromWireDigest(digest, DigestFunction_Value.SHA256);
    return raw.byteLength > 0 || !checked ? once(raw) : readBlob(remote, checked, options.signal);
  };
  await options.stdout.finish(whole(result.stdoutRaw, result.stdoutDigest));
  await options.stderr.finish(whole(result.stderrRaw, result.stderrDigest));
}

async function* once(bytes: Uint8Array): AsyncIterable<Uint8Array> {
  yield bytes;
}

function report(request: RunRequest, facts: RunReport): void {
  if (request.json) {
    print(JSON.stringify(facts));
    return;
  }
  const { phasesMs, executionMs } = facts;
  const how = facts.cached ? 'cache hit' : 'executed';
  const within = executionMs
    ? ` [queued ${formatDuration(executionMs.queued)}, staged ${formatDuration(executionMs.staging)}, ran ${formatDuration(executionMs.running)}, collected ${formatDuration(executionMs.collecting)}]`
    : '';
  printError(
    `potluck: ${how}, exit status ${facts.exitCode}, ${formatDuration(phasesMs.total)}: ` +
      `connect ${formatDuration(phasesMs.connect)}, inputs ${formatDuration(phasesMs.inputs)} (${count(facts.inputs.files, 'file')}), ` +
      `upload ${formatDuration(phasesMs.upload)} (${formatBytes(facts.uploaded.bytes)}), ` +
      `execute ${formatDuration(phasesMs.execute)}${within}, ` +
      `download ${formatDuration(phasesMs.download)} (${count(facts.outputs.files, 'file')}, ${formatBytes(facts.outputs.bytes)})`,
  );
}

function executionPhases(metadata: ExecutedActionMetadata | undefined): ExecutionPhases | null {
  if (!metadata) return null;
  const { queuedTimestamp, workerStartTimestamp, inputFetchStartTimestamp, inputFetchCompletedTimestamp } = metadata;
  return {
    queued: between(queuedTimestamp, workerStartTimestamp),
    staging: between(inputFetchStartTimestamp, inputFetchCompletedTimestamp),
    running: between(metadata.executionStartTimestamp, metadata.executionCompletedTimestamp),
    collecting: between(metadata.outputUploadStartTimestamp, metadata.outputUploadCompletedTimestamp),
  };
}

/** Milliseconds, 0 where a server left one of the two out. */
function between(start: Timestamp | undefined, end: Timestamp | undefined): number {
  if (!start || !end) return 0;
  return rounded(Number(end.seconds - start.seconds) * 1000 + (end.nanos - start.nanos) / 1e6);
}

/** Times phases that follow each other. */
function createStopwatch(): { lap(phase: Phase): void; phasesMs(): Phases } {
  const startMs = performance.now();
  let lapMs = startMs;
  const laps: Record<Phase, number> = { connect: 0, inputs: 0, upload: 0, execute: 0, download: 0 };
  return {
    lap(phase) {
      const beforeMs = lapMs;
      lapMs = performance.now();
      laps[phase] = rounded(lapMs - beforeMs);
    },
    phasesMs: () => ({ ...laps, total: rounded(lapMs - startMs) }),
  };
}

function rounded(ms: number): number {
  return Math.round(ms * 100) / 100;
}
