/** One action from its input tree to its result. */
import { chown } from 'node:fs/promises';
import { join } from 'node:path';
import { create } from '@bufbuild/protobuf';
import { type Duration, DurationSchema, type Timestamp, TimestampSchema } from '@bufbuild/protobuf/wkt';
import { toWireDigest } from '../protos/digest.ts';
import { ActionResultSchema } from '../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { StatusError, toStatusError } from '../protos/status.ts';
import { createCapture } from './capture.ts';
import { type CommandPlan, planCommand } from './command.ts';
import { type InputDirectory, type InputTrees, missingInputs, treeDigests } from './input-tree.ts';
import { planLayout } from './layout.ts';
import { watchDisk } from './disk-watch.ts';
import type { GuestDisk } from './guest-disk.ts';
import { diskFreeBytesMin, diskWatchIntervalMs } from './limits.ts';
import { type CollectedOutputs, collectOutputs, type SmallBlob } from './outputs.ts';
import type { CommandStreams, Runner, SharedMount } from './runner.ts';
import type { SandboxBlobs, SandboxOptions, SandboxOutcome, SandboxTask } from './sandbox.ts';
import { InputVanished, makeDirectory, stagePrivate, stageSharedFile, type TreeCache } from './staging.ts';
import { limitTime } from './time-limit.ts';
import type { Workplace } from './workplace.ts';

export interface TaskEnvironment {
  readonly blobs: SandboxBlobs;
  readonly trees: InputTrees;
  readonly treeCache: TreeCache;
  readonly runner: Runner;
  readonly workplace: Workplace;
  readonly guestDisk: GuestDisk;
}

/** Rejects with a StatusError always; with CANCELLED once `options.signal` is aborted and all processes are gone. */
export async function runTask(
  task: SandboxTask,
  options: SandboxOptions,
  environment: TaskEnvironment,
): Promise<SandboxOutcome> {
  const { workplace, runner } = environment;
  try {
    options.signal.throwIfAborted();
    if (task.guest && !runner.guestLimitsInForce) {
      throw new StatusError(
        'FAILED_PRECONDITION',
        "this machine does not isolate actions, so it runs no other member's",
      );
    }
    const plan = planCommand(task.command);
    await workplace.removalRoom(options.signal);
    const directory = await workplace.makeActionDirectory();
    try {
      return await runIn(directory, plan, task, options, environment);
    } finally {
      workplace.remove(directory);
    }
  } catch (error) {
    if (options.signal.aborted) throw new StatusError('CANCELLED', 'the action was cancelled', { cause: error });
    throw toStatusError(error, 'sandbox');
  }
}

async function runIn(
  directory: string,
  plan: CommandPlan,
  task: SandboxTask,
  options: SandboxOptions,
  environment: TaskEnvironment,
): Promise<SandboxOutcome> {
  const { blobs, runner } = environment;
  const { signal, onPhase, control } = options;
  const clock = createPhaseClock();
  using held = new DisposableStack();
  const streams: CommandStreams = {
    stdout: createCapture(join(directory, 'stdout'), 'stdout'),
    stderr: createCapture(join(directory, 'stderr'), 'stderr'),
    onStdout: options.onStdout,
    onStderr: options.onStderr,
  };
  held.defer(streams.stdout.discard);
  held.defer(streams.stderr.discard);

  onPhase?.('staging');
  const fetchStart = clock.now();
  const staged = await stage(directory, plan, task, signal, environment, held);
  const fetchEnd = clock.now();

  onPhase?.('running');
  const ending = await execute(staged, plan, task, streams, directory, options, environment);
  const executionEnd = clock.now();

  await control?.open(signal);
  onPhase?.('collecting');
  const outputs: CollectedOutputs | undefined = ending.timedOut
    ? undefined
    : await collectOutputs(staged.root, plan, {
        fn: task.fn,
        blobs,
        owner: runner.owner,
        move: runner.isolation === 'bubblewrap',
        signal,
      });
  const stdout = await streams.stdout.store(task.fn, blobs);
  const stderr = await streams.stderr.store(task.fn, blobs);
  const small: SmallBlob[] = [...(outputs?.blobs ?? [])];
  for (const stored of [stdout, stderr]) if (stored?.bytes) small.push({ digest: stored.digest, bytes: stored.bytes });
  if (small.length > 0) await blobs.putAll(small);
  signal.throwIfAborted();

  const result = create(ActionResultSchema, {
    outputFiles: outputs?.outputFiles ?? [],
    outputDirectories: outputs?.outputDirectories ?? [],
    outputSymlinks: outputs?.outputSymlinks ?? [],
    outputFileSymlinks: outputs?.outputFileSymlinks ?? [],
    outputDirectorySymlinks: outputs?.outputDirectorySymlinks ?? [],
    exitCode: ending.exitCode,
    ...(stdout ? { stdoutDigest: toWireDigest(stdout.digest) } : {}),
    ...(stderr ? { stderrDigest: toWireDigest(stderr.digest) } : {}),
    executionMetadata: {
      inputFetchStartTimestamp: timestamp(fetchStart),
      inputFetchCompletedTimestamp: timestamp(fetchEnd),
      executionStartTimestamp: timestamp(fetchEnd),
      executionCompletedTimestamp: timestamp(executionEnd),
      virtualExecutionDuration: duration(executionEnd - fetchEnd - ending.frozenMs),
      outputUploadStartTimestamp: timestamp(executionEnd),
      outputUploadCompletedTimestamp: timestamp(clock.now()),
    },
  });
  return { kind: ending.timedOut ? 'timed-out' : 'exited', result };
}

