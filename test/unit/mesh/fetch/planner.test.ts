import { expect, test } from 'vitest';
import * as limits from '../../../../mesh/core/fetch/limits.ts';
import { createBench, type Effect } from './bench.ts';

const kib = 1024;
const mib = 1024 * 1024;
const near = { anna: 'subnet', ben: 'subnet', cleo: 'subnet' } as const;
const first = <T>(list: readonly T[]): T => list[0] as T;

test('one blob wanted by many is located and fetched once, and each want is answered', () => {
  const bench = createBench(near);
  const wants = [bench.want('a', kib), bench.want('a', kib), bench.want('a', kib)];
  expect(bench.of('locate').length).toBe(1);
  bench.located('a', 'anna');
  expect(bench.running().length).toBe(1);
  bench.deliver(first(bench.running()));
  expect(bench.of('fetched').map(({ want }) => want)).toEqual(wants);
  expect(bench.planner.fetching()).toBe(0);
});

test('a hint is asked without looking anything up', () => {
  const bench = createBench(near);
  bench.want('a', kib, 60_000, ['ben']);
  expect(bench.of('locate')).toEqual([]);
  expect(first(bench.running()).from).toBe('ben');
});

test('a wrong hint is no offence; then the blob is looked up', () => {
  const bench = createBench(near);
  bench.want('a', kib, 60_000, ['ben']);
  bench.part(first(bench.running()), 'absent');
  expect(bench.of('blame')).toEqual([]);
  expect(bench.of('locate')).toEqual([{ kind: 'locate', blobs: ['a'], thorough: false }]);
});

test('near holders come first, also when a far one is somewhat faster', () => {
  const bench = createBench({ far: 'other', here: 'host', hall: 'subnet', floor: 'site' });
  const order: string[] = [];
  for (const blob of ['a', 'b', 'c', 'd']) {
    bench.want(blob, 2 * mib);
    bench.located(blob, ...['far', 'floor', 'hall', 'here'].filter((node) => !order.includes(node)));
    order.push(first(bench.running()).from);
    bench.deliver(first(bench.running()));
  }
  expect(order).toEqual(['here', 'hall', 'floor', 'far']);
});

test('measured throughput corrects what was assumed', () => {
  const bench = createBench(near);
  const slow = ['anna', 'ben'];
  for (const [i, node] of [...slow, ...slow, ...slow].entries()) {
    bench.want(`warm ${i}`, 4 * mib);
    bench.located(`warm ${i}`, node);
    const transfer = first(bench.running());
    bench.nowMs += node === 'anna' ? 40 : 2_000;
    bench.step({ kind: 'progress', transfer: transfer.transfer, receivedBytes: 2 * mib });
    bench.deliver(transfer);
  }
  bench.want('a', 4 * mib);
  bench.located('a', 'ben', 'anna');
  expect(first(bench.running()).from).toBe('anna');
});

test('present load counts: two blobs of the same holders come from both', () => {
  const bench = createBench(near);
  for (const blob of ['a', 'b']) {
    bench.want(blob, 4 * mib);
    bench.located(blob, 'anna', 'ben');
  }
  expect(new Set(bench.running().map(({ from }) => from))).toEqual(new Set(['anna', 'ben']));
});

test('small blobs located together travel together, within the bounds of a batch', () => {
  const bench = createBench(near);
  const blobs = Array.from({ length: 1_200 }, (_, i) => `small ${i}`);
  bench.step({
    kind: 'want',
    wants: blobs.map((blob, i) => ({ want: i, blob, sizeBytes: 10 * kib, budgetMs: 60_000, hints: [] })),
  });
  expect(bench.of('locate').length).toBe(1);
  bench.step({ kind: 'located', found: blobs.map((blob) => ({ blob, holders: ['anna'], sure: 'asked' as const })) });
  while (bench.running().length > 0) {
    for (const { parts } of bench.running()) {
      expect(parts.length).toBeLessThanOrEqual(limits.batchBlobsMax);
      const bytes = parts.reduce((sum, { lengthBytes }) => sum + lengthBytes, 0);
      expect(bytes).toBeLessThanOrEqual(limits.batchBytesMax + limits.batchedBytes);
    }
    bench.deliver(first(bench.running()));
  }
  expect(bench.of('fetched').length).toBe(1_200);
  expect(bench.of('transfer').length).toBeLessThan(6);
});

