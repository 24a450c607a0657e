import { describe, expect, test } from 'vitest';
import {
  createScheduler,
  type Scheduler,
  type SchedulerEffect,
  type SchedulerLimits,
  type Submission,
} from '../../../../node/execution/scheduler.ts';

const limits: SchedulerLimits = {
  slots: 1,
  offeredRunsMax: 4,
  queuedRunsMax: 10,
  openOperationsMax: 20,
  abandonedGraceMs: 1_000,
  finishedTtlMs: 60_000,
  finishedOperationsMax: 5,
  finishedBytesMax: 1_000,
  attemptsMax: 3,
  retryDelayMs: 100,
};

function given(overrides: Partial<SchedulerLimits> = {}) {
  const scheduler = createScheduler({ ...limits, ...overrides });
  let nowMs = 0;
  let count = 0;
  return {
    scheduler,
    at: (ms: number) => {
      nowMs = ms;
    },
    submit(operation: string, extra: Partial<Submission> = {}): readonly SchedulerEffect[] {
      count += 1;
      const event = { mergeKey: undefined, instance: '', invocation: 'a', priority: 0, run: `r${count}`, ...extra };
      return scheduler.step({ kind: 'submit', operation, ...event }, nowMs);
    },
    on: (kind: 'attach' | 'detach' | 'cancel' | 'forget', operation: string) =>
      scheduler.step({ kind, operation }, nowMs),
    ended: (run: string, retriable = false, resultBytes = 10) =>
      scheduler.step({ kind: 'ended', run, retriable, resultBytes }, nowMs),
    step: (kind: 'wake' | 'drain' | 'close') => scheduler.step({ kind }, nowMs),
  };
}

const started = (effects: readonly SchedulerEffect[]): string[] =>
  effects.flatMap((effect) => (effect.kind === 'start' ? [effect.run] : []));
const ofKind = (effects: readonly SchedulerEffect[], kind: SchedulerEffect['kind']): SchedulerEffect[] =>
  effects.filter((effect) => effect.kind === kind);
/** Ends whatever runs until nothing does; the order in which runs started. */
function startOrder(on: ReturnType<typeof given>, running: string): string[] {
  const order = [running];
  for (let next: string | undefined = running; next !== undefined; ) {
    next = started(on.ended(next))[0];
    if (next !== undefined) order.push(next);
  }
  return order;
}
const stageOf = (scheduler: Scheduler, operation: string): string | undefined => scheduler.view(operation)?.stage;

describe('slots and order', () => {
  test('a run starts at once while a slot is free, and waits otherwise', () => {
    const on = given({ slots: 2 });
    expect(started(on.submit('one'))).toEqual(['r1']);
    expect(started(on.submit('two'))).toEqual(['r2']);
    expect(started(on.submit('three'))).toEqual([]);
    expect(stageOf(on.scheduler, 'three')).toBe('queued');
    expect(started(on.ended('r1'))).toEqual(['r3']);
  });

  test('lower priority numbers go first, equal ones in order of arrival', () => {
    const on = given();
    on.submit('running');
    on.submit('late', { priority: 5 });
    on.submit('first');
    on.submit('second');
    on.submit('urgent', { priority: -1 });
    expect(startOrder(on, 'r1')).toEqual(['r1', 'r5', 'r3', 'r4', 'r2']);
  });

  test('invocations of one priority take turns, however much one of them has queued', () => {
    const on = given();
    on.submit('running', { invocation: 'big' });
    for (let n = 0; n < 3; n += 1) on.submit(`big${n}`, { invocation: 'big' });
    on.submit('small0', { invocation: 'small' });
    on.submit('small1', { invocation: 'small' });
    expect(startOrder(on, 'r1')).toEqual(['r1', 'r2', 'r5', 'r3', 'r6', 'r4']);
  });

  test('a full queue refuses a new run, but lets an operation join one', () => {
    const on = given({ queuedRunsMax: 1 });
    on.submit('running');
    on.submit('queued', { mergeKey: 'k' });
    expect(on.submit('refused')).toEqual([{ kind: 'refused', operation: 'refused', reason: 'queue-full' }]);
    expect(on.scheduler.view('refused')).toBeUndefined();
    expect(on.submit('joins', { mergeKey: 'k' })).toContainEqual({
      kind: 'accepted',
      operation: 'joins',
      run: 'r2',
      joined: true,
    });
  });

  test('open operations are bounded, merged ones included', () => {
    const on = given({ openOperationsMax: 2 });
    on.submit('one', { mergeKey: 'k' });
    on.submit('two', { mergeKey: 'k' });
    expect(ofKind(on.submit('three', { mergeKey: 'k' }), 'refused')).toHaveLength(1);
  });

  test('the load is told by instance', () => {
    const on = given();
    on.submit('one', { instance: 'main' });
    on.submit('two', { instance: 'main' });
    on.submit('three', { instance: 'other' });
    expect([...on.scheduler.load()]).toEqual([
      ['main', { queued: 1, executing: 1 }],
      ['other', { queued: 1, executing: 0 }],
    ]);
  });
});

