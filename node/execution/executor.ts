/**
 * Drives the scheduler: performs its effects, runs actions, keeps what operations show and wakes who waits for them.
 *
 * @see node/execution/scheduler.ts for every decision
 */
import { randomUUID } from 'node:crypto';
import { create } from '@bufbuild/protobuf';
import { anyPack, durationFromMs } from '@bufbuild/protobuf/wkt';
import type { Digest } from '../../protos/digest.ts';
import {
  type ExecuteResponse,
  ExecutionStage_Value,
} from '../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import type { Operation } from '../../protos/gen/google/longrunning/operations_pb.ts';
import { RetryInfoSchema } from '../../protos/gen/google/rpc/error_details_pb.ts';
import { StatusError } from '../../protos/status.ts';
import type { RecordedEvent } from '../builds/events.ts';
import type { InlineHints } from '../reapi/action-cache.ts';
import { queueFullRetryMs } from './limits.ts';
import type { LogRegistry } from './log-streams.ts';
import { type ActionContext, namedAction, type RunOffering } from './offering.ts';
import type { PreparedAction } from './prepare.ts';
import { encodedBytes, executeResponse, type OperationState, operationMessage } from './responses.ts';
import { type RunOutcome, type RunPhase, type RunPorts, type RunReport, runAction } from './run-action.ts';
import {
  type Completion,
  createScheduler,
  type InstanceLoad,
  type SchedulerEffect,
  type SchedulerEvent,
  type SchedulerLimits,
} from './scheduler.ts';

/** What happened, for metrics and logs. */
export type ExecutionEvent =
  | { readonly kind: 'merged' | 'refused'; readonly instance: string }
  | {
      readonly kind: 'run-ended';
      readonly instance: string;
      readonly action: Digest;
      readonly outcome: RunOutcome;
      readonly retried: boolean;
      readonly queuedMs: number;
      readonly runMs: number;
      readonly phaseMs: ReadonlyMap<RunPhase, number>;
      readonly error: StatusError | undefined;
    };

export interface ExecutorOptions extends RunPorts {
  readonly logs: LogRegistry;
  readonly limits: SchedulerLimits;
  /** Where runs go while the mesh is awake. */
  readonly offering?: RunOffering | undefined;
  readonly onEvent?: (event: ExecutionEvent) => void;
  /** Told what becomes of each action. */
  readonly record?: (event: RecordedEvent) => void;
}

interface ExecutionTicket {
  readonly prepared: PreparedAction | undefined;
  readonly action: Digest;
  readonly mergeKey: string | undefined;
  readonly context: ActionContext;
  readonly hints: InlineHints;
}

/** An operation as its watchers see it. */
export interface Watched {
  readonly fn: Digest['fn'];
  readonly hints: InlineHints;
  /** As it is now; responses come without inlined data. */
  state(): OperationState;
  /** Settles at the next change. */
  changed(): Promise<void>;
  /** The operation was given back because this node shuts down. */
  shutDown(): boolean;
}

export interface Executor {
  /**
   * Queues a new operation, or joins it to a run under way (`prepared` is then disposed). The caller is its first waiter.
   * Throws RESOURCE_EXHAUSTED when the queue is full and UNAVAILABLE when the node shuts down.
   */
  submit(ticket: ExecutionTicket): Watched;
  /** Whether a ticket with this key would join a run, and so needs nothing prepared. */
  inFlight(mergeKey: string): boolean;
  /** One more waiter; `undefined` when there is no such operation (any more). */
  attach(operation: string): Watched | undefined;
  detach(operation: string): void;
  cancel(operation: string): void;
  forget(operation: string): void;
  /** The state of an operation, without waiting for it. */
  find(operation: string): OperationState | undefined;
  /** Of one instance, or of all; oldest first. */
  list(instance: string | undefined): IterableIterator<Operation>;
  load(): ReadonlyMap<string, InstanceLoad>;
  /** Refuses and gives back what does not run; resolves when nothing runs, or after `drainMs` has killed the rest. */
  close(options: { readonly drainMs: number }): Promise<void>;
}

