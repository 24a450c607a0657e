/**
 * Decides which execution runs when, and which operation ends how. A pure machine: the service around it runs actions,
 * speaks to clients and keeps time.
 *
 * An *operation* is what one Execute call made and what its client knows by name. A *run* is one execution of an action;
 * several operations share one when they ask for the same action at the same time. A run occupies a slot from `start`
 * until its `ended`, also while it is being killed.
 *
 * While the mesh is awake a run is started to be offered: who runs it, where and when is decided by the mesh's machine,
 * which keeps the queue. Such a run stays queued until a `stage` event says otherwise.
 *
 * - At most `slots` runs at once, `offeredRunsMax` while the mesh is awake; no place stays free while a run is queued.
 * - Two runs with one merge key are never under way at once; a run without a merge key is never shared.
 * - An operation completes exactly once. One with a waiter never completes because it was abandoned.
 * - A run is killed only when none of its operations is left, or at `close`.
 *
 * @see docs/adr/0007-execution-queue-and-merging.md
 */
import assert from 'node:assert';
import type { Machine } from '../../mesh/core/machine.ts';
import { createFairQueue } from './fair-queue.ts';

type Stage = 'queued' | 'executing' | 'completed';

export interface Submission {
  /** Name of the new operation; its caller is its first waiter. */
  readonly operation: string;
  /** Name for a new run, unused when the operation joins one. */
  readonly run: string;
  /** Equal for executions that may be shared; `undefined` for one that may not. */
  readonly mergeKey: string | undefined;
  readonly instance: string;
  /** Who takes turns with whom. */
  readonly invocation: string;
  /** Lower is sooner. */
  readonly priority: number;
}

export type SchedulerEvent =
  | ({ readonly kind: 'submit' } & Submission)
  | { readonly kind: 'attach' | 'detach' | 'cancel' | 'forget'; readonly operation: string }
  /** The run that `start` began is over. `retriable`: for reasons of this machine. Sent once per `start`, also after `abort`. */
  | { readonly kind: 'ended'; readonly run: string; readonly retriable: boolean; readonly resultBytes: number }
  /** What has become of a run that was started to be offered: it may go back to queued when a claim is lost. */
  | { readonly kind: 'stage'; readonly run: string; readonly stage: 'queued' | 'executing' }
  /** From now on runs are offered to the mesh, or run here again. */
  | { readonly kind: 'mesh'; readonly awake: boolean }
  /** Refuse new work and give back what is queued; what runs may end. */
  | { readonly kind: 'drain' }
  /** As `drain`, and kill what runs. */
  | { readonly kind: 'close' }
  | { readonly kind: 'wake' };

export type Completion = 'ended' | 'cancelled' | 'abandoned' | 'shut-down';

export type SchedulerEffect =
  | { readonly kind: 'accepted'; readonly operation: string; readonly run: string; readonly joined: boolean }
  | { readonly kind: 'refused'; readonly operation: string; readonly reason: 'queue-full' | 'shut-down' }
  | { readonly kind: 'start'; readonly run: string; readonly attempt: number; readonly offered: boolean }
  | { readonly kind: 'abort'; readonly run: string }
  /** The operation's stage changed; it is not done. */
  | { readonly kind: 'changed'; readonly operation: string }
  | { readonly kind: 'completed'; readonly operation: string; readonly run: string; readonly how: Completion }
  /** Nothing about the run is needed any more, save the result that its completed operations show. */
  | { readonly kind: 'released'; readonly run: string }
  | { readonly kind: 'forgotten'; readonly operation: string }
  | { readonly kind: 'wakeAt'; readonly atMs: number };

export interface SchedulerLimits {
  readonly slots: number;
  readonly offeredRunsMax: number;
  readonly queuedRunsMax: number;
  readonly openOperationsMax: number;
  readonly abandonedGraceMs: number;
  readonly finishedTtlMs: number;
  readonly finishedOperationsMax: number;
  readonly finishedBytesMax: number;
  readonly attemptsMax: number;
  readonly retryDelayMs: number;
}

interface StageEntry {
  readonly stage: Stage;
  readonly atMs: number;
}