describe('merging', () => {
  test('operations with one key share a run, and all complete with it', () => {
    const on = given({ slots: 4 });
    on.submit('one', { mergeKey: 'k' });
    expect(started(on.submit('two', { mergeKey: 'k' }))).toEqual([]);
    const effects = on.ended('r1');
    expect(ofKind(effects, 'completed')).toEqual([
      { kind: 'completed', operation: 'one', run: 'r1', how: 'ended' },
      { kind: 'completed', operation: 'two', run: 'r1', how: 'ended' },
    ]);
    expect(ofKind(effects, 'released')).toEqual([{ kind: 'released', run: 'r1' }]);
    expect(started(on.submit('three', { mergeKey: 'k' }))).toEqual(['r3']);
  });

  test('runs without a key are never shared', () => {
    const on = given({ slots: 4 });
    on.submit('one');
    expect(started(on.submit('two'))).toEqual(['r2']);
  });

  test('a joiner of higher priority moves a queued run forward', () => {
    const on = given();
    on.submit('running');
    on.submit('first');
    on.submit('second', { mergeKey: 'k', priority: 3 });
    on.submit('joiner', { mergeKey: 'k', priority: -2 });
    expect(startOrder(on, 'r1')).toEqual(['r1', 'r3', 'r2']);
  });

  test('a run that two invocations want comes with whoever has the turn first, once', () => {
    const on = given();
    on.submit('running', { invocation: 'big' });
    for (let n = 0; n < 3; n += 1) on.submit(`big${n}`, { invocation: 'big', mergeKey: `k${n}` });
    on.submit('small', { invocation: 'small', mergeKey: 'k2' });
    expect(startOrder(on, 'r1')).toEqual(['r1', 'r2', 'r4', 'r3']);
  });

  test('one operation cancelled leaves the other its run', () => {
    const on = given();
    on.submit('one', { mergeKey: 'k' });
    on.submit('two', { mergeKey: 'k' });
    const effects = on.on('cancel', 'one');
    expect(effects).toContainEqual({ kind: 'completed', operation: 'one', run: 'r1', how: 'cancelled' });
    expect(ofKind(effects, 'abort')).toEqual([]);
    expect(ofKind(on.ended('r1'), 'completed')).toEqual([
      { kind: 'completed', operation: 'two', run: 'r1', how: 'ended' },
    ]);
  });
});

