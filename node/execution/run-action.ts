/** One attempt at one action: sandbox, result, action cache. */
import type { Timestamp } from '@bufbuild/protobuf/wkt';
import { create } from '@bufbuild/protobuf';
import { timestampFromMs } from '@bufbuild/protobuf/wkt';
import {
  type ActionResult,
  ExecutedActionMetadataSchema,
  type ExecuteResponse,
} from '../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import type { VouchedResult } from '../../protos/gen/potluck/mesh/v1/results_pb.ts';
import type { Digest } from '../../protos/digest.ts';
import { type Code, StatusError, toStatusError } from '../../protos/status.ts';
import type { RunControl } from '../../sandbox/run-control.ts';
import type { Sandbox, SandboxPhase } from '../../sandbox/sandbox.ts';
import type { ActionCache } from '../storage/action-cache.ts';
import type { Clock } from './clock.ts';
import * as limits from './limits.ts';
import type { LogWriter } from './log-streams.ts';
import type { PreparedAction } from './prepare.ts';
import { executeResponse } from './responses.ts';
import { serverLogText } from './server-log.ts';
import { createWatchdog } from './watchdog.ts';

export type RunOutcome = 'succeeded' | 'command-failed' | 'timed-out' | 'cancelled' | 'error';

/** `committing` is the write to the action cache. */
export type RunPhase = SandboxPhase | 'committing';

export interface RunReport {
  readonly response: ExecuteResponse;
  readonly outcome: RunOutcome;
  /** The failure is this machine's, not the action's: another attempt may succeed. */
  readonly retriable: boolean;
  readonly error: StatusError | undefined;
  readonly phaseMs: ReadonlyMap<RunPhase, number>;
  /** The result as it was signed, of a run in the mesh. */
  readonly vouched?: VouchedResult;
}

export interface RunPorts {
  readonly sandbox: Pick<Sandbox, 'run' | 'isolation' | 'limitsInForce' | 'keepLog'>;
  readonly actions: ActionCache;
  readonly clock: Clock;
  /** Name of this machine, as results tell it. */
  readonly worker: string;
}

export interface RunRequest {
  readonly prepared: PreparedAction;
  readonly instance: string;
  readonly queuedAtMs: number;
  readonly startedAtMs: number;
  readonly signal: AbortSignal;
  readonly stdout: Pick<LogWriter, 'write'>;
  readonly stderr: Pick<LogWriter, 'write'>;
  /** Another member's action. */
  readonly guest?: boolean;
  /** Lets the run be frozen; that time is not run time. */
  readonly control?: RunControl;
}

/** Codes that say more about the machine than about the action. */
const machineCodes: ReadonlySet<Code> = new Set(['INTERNAL', 'UNAVAILABLE', 'UNKNOWN', 'ABORTED', 'DATA_LOSS']);

/** Never throws. Nothing is cached unless the command exited with 0, in time, with all outputs stored. */
export async function runAction(ports: RunPorts, request: RunRequest): Promise<RunReport> {
  const { sandbox, clock, worker } = ports;
  const { prepared, signal, guest = false, control } = request;
  const phases = measurePhases(clock);
  using watchdog = createWatchdog(clock, signal);
  using _ = control?.watch((frozen) => watchdog.pause(frozen));
  if (control?.frozen) watchdog.pause(true);
  const enter = (phase: RunPhase): void => {
    phases.enter(phase);
    watchdog.enter(phase, phase === 'running' ? prepared.timeoutMs + limits.runningSlackMs : limits.phaseMaxMs);
  };
  const task = {
    fn: prepared.digest.fn,
    action: prepared.action,
    command: prepared.command,
    inputRoot: prepared.inputRoot,
    timeoutMs: prepared.timeoutMs,
    guest,
  };
  try {
    enter('staging');
    await prepared.pin();
    const running = sandbox.run(task, {
      signal: watchdog.signal,
      ...(control && { control }),
      onPhase: enter,
      onStdout: (chunk) => request.stdout.write(chunk),
      onStderr: (chunk) => request.stderr.write(chunk),
    });
    const { kind, result } = await watchdog.guard(running);
    complete(result, worker, request.queuedAtMs, request.startedAtMs, clock.nowMs());
    if (kind === 'timed-out') {
      const text = `the command ran longer than ${prepared.timeoutMs / 1000} s and was killed`;
      const error = new StatusError('DEADLINE_EXCEEDED', text);
      const phaseMs = phases.end();
      const log = await keepLog(ports, prepared, phaseMs, text);
      const response = executeResponse({ result, error, message: `${text}, on ${worker}`, log });
      return { response, outcome: 'timed-out', retriable: false, error, phaseMs };
    }
    enter('committing');
    const message =
      result.exitCode === 0 ? await watchdog.guard(commit(ports, request, result)) : failureMessage(ports, result);
    const outcome = result.exitCode === 0 ? 'succeeded' : 'command-failed';
    const phaseMs = phases.end();
    const log = outcome === 'command-failed' && message ? await keepLog(ports, prepared, phaseMs, message) : undefined;
    const response = executeResponse({ result, message, log });
    return { response, outcome, retriable: false, error: undefined, phaseMs };
  } catch (thrown) {
    const error = watchdog.bite ?? toStatusError(thrown, 'running the action');
    const message = `${worker} could not run the action: ${error.reason}`;
    const isCancelled = signal.aborted && !watchdog.bite;
    const isOurs = machineCodes.has(error.code);
    const phaseMs = phases.end();
    const log = isOurs && !isCancelled ? await keepLog(ports, prepared, phaseMs, message) : undefined;
    return {
      response: executeResponse({ error, message, log }),
      outcome: isCancelled ? 'cancelled' : 'error',
      retriable: !signal.aborted && !watchdog.bite && isOurs,
      error,
      phaseMs,
    };
  }
}