test('a blob of a batch that the holder has not is fetched from another, and the holder is blamed', () => {
  const bench = createBench(near);
  bench.want('a', kib);
  bench.located('a', 'anna', 'ben');
  const transfer = first(bench.running());
  bench.part(transfer, 'absent');
  bench.ended(transfer);
  expect(bench.of('blame')).toEqual([{ kind: 'blame', node: transfer.from, reason: 'absent' }]);
  expect(first(bench.running()).from).not.toBe(transfer.from);
});

test('a large blob is fetched in ranges from all its holders', () => {
  const bench = createBench(near);
  bench.want('big', 64 * mib);
  bench.located('big', 'anna', 'ben', 'cleo');
  expect(new Set(bench.running().map(({ from }) => from))).toEqual(new Set(['anna', 'ben', 'cleo']));
  const seen = new Set<number>();
  for (let i = 0; i < 100 && bench.running().length > 0; i++) {
    const transfer = first(bench.running());
    for (const { offset, lengthBytes, whole } of transfer.parts) {
      expect(whole).toBe(false);
      expect(seen.has(offset)).toBe(false);
      seen.add(offset);
      expect(lengthBytes).toBe(limits.rangeBytes);
    }
    bench.deliver(transfer);
  }
  expect(seen.size).toBe(16);
  expect(bench.of('assemble')).toEqual([{ kind: 'assemble', blob: 'big' }]);
  expect(bench.of('fetched')).toEqual([]);
  bench.step({ kind: 'assembled', blob: 'big', outcome: 'stored' });
  expect(bench.of('fetched').length).toBe(1);
});

test('when a holder of a striped blob breaks off, the others take over its ranges', () => {
  const bench = createBench(near);
  bench.want('big', 16 * mib);
  bench.located('big', 'anna', 'ben');
  const broken = first(bench.running());
  for (const transfer of bench.running()) if (transfer.from === broken.from) bench.ended(transfer, { kind: 'broken' });
  while (bench.running().length > 0) {
    const transfer = first(bench.running());
    expect(transfer.from).not.toBe(broken.from);
    bench.deliver(transfer);
  }
  expect(bench.of('assemble').length).toBe(1);
  expect(bench.of('note').some(({ note }) => note.kind === 'failedOver')).toBe(true);
});

test('a holder that sent wrong bytes is dropped at once, everywhere', () => {
  const bench = createBench(near);
  for (const blob of ['a', 'b', 'c']) bench.want(blob, 2 * mib);
  bench.step({
    kind: 'located',
    found: ['a', 'b', 'c'].map((blob) => ({ blob, holders: ['anna', 'ben'], sure: 'asked' as const })),
  });
  const liar = first(bench.running());
  bench.part(liar, 'wrong');
  expect(bench.of('blame')).toEqual([{ kind: 'blame', node: liar.from, reason: 'wrong' }]);
  expect(bench.running().length).toBe(3);
  expect(bench.running().every(({ from }) => from !== liar.from)).toBe(true);
});

