import { expect, test } from 'vitest';
import * as limits from '../../../../mesh/core/offload/limits.ts';
import { createOffload, type Offload } from '../../../../mesh/core/offload/offload.ts';
import type { MeshMember, OffloadEffect, OffloadEvent, OffloadItem } from '../../../../mesh/core/offload/types.ts';

interface Bench {
  readonly offload: Offload;
  nowMs: number;
  step(event: OffloadEvent): readonly OffloadEffect[];
  submit(request: string, traits?: Partial<OffloadItem>): 'runHere' | 'offer';
  /** As many members as there are throughputs, each lending as many slots. */
  mesh(guestSlots: number, ...bytesPerMs: number[]): void;
  /** Wakes it as it asked, until the time has passed. */
  pass(forMs: number): OffloadEffect[];
}

function createBench(slots = 4, meshSlots = 20): Bench {
  const offload = createOffload('self');
  let wakeAtMs = Number.POSITIVE_INFINITY;
  const bench: Bench = {
    offload,
    nowMs: 1_000,
    step(event) {
      const effects = offload.step(event, bench.nowMs);
      for (const effect of effects) if (effect.kind === 'wakeAt') wakeAtMs = effect.atMs;
      return effects;
    },
    submit(request, traits = {}) {
      const effects = bench.step({ kind: 'submit', item: itemOf(request, traits), hasLeader: true });
      return effects.find(({ kind }) => kind === 'runHere' || kind === 'offer')?.kind as 'runHere' | 'offer';
    },
    mesh(guestSlots, ...bytesPerMs) {
      const members = bytesPerMs.map((rate, i) => ({ node: `n${i}`, guestSlots, capabilities: [], bytesPerMs: rate }));
      bench.step({ kind: 'mesh', members });
    },
    pass(forMs) {
      const endMs = bench.nowMs + forMs;
      const effects: OffloadEffect[] = [];
      while (wakeAtMs <= endMs) {
        bench.nowMs = Math.max(bench.nowMs, wakeAtMs);
        wakeAtMs = Number.POSITIVE_INFINITY;
        effects.push(...bench.step({ kind: 'wake' }));
      }
      bench.nowMs = endMs;
      return effects;
    },
  };
  bench.step({ kind: 'slots', slots, free: slots, capabilities: [] });
  bench.mesh(meshSlots, 100_000);
  return bench;
}

function itemOf(request: string, traits: Partial<OffloadItem> = {}): OffloadItem {
  return { request, mnemonic: 'CppCompile', family: request, inputBytes: 0, requires: [], avoid: [], ...traits };
}

const hedged = (effects: readonly OffloadEffect[]): number => effects.filter(({ kind }) => kind === 'hedgeHere').length;

/** Runs one action to its end. */
function run(bench: Bench, request: string, node: string, runMs: number, family: string): void {
  bench.submit(request, { family });
  if (node !== 'self') bench.step({ kind: 'claimed', request, node });
  bench.nowMs += runMs;
  bench.step({ kind: 'ended', request, node, runMs, sizeBytes: 0 });
  bench.step({ kind: 'slots', slots: 4, free: 4, capabilities: [] });
}

test('with a free slot here and nothing faster elsewhere it runs here', () => {
  expect(createBench().submit('a')).toBe('runHere');
});

test('when all slots are taken it is offered', () => {
  const bench = createBench(2);
  expect([bench.submit('a'), bench.submit('b'), bench.submit('c'), bench.submit('d')]).toEqual([
    'runHere',
    'runHere',
    'offer',
    'offer',
  ]);
});

test('without anybody who takes guests everything runs here', () => {
  const bench = createBench(1, 0);
  expect([bench.submit('a'), bench.submit('b'), bench.submit('c')]).toEqual(['runHere', 'runHere', 'runHere']);
});

test('a free slot here is left free when elsewhere takes far less time', () => {
  const bench = createBench();
  // This machine turns out four times slower than the mean; others made the mean.
  for (let i = 0; i < 12; i++) run(bench, `o${i}`, 'fast', 10_000, 'link');
  for (let i = 0; i < 12; i++) bench.offload.estimates.ran({ mnemonic: 'CppCompile', family: 'link' }, 'self', 40_000);
  for (let i = 0; i < 12; i++) bench.offload.estimates.ran({ mnemonic: 'CppCompile', family: 'link' }, 'fast', 10_000);
  expect(bench.submit('next', { family: 'link' })).toBe('offer');
});