describe('cancelling and leaving', () => {
  test('the last cancel kills the run, which keeps its slot until it is dead', () => {
    const on = given();
    on.submit('one', { mergeKey: 'k' });
    on.submit('two');
    const effects = on.on('cancel', 'one');
    expect(ofKind(effects, 'abort')).toEqual([{ kind: 'abort', run: 'r1' }]);
    expect(started(effects)).toEqual([]);
    expect(stageOf(on.scheduler, 'one')).toBe('completed');
    expect(started(on.ended('r1'))).toEqual(['r2']);
  });

  test('a new operation does not join a run that is being killed', () => {
    const on = given({ slots: 2 });
    on.submit('one', { mergeKey: 'k' });
    on.on('cancel', 'one');
    expect(started(on.submit('two', { mergeKey: 'k' }))).toEqual(['r2']);
  });

  test('a queued run that is cancelled never starts', () => {
    const on = given();
    on.submit('running');
    on.submit('queued');
    expect(ofKind(on.on('cancel', 'queued'), 'released')).toEqual([{ kind: 'released', run: 'r2' }]);
    expect(started(on.ended('r1'))).toEqual([]);
  });

  test('an operation without waiters is cancelled after the grace time, not before', () => {
    const on = given();
    on.submit('one');
    expect(ofKind(on.on('detach', 'one'), 'wakeAt')).toEqual([{ kind: 'wakeAt', atMs: 1_000 }]);
    on.at(999);
    expect(ofKind(on.step('wake'), 'abort')).toEqual([]);
    on.at(1_000);
    expect(on.step('wake')).toEqual(
      expect.arrayContaining([
        { kind: 'completed', operation: 'one', run: 'r1', how: 'abandoned' },
        { kind: 'abort', run: 'r1' },
      ]),
    );
  });

  test('a waiter that comes back within the grace time keeps the run', () => {
    const on = given();
    on.submit('one');
    on.on('detach', 'one');
    on.at(900);
    on.on('attach', 'one');
    on.at(5_000);
    expect(ofKind(on.step('wake'), 'abort')).toEqual([]);
    expect(ofKind(on.ended('r1'), 'completed')).toHaveLength(1);
  });

  test('of two merged operations the abandoned one goes and the other keeps the run', () => {
    const on = given();
    on.submit('one', { mergeKey: 'k' });
    on.submit('two', { mergeKey: 'k' });
    on.on('detach', 'one');
    on.at(1_000);
    const effects = on.step('wake');
    expect(ofKind(effects, 'completed')).toEqual([
      { kind: 'completed', operation: 'one', run: 'r1', how: 'abandoned' },
    ]);
    expect(ofKind(effects, 'abort')).toEqual([]);
  });
});

describe('failures of this machine', () => {
  test('a retriable failure is tried again after a growing delay, before everything queued, a bounded number of times', () => {
    const on = given();
    on.submit('one');
    on.submit('urgent', { priority: -5 });
    expect(started(on.ended('r1', true))).toEqual(['r2']);
    expect(stageOf(on.scheduler, 'one')).toBe('queued');
    on.at(100);
    on.step('wake');
    on.submit('more', { priority: -9 });
    expect(started(on.ended('r2'))).toEqual(['r1']);
    expect(ofKind(on.ended('r1', true), 'completed')).toEqual([]);
    on.ended('r3');
    on.at(299);
    expect(started(on.step('wake'))).toEqual([]);
    on.at(300);
    expect(started(on.step('wake'))).toEqual(['r1']);
    expect(ofKind(on.ended('r1', true), 'completed')).toEqual([
      { kind: 'completed', operation: 'one', run: 'r1', how: 'ended' },
    ]);
  });

  test('the history of an operation shows that it went back', () => {
    const on = given();
    on.submit('one');
    on.ended('r1', true);
    on.at(100);
    on.step('wake');
    on.ended('r1');
    expect(on.scheduler.view('one')?.history.map((entry) => entry.stage)).toEqual([
      'queued',
      'executing',
      'queued',
      'executing',
      'completed',
    ]);
  });
});