test('a wrong whole of several holders blames nobody, and is fetched again from one alone', () => {
  const bench = createBench(near);
  bench.want('big', 16 * mib);
  bench.located('big', 'anna', 'ben', 'cleo');
  while (bench.running().length > 0) bench.deliver(first(bench.running()));
  bench.step({ kind: 'assembled', blob: 'big', outcome: 'wrong' });
  expect(bench.of('blame')).toEqual([]);
  expect(bench.of('discard').length).toBe(1);
  const [one] = bench.running().map(({ from }) => from);
  while (bench.running().length > 0) {
    expect(first(bench.running()).from).toBe(one);
    bench.deliver(first(bench.running()));
  }
  bench.step({ kind: 'assembled', blob: 'big', outcome: 'wrong' });
  expect(bench.of('blame')).toEqual([{ kind: 'blame', node: one, reason: 'wrong' }]);
  expect(bench.running().every(({ from }) => from !== one)).toBe(true);
  expect(bench.running().length).toBeGreaterThan(0);
});

test('what the one alone had brought is dropped when it goes, and the next one begins anew', () => {
  const bench = createBench(near);
  bench.want('big', 16 * mib);
  bench.located('big', 'anna', 'ben');
  while (bench.running().length > 0) bench.deliver(first(bench.running()));
  bench.step({ kind: 'assembled', blob: 'big', outcome: 'wrong' });
  const one = first(bench.running());
  bench.deliver(one);
  bench.step({ kind: 'peer', node: one.from, status: 'suspended', locality: 'subnet' });
  expect(bench.of('discard').length).toBe(2);
  const other = one.from === 'anna' ? 'ben' : 'anna';
  let parts = 0;
  while (bench.running().length > 0) {
    expect(first(bench.running()).from).toBe(other);
    parts += first(bench.running()).parts.length;
    bench.deliver(first(bench.running()));
  }
  expect(parts).toBe(4);
});

test('a transfer that is late is hedged with another holder; the winner counts and the loser is cancelled', () => {
  const bench = createBench(near);
  bench.want('a', 4 * mib);
  bench.located('a', 'anna', 'ben');
  const late = first(bench.running());
  bench.pass(2_000);
  const [, hedge] = bench.running() as [Effect<'transfer'>, Effect<'transfer'>];
  expect(hedge.from).not.toBe(late.from);
  bench.part(hedge, 'stored');
  expect(bench.of('cancelTransfer')).toEqual([{ kind: 'cancelTransfer', transfer: late.transfer }]);
  expect(bench.of('fetched').map(({ from }) => from)).toEqual([hedge.from]);
  expect(bench.of('note').map(({ note }) => note.kind)).toEqual(['hedged', 'hedgeWon']);
});

test('hedges wait for the measured 95th percentile, and are few', () => {
  const bench = createBench(near);
  // Everything takes about nine times what is expected: then that is normal.
  for (let i = 0; i < 40; i++) {
    bench.want(`w ${i}`, kib);
    bench.located(`w ${i}`, 'anna');
    bench.nowMs += 27;
    bench.deliver(first(bench.running()));
  }
  bench.want('a', 2 * mib);
  bench.located('a', 'anna', 'ben');
  const expectedMs = 2 + Math.ceil((2 * mib) / limits.assumedBytesPerMs.subnet);
  bench.pass(Math.trunc((expectedMs * limits.hedgePercentUnknown) / 100) + 20);
  expect(bench.of('note').filter(({ note }) => note.kind === 'hedged')).toEqual([]);
  bench.pass(expectedMs * 10);
  expect(bench.of('note').filter(({ note }) => note.kind === 'hedged').length).toBe(1);
});

test('a busy holder names others, and is left alone for as long as it asked', () => {
  const bench = createBench(near);
  bench.want('a', 2 * mib);
  bench.located('a', 'anna');
  bench.ended(first(bench.running()), { kind: 'busy', tryNodes: ['ben'], retryAfterMs: 400 });
  expect(bench.running().map(({ from }) => from)).toEqual(['ben']);
  bench.part(first(bench.running()), 'absent');
  bench.ended(first(bench.running()));
  expect(bench.running()).toEqual([]);
  bench.pass(399);
  expect(bench.running()).toEqual([]);
  bench.pass(2);
  expect(bench.running().map(({ from }) => from)).toEqual(['anna']);
});