test('below 100 Mbit/s inputs are not shipped, however busy this machine is; small ones are', () => {
  const bench = createBench(1);
  bench.mesh(20, limits.shippingBytesPerMsMin - 1);
  bench.submit('a');
  expect(bench.submit('b', { inputBytes: 50_000_000 })).toBe('runHere');
  expect(bench.submit('c', { inputBytes: 100_000 })).toBe('offer');
  bench.mesh(20, 100_000);
  expect(bench.submit('d', { inputBytes: 50_000_000 })).toBe('offer');
});

test('an action whose inputs take longer to ship than it takes to run waits here', () => {
  const bench = createBench(1);
  run(bench, 'before', 'self', 300, 'tiny');
  bench.step({ kind: 'slots', slots: 1, free: 1, capabilities: [] });
  bench.submit('a', { family: 'tiny' });
  expect(bench.submit('b', { family: 'tiny', inputBytes: 400_000_000 })).toBe('runHere');
});

test('a straggler runs here as well when there is a free slot, and only then', () => {
  const bench = createBench(1);
  bench.submit('here');
  expect(bench.submit('away')).toBe('offer');
  bench.step({ kind: 'claimed', request: 'away', node: 'slow' });
  expect(bench.pass(60_000)).toEqual([]);
  const effects = bench.step({ kind: 'slots', slots: 1, free: 1, capabilities: [] });
  expect(effects).toContainEqual({ kind: 'hedgeHere', request: 'away' });
});

test('frozen time is not run time', () => {
  const bench = createBench(1);
  bench.submit('here');
  bench.submit('away');
  bench.step({ kind: 'claimed', request: 'away', node: 'slow' });
  bench.step({ kind: 'slots', slots: 1, free: 1, capabilities: [] });
  bench.step({ kind: 'frozen', request: 'away', frozen: true });
  expect(hedged(bench.pass(120_000))).toBe(0);
  bench.step({ kind: 'frozen', request: 'away', frozen: false });
  expect(hedged(bench.pass(15_000))).toBe(0);
  expect(hedged(bench.pass(30_000))).toBe(1);
});

test('stragglers are hedged a few times, and then only as a small share of all offers', () => {
  const bench = createBench(1, 1_000);
  bench.submit('here');
  for (let i = 0; i < 100; i++) {
    bench.submit(`r${i}`);
    bench.step({ kind: 'claimed', request: `r${i}`, node: `n${i % 10}` });
  }
  let hedges = 0;
  bench.nowMs += 600_000;
  for (let i = 0; i < 50; i++) {
    hedges += hedged(bench.step({ kind: 'slots', slots: 1, free: 1, capabilities: [] }));
  }
  expect(hedges).toBe(limits.hedgesFree + (100 * limits.hedgePercent) / 100);
});

test('speed is learned per machine and mnemonic from what the same action took before', () => {
  const { estimates } = createBench().offload;
  const compile = { mnemonic: 'CppCompile', family: 'a.o' };
  for (let i = 0; i < 20; i++) {
    estimates.ran(compile, 'fast', 500);
    estimates.ran(compile, 'slow', 2_000);
  }
  expect(estimates.slownessPercent('slow', 'CppCompile')).toBeGreaterThan(
    2.5 * estimates.slownessPercent('fast', 'CppCompile'),
  );
  expect(estimates.slownessPercent('slow', 'Javac')).toBe(100);
  const other = { mnemonic: 'CppCompile', family: 'never seen' };
  expect(estimates.runMs(other, 'slow')).toBeGreaterThan(2.5 * estimates.runMs(other, 'fast'));
  // A long action on the fast machine does not make it slow: it is long itself.
  const before = estimates.slownessPercent('fast', 'CppCompile');
  estimates.ran({ mnemonic: 'CppCompile', family: 'huge.o' }, 'fast', 600_000);
  expect(estimates.slownessPercent('fast', 'CppCompile')).toBe(before);
});

