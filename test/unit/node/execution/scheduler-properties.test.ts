import fc from 'fast-check';
import { expect, test } from 'vitest';
import { createScheduler, type SchedulerEvent, type SchedulerLimits } from '../../../../node/execution/scheduler.ts';

const limits: SchedulerLimits = {
  slots: 3,
  offeredRunsMax: 7,
  queuedRunsMax: 6,
  openOperationsMax: 12,
  abandonedGraceMs: 50,
  finishedTtlMs: 400,
  finishedOperationsMax: 8,
  finishedBytesMax: 500,
  attemptsMax: 3,
  retryDelayMs: 20,
};

type Act =
  | { act: 'submit'; key: number; invocation: number; priority: number }
  | { act: 'attach' | 'detach' | 'cancel' | 'forget'; pick: number }
  | { act: 'end'; pick: number; retriable: boolean; bytes: number }
  | { act: 'wait'; ms: number }
  | { act: 'mesh'; awake: boolean }
  | { act: 'stage'; pick: number; stage: 'queued' | 'executing' }
  | { act: 'drain' | 'close' };

const small = fc.nat({ max: 30 });
const acts: fc.Arbitrary<Act> = fc.oneof(
  {
    weight: 100,
    arbitrary: fc.record({
      act: fc.constant('submit' as const),
      key: fc.integer({ min: 0, max: 4 }),
      invocation: fc.integer({ min: 0, max: 2 }),
      priority: fc.integer({ min: -1, max: 1 }),
    }),
  },
  {
    weight: 80,
    arbitrary: fc.record({
      act: fc.constantFrom('attach' as const, 'detach' as const, 'cancel' as const, 'forget' as const),
      pick: small,
    }),
  },
  {
    weight: 80,
    arbitrary: fc.record({
      act: fc.constant('end' as const),
      pick: small,
      retriable: fc.boolean(),
      bytes: fc.nat({ max: 200 }),
    }),
  },
  { weight: 40, arbitrary: fc.record({ act: fc.constant('wait' as const), ms: fc.nat({ max: 80 }) }) },
  { weight: 6, arbitrary: fc.record({ act: fc.constant('mesh' as const), awake: fc.boolean() }) },
  {
    weight: 40,
    arbitrary: fc.record({
      act: fc.constant('stage' as const),
      pick: small,
      stage: fc.constantFrom('queued' as const, 'executing' as const),
    }),
  },
  { weight: 1, arbitrary: fc.record({ act: fc.constantFrom('drain' as const, 'close' as const) }) },
);