describe('finished operations', () => {
  test('are kept for a while, then forgotten', () => {
    const on = given();
    on.submit('one');
    on.ended('r1');
    on.at(59_999);
    on.step('wake');
    expect(stageOf(on.scheduler, 'one')).toBe('completed');
    on.at(60_000);
    expect(on.step('wake')).toContainEqual({ kind: 'forgotten', operation: 'one' });
    expect(on.scheduler.view('one')).toBeUndefined();
  });

  test('are bounded in number and in bytes, the oldest going first', () => {
    const on = given();
    for (let n = 1; n <= 7; n += 1) {
      on.submit(`op${n}`);
      on.ended(`r${n}`);
    }
    expect([...on.scheduler.operations()]).toEqual(['op3', 'op4', 'op5', 'op6', 'op7']);
    on.submit('large');
    on.ended('r8', false, 990);
    expect([...on.scheduler.operations()]).toEqual(['op7', 'large']);
  });

  test('can be forgotten on request; what is under way cannot', () => {
    const on = given();
    on.submit('one');
    expect(on.on('forget', 'one')).toEqual([]);
    on.ended('r1');
    expect(on.on('forget', 'one')).toContainEqual({ kind: 'forgotten', operation: 'one' });
  });
});

describe('shutting down', () => {
  test('draining gives back what is queued, refuses what comes, and lets what runs end', () => {
    const on = given();
    on.submit('running');
    on.submit('queued');
    expect(ofKind(on.step('drain'), 'completed')).toEqual([
      { kind: 'completed', operation: 'queued', run: 'r2', how: 'shut-down' },
    ]);
    expect(on.submit('late')).toEqual([{ kind: 'refused', operation: 'late', reason: 'shut-down' }]);
    expect(ofKind(on.ended('r1'), 'completed')).toEqual([
      { kind: 'completed', operation: 'running', run: 'r1', how: 'ended' },
    ]);
  });

  test('closing kills what runs', () => {
    const on = given();
    on.submit('running');
    expect(on.step('close')).toEqual(
      expect.arrayContaining([
        { kind: 'completed', operation: 'running', run: 'r1', how: 'shut-down' },
        { kind: 'abort', run: 'r1' },
      ]),
    );
    expect(ofKind(on.ended('r1'), 'released')).toHaveLength(1);
  });
});

describe('while the mesh is awake', () => {
  test('everything is offered at once, and stays queued until somebody runs it', () => {
    const on = given();
    on.scheduler.step({ kind: 'mesh', awake: true }, 0);
    const effects = [on.submit('a'), on.submit('b'), on.submit('c')].flat();
    expect(effects.flatMap((effect) => (effect.kind === 'start' ? [effect.offered] : []))).toEqual([true, true, true]);
    expect(stageOf(on.scheduler, 'b')).toBe('queued');
    expect(on.scheduler.load().get('')).toEqual({ queued: 3, executing: 0 });
    on.scheduler.step({ kind: 'stage', run: 'r2', stage: 'executing' }, 1);
    expect(stageOf(on.scheduler, 'b')).toBe('executing');
    expect(on.scheduler.load().get('')).toEqual({ queued: 2, executing: 1 });
    on.scheduler.step({ kind: 'stage', run: 'r2', stage: 'queued' }, 2);
    expect(stageOf(on.scheduler, 'b')).toBe('queued');
  });

  test('no more are offered than the machine takes', () => {
    const on = given({ offeredRunsMax: 2 });
    on.scheduler.step({ kind: 'mesh', awake: true }, 0);
    expect(started([on.submit('a'), on.submit('b'), on.submit('c')].flat())).toEqual(['r1', 'r2']);
    expect(started(on.ended('r1'))).toEqual(['r3']);
  });

  test('when it falls asleep, slots count again', () => {
    const on = given({ slots: 1 });
    on.scheduler.step({ kind: 'mesh', awake: true }, 0);
    on.submit('a');
    on.submit('b');
    on.scheduler.step({ kind: 'mesh', awake: false }, 1);
    expect(started(on.submit('c'))).toEqual([]);
    expect(started(on.ended('r1'))).toEqual([]);
    const [start] = ofKind(on.ended('r2'), 'start');
    expect(start).toMatchObject({ run: 'r3', offered: false });
    expect(stageOf(on.scheduler, 'c')).toBe('executing');
  });
});