test('an executor that fails again and again is drained, probed with one action, and trusted again', () => {
  const bench = createBench();
  const { health } = bench.offload;
  let drained: OffloadEffect | undefined;
  for (let i = 0; i < limits.faultsToDrain; i++) {
    [drained] = bench.step({ kind: 'fault', node: 'bad' });
  }
  const untilMs = bench.nowMs + limits.drainMs;
  expect(drained).toEqual({ kind: 'drained', node: 'bad', drained: true, untilMs, reason: 'faults' });
  expect(health.accepts('bad', bench.nowMs)).toBe(false);
  expect(health.avoided(['bad', 'good'], bench.nowMs)).toEqual(['bad']);
  bench.nowMs += limits.drainMs;
  expect(health.accepts('bad', bench.nowMs)).toBe(true);
  health.given('bad');
  expect(health.accepts('bad', bench.nowMs)).toBe(false);
  const [again] = bench.step({ kind: 'fault', node: 'bad' });
  expect(again).toMatchObject({ kind: 'drained', untilMs: bench.nowMs + 2 * limits.drainMs });
  bench.nowMs += 2 * limits.drainMs;
  const [back] = bench.step({ kind: 'ended', request: 'probe', node: 'bad', runMs: 10, sizeBytes: 0 });
  expect(back).toMatchObject({ kind: 'drained', node: 'bad', drained: false, reason: 'probed' });
  health.given('bad');
  expect(health.accepts('bad', bench.nowMs)).toBe(true);
});

test('the only executors are never all avoided', () => {
  const { health } = createBench().offload;
  for (const node of ['a', 'b']) for (let i = 0; i < limits.faultsToDrain; i++) health.fault(node, 0);
  expect(health.avoided(['a', 'b'], 1)).toEqual([]);
  expect(health.avoided(['a', 'b', 'c'], 1)).toEqual(['a', 'b']);
});

test('a wrong result drains at once, and what a hand drained only a hand lets back', () => {
  const bench = createBench();
  expect(bench.step({ kind: 'mismatched', node: 'liar' })).toContainEqual(
    expect.objectContaining({ kind: 'drained', node: 'liar', reason: 'mismatch' }),
  );
  bench.step({ kind: 'drain', node: 'n0', drained: true });
  bench.nowMs += limits.drainMsMax;
  expect(bench.offload.avoided(itemOf('a'))).toEqual(['n0']);
  bench.step({ kind: 'ended', request: 'x', node: 'n0', runMs: 10, sizeBytes: 0 });
  expect(bench.offload.health.accepts('n0', bench.nowMs)).toBe(false);
  bench.step({ kind: 'drain', node: 'n0', drained: false });
  expect(bench.offload.avoided(itemOf('a'))).toEqual([]);
});

test('when everybody else is drained an action stays; one that cannot run here goes to them', () => {
  const bench = createBench(1);
  bench.step({ kind: 'drain', node: 'n0', drained: true });
  expect([bench.submit('a'), bench.submit('b')]).toEqual(['runHere', 'runHere']);
  const members: MeshMember[] = [{ node: 'mac', guestSlots: 2, capabilities: ['os=mac'], bytesPerMs: 100_000 }];
  bench.step({ kind: 'mesh', members });
  bench.step({ kind: 'drain', node: 'mac', drained: true });
  expect(bench.submit('c', { requires: ['os=mac'] })).toBe('offer');
  expect(bench.offload.avoided(itemOf('c', { requires: ['os=mac'] }))).toEqual([]);
});

test('what nobody who is alive can run is said at once', () => {
  const bench = createBench();
  const item = itemOf('a', { requires: ['os=plan9'] });
  expect(bench.step({ kind: 'submit', item, hasLeader: true })).toContainEqual({ kind: 'unmatched', request: 'a' });
});

test('of two offices only the near one gets what the link between them cannot carry', () => {
  const bench = createBench(1);
  bench.mesh(4, 50_000, 1_250);
  bench.submit('a');
  const large = { inputBytes: 50_000_000 };
  expect(bench.submit('b', large)).toBe('offer');
  expect(bench.offload.avoided(itemOf('b', large))).toEqual(['n1']);
  expect(bench.offload.avoided(itemOf('c', { inputBytes: 1_000 }))).toEqual([]);
});

test('without a leader everything runs here; what waits is offered when there is one', () => {
  const bench = createBench(1);
  for (const request of ['a', 'b', 'c']) {
    const effects = bench.step({ kind: 'submit', item: itemOf(request), hasLeader: false });
    expect(effects[0]).toMatchObject({ kind: 'runHere', decision: { why: 'noLeader' } });
  }
  bench.step({ kind: 'startedHere', request: 'a' });
  expect(bench.step({ kind: 'again', request: 'a', hasLeader: true })).toEqual([]);
  expect(bench.step({ kind: 'again', request: 'c', hasLeader: true })[0]).toMatchObject({ kind: 'offer' });
});

test('a client may keep an action from this node; with nobody else it runs here after all', () => {
  const bench = createBench();
  expect(bench.submit('a', { avoid: ['self'] })).toBe('offer');
  bench.mesh(0, 100_000);
  expect(bench.submit('b', { avoid: ['self'] })).toBe('runHere');
});