interface Run {
  readonly id: string;
  readonly ticket: ExecutionTicket;
  readonly prepared: PreparedAction;
  readonly abort: AbortController;
  readonly queuedAtMs: number;
  attempt: number;
  startedAtMs: number | undefined;
  /** Who runs it, while it runs. */
  worker: string;
  response: ExecuteResponse | undefined;
}

interface OperationEntry {
  readonly name: string;
  readonly instance: string;
  readonly action: Digest;
  readonly hints: InlineHints;
  /** Dropped once the operation is done. */
  run: Run | undefined;
  done: { readonly response: ExecuteResponse; readonly how: Completion } | undefined;
  change: PromiseWithResolvers<void>;
}

export function createExecutor(options: ExecutorOptions): Executor {
  const { clock, logs, offering } = options;
  const { onEvent = () => {}, record = () => {} } = options;
  const scheduler = createScheduler(options.limits);
  const operations = new Map<string, OperationEntry>();
  const runs = new Map<string, Run>();
  /** Attempts under way. */
  const attempts = new Set<Promise<void>>();
  let timer: { readonly atMs: number; readonly cancel: () => void } | undefined;

  const step = (event: SchedulerEvent): readonly SchedulerEffect[] => {
    const effects = scheduler.step(event, clock.nowMs());
    for (const effect of effects) perform(effect);
    return effects;
  };
  const perform = (effect: SchedulerEffect): void => {
    switch (effect.kind) {
      // `submit` looks at these two itself.
      case 'accepted':
      case 'refused':
        return;
      case 'start': {
        const run = runOf(effect.run);
        const offeredTo = effect.offered ? offering : undefined;
        const attempt = startAttempt(run, effect.attempt, offeredTo).finally(() => attempts.delete(attempt));
        attempts.add(attempt);
        return;
      }
      case 'abort':
        return runOf(effect.run).abort.abort();
      case 'changed': {
        const entry = operations.get(effect.operation);
        if (entry) notify(entry);
        return;
      }
      case 'completed': {
        const entry = operations.get(effect.operation);
        if (!entry) return;
        const response = effect.how === 'ended' ? entry.run?.response : withoutResult(effect.how);
        entry.done = { response: response ?? withoutResult('cancelled'), how: effect.how };
        entry.run = undefined;
        return notify(entry);
      }
      case 'released':
        runOf(effect.run).prepared[Symbol.dispose]();
        runs.delete(effect.run);
        return;
      case 'forgotten':
        operations.delete(effect.operation);
        return;
      case 'wakeAt':
        return wakeAt(effect.atMs);
      default:
        effect satisfies never;
    }
  };
  const runOf = (id: string): Run => {
    const run = runs.get(id);
    if (!run) throw new Error(`the scheduler named an unknown run ${id}`);
    return run;
  };
  const notify = (entry: OperationEntry): void => {
    entry.change.resolve();
    entry.change = Promise.withResolvers();
  };
  const wakeAt = (atMs: number): void => {
    if (timer && timer.atMs <= atMs) return;
    timer?.cancel();
    const cancel = clock.setTimer(atMs - clock.nowMs(), () => {
      timer = undefined;
      step({ kind: 'wake' });
    });
    timer = { atMs, cancel };
  };

  const startAttempt = async (run: Run, attempt: number, offeredTo: RunOffering | undefined): Promise<void> => {
    const { ticket } = run;
    const { instance } = ticket.context;
    const beganAtMs = clock.nowMs();
    run.attempt = attempt;
    const readers = new Set<() => void>();
    const onRead = (): void => {
      for (const listener of readers) listener();
    };
    const stdout = logs.create(streamName(run, 'stdout'), onRead);
    const stderr = logs.create(streamName(run, 'stderr'), onRead);
    const { prepared, queuedAtMs } = run;
    const { signal } = run.abort;
    let report: RunReport;
    if (offeredTo) {
      report = await offeredTo.run({
        run: run.id,
        request: randomUUID(),
        prepared,
        // Whatever result was found did not hold: it is not looked for again.
        context: attempt > 1 ? { ...ticket.context, skipCacheLookup: true } : ticket.context,
        onlyHere: attempt > 1,
        queuedAtMs,
        signal,
        stdout,
        stderr,
        onStage(stage, worker) {
          run.startedAtMs = stage === 'executing' ? (run.startedAtMs ?? clock.nowMs()) : undefined;
          run.worker = worker;
          step({ kind: 'stage', run: run.id, stage });
        },
        onRead: (listener) => void readers.add(listener),
      });
    } else {
      run.startedAtMs = beganAtMs;
      run.worker = options.worker;
      record({ kind: 'progress', atMs: beganAtMs, run: run.id, stage: 'executing', node: undefined });
      report = await runAction(options, {
        prepared,
        instance,
        queuedAtMs,
        startedAtMs: beganAtMs,
        signal,
        stdout,
        stderr,
      });
    }
    stdout.end();
    stderr.end();
    const startedAtMs = run.startedAtMs ?? clock.nowMs();
    run.response = report.response;
    run.startedAtMs = undefined;
    const endedAtMs = clock.nowMs();
    const retried = report.retriable && attempt < options.limits.attemptsMax;
    if (retried) record({ kind: 'retried', atMs: endedAtMs, run: run.id, why: report.error?.reason ?? '' });
    else if (!offeredTo || report.retriable) record(endedHere(run, report, startedAtMs, endedAtMs));
    onEvent({
      kind: 'run-ended',
      instance,
      action: ticket.action,
      outcome: report.outcome,
      retried,
      queuedMs: startedAtMs - queuedAtMs,
      runMs: endedAtMs - startedAtMs,
      phaseMs: report.phaseMs,
      error: report.error,
    });
    const resultBytes = encodedBytes(report.response);
    step({ kind: 'ended', run: run.id, retriable: report.retriable, resultBytes });
  };

  const stateOf = (entry: OperationEntry): OperationState => {
    const { run, done } = entry;
    const executing = run?.startedAtMs !== undefined;
    const running = executing ? ExecutionStage_Value.EXECUTING : ExecutionStage_Value.QUEUED;
    return {
      name: entry.name,
      action: entry.action,
      stage: done ? ExecutionStage_Value.COMPLETED : running,
      stdoutStreamName: executing ? streamName(run, 'stdout') : '',
      stderrStreamName: executing ? streamName(run, 'stderr') : '',
      worker: executing ? run.worker : '',
      queuedAtMs: run?.queuedAtMs,
      startedAtMs: run?.startedAtMs,
      response: done?.response,
    };
  };
  const watch = (entry: OperationEntry): Watched => ({
    fn: entry.action.fn,
    hints: entry.hints,
    state: () => stateOf(entry),
    changed: () => entry.change.promise,
    shutDown: () => entry.done?.how === 'shut-down',
  });

  offering?.watch(() => step({ kind: 'mesh', awake: offering.isAwake() }));

  return {
    submit(ticket) {
      const { mergeKey, prepared } = ticket;
      const { instance, invocation, priority } = ticket.context;
      const name = operationName(instance);
      const joined = mergeKey === undefined ? undefined : runs.get(scheduler.inFlight(mergeKey) ?? '');
      const run = joined ?? newRun(ticket);
      const entry: OperationEntry = {
        name,
        instance,
        action: ticket.action,
        hints: ticket.hints,
        run,
        done: undefined,
        change: Promise.withResolvers(),
      };
      // Known before the step: its effects may already start the run.
      operations.set(name, entry);
      runs.set(run.id, run);
      if (joined) prepared?.[Symbol.dispose]();
      const [verdict] = step({
        kind: 'submit',
        operation: name,
        run: run.id,
        mergeKey,
        instance,
        invocation,
        priority,
      });
      if (verdict?.kind === 'refused') {
        operations.delete(name);
        onEvent({ kind: 'refused', instance });
        if (!joined) {
          runs.delete(run.id);
          run.prepared[Symbol.dispose]();
        }
        throw verdict.reason === 'queue-full' ? queueFull() : shuttingDown();
      }
      const atMs = clock.nowMs();
      const named = namedAction(ticket.action, ticket.context);
      record({ kind: joined ? 'joined' : 'submitted', atMs, run: run.id, ...named });
      if (joined) onEvent({ kind: 'merged', instance });
      return watch(entry);
    },
    inFlight: (mergeKey) => scheduler.inFlight(mergeKey) !== undefined,
    attach(name) {
      const entry = operations.get(name);
      if (!entry) return undefined;
      step({ kind: 'attach', operation: name });
      return watch(entry);
    },
    detach: (operation) => void step({ kind: 'detach', operation }),
    cancel: (operation) => void step({ kind: 'cancel', operation }),
    forget: (operation) => void step({ kind: 'forget', operation }),
    find(name) {
      const entry = operations.get(name);
      return entry && stateOf(entry);
    },
    *list(instance) {
      for (const entry of operations.values()) {
        if (instance === undefined || entry.instance === instance) yield operationMessage(stateOf(entry));
      }
    },
    load: () => scheduler.load(),
    async close({ drainMs }) {
      step({ kind: 'drain' });
      const lateKill = clock.setTimer(drainMs, () => step({ kind: 'close' }));
      while (attempts.size > 0) await Promise.all(attempts);
      lateKill();
      step({ kind: 'close' });
      timer?.cancel();
    },
  };

  function newRun(ticket: ExecutionTicket): Run {
    const { prepared } = ticket;
    if (!prepared) throw new Error('only an action that joins a run may come unprepared');
    return {
      id: randomUUID(),
      ticket,
      prepared,
      abort: new AbortController(),
      queuedAtMs: clock.nowMs(),
      attempt: 0,
      startedAtMs: undefined,
      worker: '',
      response: undefined,
    };
  }
}