/** Drives a scheduler as the service does and watches everything it promises. */
function createHarness() {
  const scheduler = createScheduler(limits);
  let nowMs = 0;
  let serial = 0;
  let wakeAtMs: number | undefined;
  let closed = false;
  let awake = false;
  const places = (): number => (awake ? limits.offeredRunsMax : limits.slots);
  /** Started and not yet ended: the run's merge key. */
  const running = new Map<string, { aborted: boolean }>();
  const runs = new Map<string, { key: string | undefined; released: boolean; starts: number; operations: number }>();
  const open = new Map<string, { run: string; waiters: number }>();
  const done = new Map<string, { waiters: number }>();

  const queuedRuns = (): number => [...runs].filter(([id, run]) => !run.released && !running.has(id)).length;

  const step = (event: SchedulerEvent): void => {
    for (const effect of scheduler.step(event, nowMs)) {
      switch (effect.kind) {
        case 'accepted': {
          const key = event.kind === 'submit' ? event.mergeKey : undefined;
          if (!effect.joined && running.size >= places()) {
            expect(queuedRuns()).toBeLessThan(limits.queuedRunsMax);
          }
          if (!effect.joined) runs.set(effect.run, { key, released: false, starts: 0, operations: 0 });
          const run = runs.get(effect.run);
          expect(run?.key).toBe(key);
          expect(run?.released).toBe(false);
          if (run) run.operations += 1;
          if (key === undefined) expect(run?.operations).toBe(1);
          open.set(effect.operation, { run: effect.run, waiters: 1 });
          break;
        }
        case 'refused':
          expect(effect.reason === 'shut-down').toBe(closed);
          if (!closed && open.size < limits.openOperationsMax) {
            expect(queuedRuns()).toBeGreaterThanOrEqual(limits.queuedRunsMax);
          }
          break;
        case 'start': {
          const run = runs.get(effect.run);
          expect(running.has(effect.run)).toBe(false);
          expect(running.size).toBeLessThan(places());
          expect(effect.offered).toBe(awake);
          expect(run?.released).toBe(false);
          if (run) run.starts += 1;
          expect(effect.attempt).toBe(run?.starts);
          expect(effect.attempt).toBeLessThanOrEqual(limits.attemptsMax);
          running.set(effect.run, { aborted: false });
          break;
        }
        case 'abort': {
          const run = running.get(effect.run);
          expect(run?.aborted).toBe(false);
          expect([...open.values()].some((operation) => operation.run === effect.run)).toBe(false);
          if (run) run.aborted = true;
          break;
        }
        case 'changed':
          expect(open.has(effect.operation)).toBe(true);
          break;
        case 'completed': {
          const operation = open.get(effect.operation);
          expect(operation?.run).toBe(effect.run);
          if (effect.how === 'abandoned') expect(operation?.waiters).toBe(0);
          open.delete(effect.operation);
          done.set(effect.operation, { waiters: operation?.waiters ?? 0 });
          break;
        }
        case 'released': {
          const run = runs.get(effect.run);
          expect(run?.released).toBe(false);
          expect(running.has(effect.run)).toBe(false);
          expect([...open.values()].some((operation) => operation.run === effect.run)).toBe(false);
          if (run) run.released = true;
          break;
        }
        case 'forgotten':
          expect(done.delete(effect.operation)).toBe(true);
          break;
        case 'wakeAt':
          wakeAtMs = Math.min(effect.atMs, wakeAtMs ?? effect.atMs);
          break;
        default:
          effect satisfies never;
      }
    }
    checkState();
  };

  const checkState = (): void => {
    expect(open.size).toBeLessThanOrEqual(limits.openOperationsMax);
    expect(done.size).toBeLessThanOrEqual(limits.finishedOperationsMax);
    expect([...scheduler.operations()].sort()).toEqual([...open.keys(), ...done.keys()].sort());
    for (const [name, { waiters }] of open) expect(scheduler.view(name)?.waiters).toBe(waiters);
    for (const name of done.keys()) expect(scheduler.view(name)?.stage).toBe('completed');
    // Two runs with one key are never under way, except beside one that is being killed.
    const keys = [...runs].flatMap(([id, run]) =>
      run.released || run.key === undefined || running.get(id)?.aborted ? [] : [run.key],
    );
    expect(new Set(keys).size).toBe(keys.length);
    // Work-conserving: who is in the queue waits for a slot.
    const ready = [...open].flatMap(([name, { run }]) =>
      scheduler.view(name)?.history.at(-1)?.stage === 'queued' && !running.has(run) ? [run] : [],
    );
    const retried = ready.every((run) => (runs.get(run)?.starts ?? 0) > 0);
    if (running.size < places()) expect(retried).toBe(true);
    // Whatever ends by time has a timer.
    if (done.size > 0 || [...open.values()].some((operation) => operation.waiters === 0)) {
      expect(wakeAtMs).toBeDefined();
    }
  };
  const advance = (ms: number): void => {
    const untilMs = nowMs + ms;
    while (wakeAtMs !== undefined && wakeAtMs <= untilMs) {
      nowMs = wakeAtMs;
      wakeAtMs = undefined;
      step({ kind: 'wake' });
    }
    nowMs = untilMs;
  };
  const pickFrom = (names: string[], pick: number): string | undefined => names[pick % Math.max(1, names.length)];

  return {
    open,
    done,
    running,
    runs,
    advance,
    end(run: string, retriable: boolean, bytes: number) {
      running.delete(run);
      step({ kind: 'ended', run, retriable, resultBytes: bytes });
    },
    perform(act: Act) {
      const known = [...open.keys(), ...done.keys()];
      switch (act.act) {
        case 'submit': {
          serial += 1;
          const mergeKey = act.key === 0 ? undefined : `k${act.key}`;
          const invocation = `i${act.invocation}`;
          const names = { operation: `op${serial}`, run: `run${serial}`, instance: '' };
          return step({ kind: 'submit', ...names, mergeKey, invocation, priority: act.priority });
        }
        case 'attach':
        case 'detach':
        case 'cancel':
        case 'forget': {
          const operation = pickFrom(known, act.pick);
          const entry = operation === undefined ? undefined : (open.get(operation) ?? done.get(operation));
          if (operation === undefined || !entry || (act.act === 'detach' && entry.waiters === 0)) return;
          if (act.act === 'attach') entry.waiters += 1;
          if (act.act === 'detach') entry.waiters -= 1;
          return step({ kind: act.act, operation });
        }
        case 'end': {
          const run = pickFrom([...running.keys()], act.pick);
          if (run !== undefined) this.end(run, act.retriable, act.bytes);
          return;
        }
        case 'mesh':
          awake = act.awake;
          return step({ kind: 'mesh', awake });
        case 'stage': {
          const run = pickFrom([...running.keys()], act.pick);
          return run === undefined ? undefined : step({ kind: 'stage', run, stage: act.stage });
        }
        case 'wait':
          return advance(act.ms);
        case 'drain':
        case 'close':
          closed = true;
          return step({ kind: act.act });
        default:
          act satisfies never;
      }
    },
  };
}

test('whatever happens in whatever order, every promise of the scheduler holds and everything ends', () => {
  fc.assert(
    fc.property(fc.array(acts, { maxLength: 120, size: 'max' }), (sequence) => {
      const harness = createHarness();
      for (const act of sequence) harness.perform(act);
      // From here on nothing new comes and every run ends: all operations complete, all runs are released.
      for (let round = 0; round < 100 && harness.open.size + harness.running.size > 0; round += 1) {
        for (const run of [...harness.running.keys()]) harness.end(run, false, 1);
        harness.advance(100);
      }
      expect([...harness.open.keys()]).toEqual([]);
      expect([...harness.runs.values()].every((run) => run.released)).toBe(true);
      harness.advance(limits.finishedTtlMs);
      expect([...harness.done.keys()]).toEqual([]);
    }),
    { numRuns: 300 },
  );
});