interface OperationView {
  readonly run: string;
  readonly instance: string;
  readonly stage: Stage;
  readonly waiters: number;
  /** Oldest first; a stage may come again after a failed attempt. */
  readonly history: readonly StageEntry[];
}

export interface InstanceLoad {
  readonly queued: number;
  readonly executing: number;
}

export interface Scheduler extends Machine<SchedulerEvent, SchedulerEffect> {
  view(operation: string): OperationView | undefined;
  /** Names of all operations that are not forgotten, oldest first. */
  operations(): IterableIterator<string>;
  /** The run that an operation with this key would join. */
  inFlight(mergeKey: string): string | undefined;
  /** Runs under way, by instance name. */
  load(): ReadonlyMap<string, InstanceLoad>;
}

interface Run {
  readonly id: string;
  readonly mergeKey: string | undefined;
  readonly instance: string;
  readonly operations: Set<Operation>;
  state: 'queued' | 'backing-off' | 'executing' | 'aborting';
  /** Where it stands in line; a run that failed for this machine's reasons goes before all others. */
  priority: number;
  attempts: number;
  retryAtMs: number;
  readonly history: StageEntry[];
}

interface Operation {
  readonly name: string;
  readonly run: Run;
  readonly invocation: string;
  waiters: number;
  done: { readonly atMs: number; readonly bytes: number } | undefined;
  /** Of the run, until this operation is done. */
  history: readonly StageEntry[];
}