/** A run that no mesh answered. */
function endedHere({ id, ticket, queuedAtMs }: Run, report: RunReport, startedAtMs: number, endedAtMs: number) {
  return {
    kind: 'ended',
    atMs: endedAtMs,
    run: id,
    ...namedAction(ticket.action, ticket.context),
    outcome: report.outcome,
    source: 'here',
    node: undefined,
    token: undefined,
    error: report.error?.reason,
    times: {
      queuedMs: startedAtMs - queuedAtMs,
      runMs: report.phaseMs.get('running') ?? 0,
      handOverMs: 0,
      totalMs: endedAtMs - queuedAtMs,
    },
    result: undefined,
  } as const;
}

/** Opaque to clients; the instance in front keeps names of different instances apart. */
export function operationName(instance: string): string {
  return `${instance === '' ? '' : `${instance}/`}operations/${randomUUID()}`;
}

function streamName(run: Run, which: 'stdout' | 'stderr'): string {
  const { instance } = run.ticket.context;
  return `${instance === '' ? '' : `${instance}/`}logstreams/${run.id}-${run.attempt}/${which}`;
}

function withoutResult(how: Completion): ExecuteResponse {
  if (how === 'shut-down') return executeResponse({ error: shuttingDown() });
  const text = how === 'abandoned' ? 'nobody waited for the operation any more' : 'the operation was cancelled';
  return executeResponse({ error: new StatusError('CANCELLED', text) });
}

function queueFull(): StatusError {
  const retryDelay = durationFromMs(queueFullRetryMs);
  const details = [anyPack(RetryInfoSchema, create(RetryInfoSchema, { retryDelay }))];
  const text = `the execution queue is full; try again in ${queueFullRetryMs / 1000} s`;
  return new StatusError('RESOURCE_EXHAUSTED', text, { details });
}

function shuttingDown(): StatusError {
  return new StatusError('UNAVAILABLE', 'this node is shutting down; execute again later or elsewhere');
}