/** For those who wonder why; without a place to keep it there is none. */
async function keepLog(
  { worker, sandbox, clock }: RunPorts,
  { digest, timeoutMs }: PreparedAction,
  phaseMs: ReadonlyMap<RunPhase, number>,
  why: string,
): Promise<Digest | undefined> {
  const text = serverLogText({ worker, sandbox, timeoutMs, phaseMs, why });
  const late = Promise.withResolvers<undefined>();
  const cancelTimer = clock.setTimer(limits.serverLogMaxMs, () => late.resolve(undefined));
  const kept = sandbox.keepLog(digest.fn, text).catch(() => undefined);
  return Promise.race([kept, late.promise]).finally(cancelTimer);
}

/** What to tell the client besides the result; empty when all is well. */
async function commit(ports: RunPorts, request: RunRequest, result: ActionResult): Promise<string> {
  if (request.prepared.action.doNotCache) return '';
  try {
    await ports.actions.put({ instance: request.instance, action: request.prepared.digest }, result);
    return '';
  } catch (thrown) {
    const error = toStatusError(thrown);
    // The outputs were lost before they were named: the result is worth nothing to anybody.
    if (error.code === 'FAILED_PRECONDITION') {
      throw new StatusError('UNAVAILABLE', `the outputs were lost again: ${error.reason}`, { cause: error });
    }
    return `the result is good but could not be cached: ${error.reason}`;
  }
}

/** Exit codes of shells for a command that a signal ended. */
const signalBase = 128;
const killedBySigkill = signalBase + 9;

function failureMessage({ worker, sandbox }: RunPorts, result: ActionResult): string {
  if (result.exitCode <= signalBase) return '';
  const hint = result.exitCode === killedBySigkill ? ', perhaps for want of memory' : '';
  return `on ${worker} (isolation: ${sandbox.isolation}) a signal ended the command${hint}; exit code ${result.exitCode}`;
}

/** Adds who ran it and when to the phases that the sandbox wrote down. */
function complete(result: ActionResult, worker: string, queuedMs: number, startedMs: number, nowMs: number): void {
  const metadata = result.executionMetadata ?? create(ExecutedActionMetadataSchema);
  metadata.worker = worker;
  metadata.queuedTimestamp = timestampFromMs(queuedMs);
  metadata.workerStartTimestamp = timestampFromMs(startedMs);
  metadata.workerCompletedTimestamp = latest(timestampFromMs(nowMs), metadata.outputUploadCompletedTimestamp);
  result.executionMetadata = metadata;
}

/** The sandbox may read a finer clock; timestamps must not go back. */
function latest(one: Timestamp, other: Timestamp | undefined): Timestamp {
  if (!other) return one;
  const later = other.seconds > one.seconds || (other.seconds === one.seconds && other.nanos > one.nanos);
  return later ? other : one;
}

function measurePhases(clock: Clock) {
  const spentMs = new Map<RunPhase, number>();
  let current: { phase: RunPhase; sinceMs: number } | undefined;
  const close = (): void => {
    if (current) spentMs.set(current.phase, (spentMs.get(current.phase) ?? 0) + clock.nowMs() - current.sinceMs);
    current = undefined;
  };
  return {
    enter(phase: RunPhase): void {
      close();
      current = { phase, sinceMs: clock.nowMs() };
    },
    end(): ReadonlyMap<RunPhase, number> {
      close();
      return spentMs;
    },
  };
}