export function createScheduler(limits: SchedulerLimits): Scheduler {
  assert(limits.slots > 0 && limits.attemptsMax > 0, 'a scheduler needs a slot and an attempt');
  const operations = new Map<string, Operation>();
  const runs = new Map<string, Run>();
  const byMergeKey = new Map<string, Run>();
  const queue = createFairQueue<Run>();
  const backingOff = new Set<Run>();
  /** Operations without waiters, in the order in which they lost the last one. */
  const abandoned = new Map<Operation, number>();
  /** Finished operations, oldest first. */
  const finished = new Set<Operation>();
  let finishedBytes = 0;
  let slotsUsed = 0;
  let queuedRuns = 0;
  let accepting = true;
  let meshAwake = false;
  let wakeAtMs: number | undefined;

  let effects: SchedulerEffect[] = [];
  const emit = (effect: SchedulerEffect): void => void effects.push(effect);

  const places = (): number => (meshAwake ? limits.offeredRunsMax : limits.slots);
  const enterStage = (run: Run, stage: Stage, nowMs: number): void => {
    if (run.history.at(-1)?.stage === stage) return;
    run.history.push({ stage, atMs: nowMs });
    for (const operation of run.operations) emit({ kind: 'changed', operation: operation.name });
  };
  const invocationsOf = (run: Run): Set<string> => new Set([...run.operations].map((one) => one.invocation));
  const enqueue = (run: Run): void => {
    run.state = 'queued';
    for (const invocation of invocationsOf(run)) queue.add(run, run.priority, invocation);
  };
  const leaveQueue = (run: Run): void => {
    for (const invocation of invocationsOf(run)) queue.remove(run, run.priority, invocation);
  };

  const forget = (operation: Operation): void => {
    finished.delete(operation);
    finishedBytes -= operation.done?.bytes ?? 0;
    operations.delete(operation.name);
    emit({ kind: 'forgotten', operation: operation.name });
  };
  const complete = (operation: Operation, how: Completion, bytes: number, nowMs: number): void => {
    operation.run.operations.delete(operation);
    abandoned.delete(operation);
    operation.done = { atMs: nowMs, bytes };
    operation.history = [...operation.run.history, { stage: 'completed', atMs: nowMs }];
    finished.add(operation);
    finishedBytes += bytes;
    emit({ kind: 'completed', operation: operation.name, run: operation.run.id, how });
  };
  const unmerge = (run: Run): void => {
    if (run.mergeKey !== undefined && byMergeKey.get(run.mergeKey) === run) byMergeKey.delete(run.mergeKey);
  };
  const release = (run: Run): void => {
    unmerge(run);
    runs.delete(run.id);
    emit({ kind: 'released', run: run.id });
  };
  /** A run that nobody asks for any more. */
  const stop = (run: Run): void => {
    if (run.state === 'executing') {
      run.state = 'aborting';
      unmerge(run);
      emit({ kind: 'abort', run: run.id });
    } else if (run.state !== 'aborting') {
      backingOff.delete(run);
      queuedRuns -= 1;
      release(run);
    }
  };
  const withdraw = (operation: Operation, how: Completion, nowMs: number): void => {
    const { run } = operation;
    const queued = run.state === 'queued';
    complete(operation, how, 0, nowMs);
    if (queued && !invocationsOf(run).has(operation.invocation)) {
      queue.remove(run, run.priority, operation.invocation);
    }
    if (run.operations.size === 0) stop(run);
  };

  const submit = (event: Submission, nowMs: number): void => {
    assert(!operations.has(event.operation), `operation ${event.operation} exists`);
    if (!accepting) return emit({ kind: 'refused', operation: event.operation, reason: 'shut-down' });
    const shared = event.mergeKey === undefined ? undefined : byMergeKey.get(event.mergeKey);
    const queueFull = !shared && queuedRuns >= limits.queuedRunsMax && slotsUsed >= places();
    if (queueFull || operations.size - finished.size >= limits.openOperationsMax) {
      return emit({ kind: 'refused', operation: event.operation, reason: 'queue-full' });
    }
    const run = shared ?? addRun(event, nowMs);
    const operation: Operation = {
      name: event.operation,
      run,
      invocation: event.invocation,
      waiters: 1,
      done: undefined,
      history: run.history,
    };
    operations.set(operation.name, operation);
    emit({ kind: 'accepted', operation: operation.name, run: run.id, joined: shared !== undefined });
    if (run.state === 'queued' && event.priority < run.priority) {
      leaveQueue(run);
      run.operations.add(operation);
      run.priority = event.priority;
      enqueue(run);
    } else {
      run.operations.add(operation);
      if (run.state === 'queued') queue.add(run, run.priority, operation.invocation);
    }
  };
  const addRun = (event: Submission, nowMs: number): Run => {
    assert(!runs.has(event.run), `run ${event.run} exists`);
    const run: Run = {
      id: event.run,
      mergeKey: event.mergeKey,
      instance: event.instance,
      operations: new Set(),
      state: 'queued',
      priority: event.priority,
      attempts: 0,
      retryAtMs: 0,
      history: [{ stage: 'queued', atMs: nowMs }],
    };
    runs.set(run.id, run);
    if (run.mergeKey !== undefined) byMergeKey.set(run.mergeKey, run);
    queuedRuns += 1;
    return run;
  };

  const onEnded = (event: Extract<SchedulerEvent, { kind: 'ended' }>, nowMs: number): void => {
    const run = runs.get(event.run);
    assert(run && (run.state === 'executing' || run.state === 'aborting'), `run ${event.run} does not run`);
    slotsUsed -= 1;
    if (run.state === 'executing' && event.retriable && run.attempts < limits.attemptsMax) {
      run.state = 'backing-off';
      run.retryAtMs = nowMs + limits.retryDelayMs * 2 ** (run.attempts - 1);
      run.priority = Number.NEGATIVE_INFINITY;
      backingOff.add(run);
      queuedRuns += 1;
      enterStage(run, 'queued', nowMs);
      return;
    }
    for (const operation of [...run.operations]) complete(operation, 'ended', event.resultBytes, nowMs);
    release(run);
  };

  const shutDown = (kill: boolean, nowMs: number): void => {
    accepting = false;
    for (const run of [...runs.values()]) {
      // What was offered and nobody runs yet is given back as what is queued here.
      const isRunning = run.history.at(-1)?.stage === 'executing';
      if (isRunning && !kill) continue;
      for (const operation of [...run.operations]) withdraw(operation, 'shut-down', nowMs);
    }
  };

  const expire = (nowMs: number): void => {
    for (const [operation, sinceMs] of abandoned) {
      if (sinceMs + limits.abandonedGraceMs > nowMs) break;
      withdraw(operation, 'abandoned', nowMs);
    }
    for (const run of backingOff) {
      if (run.retryAtMs > nowMs) continue;
      backingOff.delete(run);
      enqueue(run);
    }
    for (const operation of finished) {
      const tooMuch = finished.size > limits.finishedOperationsMax || finishedBytes > limits.finishedBytesMax;
      if (!tooMuch && (operation.done?.atMs ?? 0) + limits.finishedTtlMs > nowMs) break;
      forget(operation);
    }
  };
  const startRuns = (nowMs: number): void => {
    while (slotsUsed < places()) {
      const run = queue.next();
      if (!run) return;
      leaveQueue(run);
      queuedRuns -= 1;
      slotsUsed += 1;
      run.state = 'executing';
      run.attempts += 1;
      emit({ kind: 'start', run: run.id, attempt: run.attempts, offered: meshAwake });
      if (!meshAwake) enterStage(run, 'executing', nowMs);
    }
  };
  const nextDeadlineMs = (): number | undefined => {
    const deadlines: number[] = [];
    for (const sinceMs of abandoned.values()) {
      deadlines.push(sinceMs + limits.abandonedGraceMs);
      break;
    }
    for (const operation of finished) {
      deadlines.push((operation.done?.atMs ?? 0) + limits.finishedTtlMs);
      break;
    }
    for (const run of backingOff) deadlines.push(run.retryAtMs);
    return deadlines.length === 0 ? undefined : Math.min(...deadlines);
  };

  const apply = (event: SchedulerEvent, nowMs: number): void => {
    switch (event.kind) {
      case 'submit':
        return submit(event, nowMs);
      case 'ended':
        return onEnded(event, nowMs);
      case 'stage': {
        const run = runs.get(event.run);
        if (run?.state === 'executing') enterStage(run, event.stage, nowMs);
        return;
      }
      case 'mesh':
        meshAwake = event.awake;
        return;
      case 'drain':
        return shutDown(false, nowMs);
      case 'close':
        return shutDown(true, nowMs);
      case 'wake':
        wakeAtMs = undefined;
        return;
      case 'attach':
      case 'detach':
      case 'cancel':
      case 'forget': {
        const operation = operations.get(event.operation);
        if (operation) onOperation(operation, event.kind, nowMs);
        return;
      }
      default:
        event satisfies never;
    }
  };
  const onOperation = (operation: Operation, kind: 'attach' | 'detach' | 'cancel' | 'forget', nowMs: number): void => {
    if (kind === 'attach') {
      operation.waiters += 1;
      abandoned.delete(operation);
    } else if (kind === 'detach') {
      assert(operation.waiters > 0, `operation ${operation.name} has no waiter`);
      operation.waiters -= 1;
      if (operation.waiters === 0 && !operation.done) abandoned.set(operation, nowMs);
    } else if (kind === 'cancel') {
      if (!operation.done) withdraw(operation, 'cancelled', nowMs);
    } else if (operation.done) {
      forget(operation);
    }
  };

  return {
    step(event, nowMs) {
      effects = [];
      apply(event, nowMs);
      expire(nowMs);
      startRuns(nowMs);
      const deadlineMs = nextDeadlineMs();
      if (deadlineMs !== undefined && (wakeAtMs === undefined || deadlineMs < wakeAtMs)) {
        wakeAtMs = deadlineMs;
        emit({ kind: 'wakeAt', atMs: deadlineMs });
      }
      return effects;
    },
    view(name) {
      const operation = operations.get(name);
      if (!operation) return undefined;
      const { run, waiters, history } = operation;
      const stage = history.at(-1)?.stage ?? 'queued';
      return { run: run.id, instance: run.instance, stage, waiters, history };
    },
    operations: () => operations.keys(),
    inFlight: (mergeKey) => byMergeKey.get(mergeKey)?.id,
    load() {
      const load = new Map<string, { queued: number; executing: number }>();
      for (const run of runs.values()) {
        const entry = load.get(run.instance) ?? { queued: 0, executing: 0 };
        if (run.history.at(-1)?.stage === 'executing') entry.executing += 1;
        else entry.queued += 1;
        load.set(run.instance, entry);
      }
      return load;
    },
  };
}