test('a node that is only getting a range itself is asked again soon, and is not blamed', () => {
  const bench = createBench(near);
  bench.want('big', 8 * mib);
  bench.located('big', 'anna');
  for (const transfer of bench.running())
    bench.ended(transfer, { kind: 'busy', tryNodes: ['ben'], retryAfterMs: 2_000 });
  const early = first(bench.running());
  bench.part(early, 'absent');
  bench.ended(early);
  bench.pass(limits.earlyMs + 1);
  expect(bench.of('blame')).toEqual([]);
  expect(bench.running().some(({ from }) => from === 'ben')).toBe(true);
});

test('no want outlives its budget, and nothing goes on for nobody', () => {
  const bench = createBench(near);
  const [short, long] = [bench.want('a', 2 * mib, 500), bench.want('a', 2 * mib, 900)];
  bench.located('a', 'anna');
  bench.pass(499);
  expect(bench.of('failed')).toEqual([]);
  bench.pass(1);
  expect(bench.of('failed')).toEqual([{ kind: 'failed', want: short, blob: 'a', reason: 'budget' }]);
  bench.pass(400);
  expect(bench.of('failed').map(({ want }) => want)).toEqual([short, long]);
  expect(bench.running()).toEqual([]);
  expect(bench.planner.fetching()).toBe(0);
});

test('what nobody has is missing at once: after one search when it says so, after a thorough one otherwise', () => {
  const bench = createBench(near);
  bench.want('a', kib);
  bench.located('a');
  expect(bench.of('locate').map(({ thorough }) => thorough)).toEqual([false]);
  expect(bench.of('failed').map(({ reason }) => reason)).toEqual(['missing']);
  bench.want('b', kib);
  bench.step({ kind: 'located', found: [{ blob: 'b', holders: [], sure: 'budget' }] });
  expect(bench.of('locate').map(({ thorough }) => thorough)).toEqual([false, false, true]);
  bench.step({ kind: 'located', found: [{ blob: 'b', holders: [], sure: 'budget' }] });
  expect(bench.of('failed').length).toBe(2);
});

test('after every holder failed, others are searched for once, and then it is missing', () => {
  const bench = createBench(near);
  bench.want('a', kib);
  bench.located('a', 'anna');
  bench.part(first(bench.running()), 'absent');
  bench.ended(first(bench.running()));
  expect(bench.of('locate').map(({ thorough }) => thorough)).toEqual([false, true]);
  bench.located('a', 'ben');
  bench.part(first(bench.running()), 'absent');
  bench.ended(first(bench.running()));
  expect(bench.of('failed').map(({ reason }) => reason)).toEqual(['missing']);
});

test('a transfer without progress is broken off', () => {
  const bench = createBench({ anna: 'subnet' });
  bench.want('a', 4 * mib);
  bench.located('a', 'anna');
  const transfer = first(bench.running());
  bench.pass(limits.stallMs - 10);
  bench.step({ kind: 'progress', transfer: transfer.transfer, receivedBytes: mib });
  bench.pass(limits.stallMs - 10);
  expect(bench.of('cancelTransfer')).toEqual([]);
  bench.pass(20);
  expect(bench.of('cancelTransfer')).toEqual([{ kind: 'cancelTransfer', transfer: transfer.transfer }]);
});

test('the dead deliver nothing: their transfers are cancelled and their pieces go elsewhere', () => {
  const bench = createBench(near);
  bench.want('a', 4 * mib);
  bench.located('a', 'anna', 'ben');
  const { from, transfer } = first(bench.running());
  bench.step({ kind: 'peer', node: from, status: 'dead', locality: 'subnet' });
  expect(bench.of('cancelTransfer')).toEqual([{ kind: 'cancelTransfer', transfer }]);
  expect(bench.running().length).toBe(1);
  expect(first(bench.running()).from).not.toBe(from);
});