interface StagedAction {
  readonly root: string;
  readonly mounts: readonly SharedMount[];
}

async function stage(
  directory: string,
  plan: CommandPlan,
  task: SandboxTask,
  signal: AbortSignal,
  { blobs, trees, treeCache, runner }: TaskEnvironment,
  held: DisposableStack,
): Promise<StagedAction> {
  const root = join(directory, 'root');
  const tree = await trees.load(task.inputRoot, { signal });
  const layout = planLayout(tree, plan, { share: runner.isolation === 'bubblewrap' });
  await makeDirectory(root);
  if (runner.owner) await chown(root, runner.owner.uid, runner.owner.gid);
  const mounts: SharedMount[] = [];
  try {
    await stagePrivate(blobs, layout, root, { signal, owner: runner.owner });
    for (const { path, node } of layout.sharedDirectories) {
      signal.throwIfAborted();
      const shared = held.use(await treeCache.acquire(node, { signal }));
      mounts.push({ source: shared.path, path });
    }
    for (const [index, { path, file }] of layout.sharedFiles.entries()) {
      const source = join(directory, `input-${index}`);
      await stageSharedFile(blobs, file, source, runner.owner);
      mounts.push({ source, path });
    }
  } catch (error) {
    if (error instanceof InputVanished) throw await missingOf(tree, blobs, signal);
    if ((error as NodeJS.ErrnoException).code === 'ENAMETOOLONG') {
      throw new StatusError('INVALID_ARGUMENT', 'input tree: it has paths longer than this system allows');
    }
    throw error;
  }
  return { root, mounts };
}

async function missingOf(tree: InputDirectory, blobs: SandboxBlobs, signal: AbortSignal): Promise<StatusError> {
  const missing = await blobs.missing(treeDigests(tree), { signal });
  if (missing.length > 0) return missingInputs(missing);
  return new StatusError('UNAVAILABLE', 'an input went missing while the action was prepared and is back; try again');
}

async function execute(
  staged: StagedAction,
  plan: CommandPlan,
  { timeoutMs, guest = false }: SandboxTask,
  streams: CommandStreams,
  directory: string,
  { signal, control }: SandboxOptions,
  { runner, guestDisk }: TaskEnvironment,
): Promise<{ readonly exitCode: number; readonly timedOut: boolean; readonly frozenMs: number }> {
  const frozenBeforeMs = control?.frozenMs ?? 0;
  await control?.open(signal);
  let kill = () => {};
  using disk = await watchDisk(staged.root, {
    freeBytesMin: diskFreeBytesMin,
    intervalMs: diskWatchIntervalMs,
    onLow: () => kill(),
  });
  using share = guest ? guestDisk.admit(staged.root, () => kill()) : undefined;
  signal.throwIfAborted();
  const command = runner.start({ plan, ...staged, directory }, streams, guest);
  kill = command.kill;
  let timedOut = false;
  using limit = limitTime(timeoutMs, control, () => {
    timedOut = true;
    command.kill();
  });
  using _held = control?.hold(command);
  signal.addEventListener('abort', command.kill, { once: true });
  try {
    const { exitCode, outOfMemory } = await command.ended;
    signal.throwIfAborted();
    const problem = disk.problem ?? share?.problem;
    if (problem) throw problem;
    if (guest && timedOut && limit.crowded) {
      throw new StatusError('RESOURCE_EXHAUSTED', 'the processors here were too busy for a guest to end in its time');
    }
    if (guest && outOfMemory) {
      // Its own node may have more for it: this says nothing about the action.
      throw new StatusError('RESOURCE_EXHAUSTED', 'the memory that guests may use here was not enough for this one');
    }
    return { exitCode, timedOut, frozenMs: (control?.frozenMs ?? 0) - frozenBeforeMs };
  } finally {
    signal.removeEventListener('abort', command.kill);
  }
}

/** Wall time that never runs backwards, so that the phases of one action are in order whatever the system clock does. */
function createPhaseClock(): { now(): number } {
  const wallStart = Date.now();
  const start = performance.now();
  return { now: () => wallStart + (performance.now() - start) };
}

function timestamp(ms: number): Timestamp {
  return create(TimestampSchema, secondsAndNanos(ms));
}

function duration(ms: number): Duration {
  return create(DurationSchema, secondsAndNanos(ms));
}

function secondsAndNanos(ms: number): { seconds: bigint; nanos: number } {
  const seconds = Math.floor(ms / 1000);
  return { seconds: BigInt(seconds), nanos: Math.floor((ms - seconds * 1000) * 1e6) };
}