test('a suspected holder is asked when there is no other', () => {
  const bench = createBench(near);
  bench.step({ kind: 'peer', node: 'anna', status: 'suspect', locality: 'subnet' });
  bench.want('a', kib);
  bench.located('a', 'anna', 'ben');
  expect(first(bench.running()).from).toBe('ben');
  bench.want('b', kib);
  bench.located('b', 'anna');
  expect(bench.running().some(({ from }) => from === 'anna')).toBe(true);
});

test('a full disk fails the want, and nobody is blamed', () => {
  const bench = createBench(near);
  bench.want('a', kib);
  bench.located('a', 'anna', 'ben');
  bench.part(first(bench.running()), 'noRoom');
  expect(bench.of('failed').map(({ reason }) => reason)).toEqual(['noRoom']);
  expect(bench.of('blame')).toEqual([]);
});

test('a blob that came by another way ends its fetch', () => {
  const bench = createBench(near);
  bench.want('big', 16 * mib);
  bench.located('big', 'anna');
  bench.step({ kind: 'stored', blob: 'big' });
  expect(bench.of('fetched').length).toBe(1);
  expect(bench.running()).toEqual([]);
  expect(bench.of('discard').length).toBe(1);
});

test('transfers under way are bounded, in all and from one holder', () => {
  const nodes = Object.fromEntries(Array.from({ length: 40 }, (_, i) => [`node-${i}`, 'subnet' as const]));
  const bench = createBench(nodes);
  for (let i = 0; i < 200; i++) {
    bench.want(`a ${i}`, 2 * mib);
    bench.located(`a ${i}`, ...Object.keys(nodes).slice(i % 40, (i % 40) + 3));
  }
  expect(bench.running().length).toBe(limits.transfersMax);
  const perHolder = new Map<string, number>();
  for (const { from } of bench.running()) perHolder.set(from, (perHolder.get(from) ?? 0) + 1);
  expect(Math.max(...perHolder.values())).toBeLessThanOrEqual(limits.transfersPerHolder);
});

test('however often a source is busy and others have nothing yet, the blob is not missing before its budget is over', () => {
  const bench = createBench(near);
  bench.want('big', 16 * mib, 60_000);
  bench.located('big', 'anna');
  for (let i = 0; i < 2_000 && bench.nowMs < 55_000; i++) {
    for (const transfer of bench.running()) {
      if (transfer.from === 'anna')
        bench.ended(transfer, { kind: 'busy', tryNodes: ['ben', 'cleo'], retryAfterMs: 100 });
      else bench.part(transfer, 'absent');
      if (transfer.from !== 'anna') bench.ended(transfer);
    }
    bench.pass(50);
  }
  expect(bench.of('failed')).toEqual([]);
  // Asking is rarer the longer it is in vain.
  expect(bench.of('transfer').length).toBeLessThan(500);
  expect(bench.of('blame')).toEqual([]);
});

test('when only nodes are left that may be getting the blob, they are asked a few times and then it is missing', () => {
  const bench = createBench(near);
  bench.want('big', 16 * mib, 60_000);
  bench.located('big', 'anna');
  bench.ended(first(bench.running()), { kind: 'busy', tryNodes: ['ben'], retryAfterMs: 100 });
  bench.step({ kind: 'peer', node: 'anna', status: 'dead', locality: 'subnet' });
  for (let i = 0; i < 1_000 && bench.of('failed').length === 0; i++) {
    for (const transfer of bench.running()) {
      bench.part(transfer, 'absent');
      bench.ended(transfer);
    }
    if (bench.of('locate').length === 2)
      bench.step({ kind: 'located', found: [{ blob: 'big', holders: [], sure: 'asked' }] });
    bench.pass(50);
  }
  expect(bench.of('failed').map(({ reason }) => reason)).toEqual(['missing']);
  expect(bench.nowMs).toBeLessThan(30_000);
});
