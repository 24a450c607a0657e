import { expect, test } from 'vitest';
import * as limits from '../../../../mesh/core/providers/limits.ts';
import { placeOf } from '../../../../mesh/core/providers/places.ts';
import { blobNamed, createProviderNet, type ProviderNet } from './net.ts';

const names = (count: number): string[] =>
  Array.from({ length: count }, (_, i) => `node-${String(i).padStart(3, '0')}`);
const blobs = (count: number, of = 'blob'): string[] =>
  Array.from({ length: count }, (_, i) => blobNamed(`${of} ${i}`));
const keepersOf = (net: ProviderNet, blob: string): string[] =>
  net
    .ring()
    .nearest(placeOf(blob), limits.recordKeepers)
    .map((index) => net.ring().nodes[index] as string);

function settle(net: ProviderNet): void {
  net.run(limits.absentMs + limits.settleMsMax + 30_000);
}

test('what one node holds every other finds, by asking each keeper at most once', () => {
  const net = createProviderNet(names(12));
  const held = blobs(300);
  net.store('node-003', held);
  net.run(1_000);
  net.sent.length = 0;
  const found = net.find('node-007', held);
  expect([...found.values()].every(({ holders }) => holders.length === 1 && holders[0] === 'node-003')).toBe(true);
  expect(net.sent.filter(({ kind }) => kind === 'whoHas').length).toBeLessThanOrEqual(11);
});

test('announcements travel in one message per keeper, and each record is on three nodes', () => {
  const net = createProviderNet(names(8));
  net.store('node-000', blobs(1_000));
  net.run(1_000);
  expect(net.sent.filter(({ kind }) => kind === 'announce').length).toBe(7);
  const kept = net.nodes.reduce((sum, node) => sum + net.providers(node).records(), 0);
  const own = blobs(1_000).filter((blob) => keepersOf(net, blob).includes('node-000')).length;
  // What the announcer would keep for itself needs no record.
  expect(kept).toBe(3 * 1_000 - own);
});

test('what was lost is no longer found', () => {
  const net = createProviderNet(names(6));
  net.store('node-001', blobs(10));
  net.run(500);
  net.lose('node-001', blobs(3));
  net.run(500);
  const found = net.find('node-004', blobs(10));
  expect([...found.values()].filter(({ holders }) => holders.length > 0).length).toBe(7);
});

test('a miss is believed after two keepers said so', () => {
  const net = createProviderNet(names(9));
  const [blob] = blobs(1) as [string];
  const asker = net.nodes.find((node) => !keepersOf(net, blob).includes(node)) as string;
  expect(net.find(asker, [blob]).get(blob)).toEqual({ blob, holders: [], sure: 'asked' });
  expect(net.sent.filter(({ kind }) => kind === 'whoHas').length).toBe(2);
});

test('a keeper that sleeps without a word costs one time-out, and then the next one answers', () => {
  const net = createProviderNet(names(9));
  const held = blobs(50);
  net.store('node-001', held);
  net.run(500);
  net.silent.add('node-005');
  const found = net.find('node-002', held);
  expect([...found.values()].every(({ holders }) => holders.includes('node-001'))).toBe(true);
});

test('when no keeper answers, the find ends within its budget and says how little it knows', () => {
  const net = createProviderNet(names(9));
  for (const node of net.nodes) if (node !== 'node-000') net.silent.add(node);
  const [blob] = blobs(40).filter((each) => !keepersOf(net, each).includes('node-000')) as [string];
  expect(net.find('node-000', [blob]).get(blob)?.sure).toBe('budget');
});

test('death hides the records of a provider, and its return with the same disk revives them at once', () => {
  const net = createProviderNet(names(6));
  const held = blobs(20);
  net.store('node-001', held);
  net.run(500);
  net.setStatus('node-001', 'dead');
  expect([...net.find('node-002', held).values()].every(({ holders }) => holders.length === 0)).toBe(true);
  net.sent.length = 0;
  net.setStatus('node-001', 'alive');
  expect([...net.find('node-002', held).values()].every(({ holders }) => holders.length === 1)).toBe(true);
  expect(net.sent.filter(({ kind, from }) => kind === 'announce' && from === 'node-001')).toEqual([]);
  expect(net.notes.some(({ note }) => note.kind === 'revived')).toBe(true);
});

test('records of an earlier store generation are void', () => {
  const net = createProviderNet(names(6));
  net.store('node-001', blobs(20));
  net.run(500);
  net.setStatus('node-001', 'dead');
  net.restart('node-001', [], 2);
  net.setStatus('node-001', 'alive', 2);
  expect([...net.find('node-002', blobs(20)).values()].every(({ holders }) => holders.length === 0)).toBe(true);
  expect(net.notes.some(({ note }) => note.kind === 'dropped' && note.node === 'node-001')).toBe(true);
});

test('records move to a node that joined, once membership has settled', () => {
  const net = createProviderNet(names(4));
  const held = blobs(400);
  net.store('node-001', held);
  net.run(500);
  net.join('node-100');
  net.run(limits.settleMs - 1_000);
  expect(net.providers('node-100').records()).toBe(0);
  settle(net);
  const share = held.filter((blob) => keepersOf(net, blob).includes('node-100')).length;
  expect(net.providers('node-100').records()).toBe(share);
  const total = net.nodes.reduce((sum, node) => sum + net.providers(node).records(), 0);
  const own = held.filter((blob) => keepersOf(net, blob).includes('node-001')).length;
  expect(total).toBe(3 * held.length - own);
});

test('a lid that closes and opens again moves nothing', () => {
  const net = createProviderNet(names(5));
  net.store('node-001', blobs(200));
  net.run(500);
  net.sent.length = 0;
  net.setStatus('node-003', 'suspended');
  net.run(limits.absentMs / 2);
  net.setStatus('node-003', 'alive');
  settle(net);
  expect(net.sent.filter(({ message }) => message.kind === 'announce' && message.add.length > 0)).toEqual([]);
});

test('when a keeper is gone for good, others keep its records', () => {
  const net = createProviderNet(names(5));
  const held = blobs(200);
  net.store('node-001', held);
  net.run(500);
  for (const node of ['node-002', 'node-003', 'node-004']) {
    net.silent.add(node);
    net.setStatus(node, 'dead');
  }
  settle(net);
  const found = net.find('node-000', held);
  expect([...found.values()].every(({ holders }) => holders[0] === 'node-001')).toBe(true);
});

test('a restarted provider is checked by its sum, and tells nothing when that is right', () => {
  const net = createProviderNet(names(6));
  const held = blobs(500);
  net.store('node-001', held);
  net.run(500);
  net.sent.length = 0;
  net.restart('node-001', held);
  settle(net);
  const announced = net.sent.filter(({ kind, from }) => kind === 'announce' && from === 'node-001');
  expect(announced.length).toBeGreaterThan(0);
  expect(announced.every(({ message }) => message.kind === 'announce' && message.add.length === 0)).toBe(true);
});

test('a keeper that has something else is given the regions that differ, and only those', () => {
  const net = createProviderNet(names(3));
  const held = blobs(2_000);
  net.store('node-001', held);
  net.run(500);
  net.sent.length = 0;
  // Twenty blobs vanished and twenty came while the process was down.
  const now = [...held.slice(20), ...blobs(20, 'new')];
  net.restart('node-001', now);
  settle(net);
  const found = net.find('node-002', [...held.slice(0, 20), ...now]);
  for (const blob of held.slice(0, 20)) expect(found.get(blob)?.holders).toEqual([]);
  for (const blob of now) expect(found.get(blob)?.holders).toEqual(['node-001']);
  const sentAgain = net.sent.reduce(
    (sum, { message }) => sum + (message.kind === 'announce' ? message.add.length : 0),
    0,
  );
  expect(sentAgain).toBeGreaterThan(0);
  expect(sentAgain).toBeLessThan(2 * 2_000 * 0.35);
});

test('announcements that were lost are made up for', () => {
  const net = createProviderNet(names(4));
  net.silent.add('node-002');
  const held = blobs(100);
  net.store('node-001', held);
  net.run(20_000);
  net.silent.delete('node-002');
  settle(net);
  expect(net.providers('node-002').records()).toBe(
    held.filter((blob) => keepersOf(net, blob).includes('node-002')).length,
  );
});

test('a repeated or overtaken announcement changes nothing', () => {
  const net = createProviderNet(['node-000', 'node-001']);
  const keeper = net.providers('node-001');
  const announce = (seq: number, add: number[], remove: number[]) =>
    keeper.step(
      {
        kind: 'message',
        from: 'node-000',
        message: { kind: 'announce', seq, life: 1, generation: 1, add, remove, clear: [] },
      },
      10,
    );
  announce(1, [11, 12], []);
  announce(2, [], [11]);
  announce(1, [11, 12], []);
  expect(keeper.records()).toBe(1);
});

test('a node that sent wrong bytes is benched as a whole, one that lacked a blob after a few times', () => {
  const net = createProviderNet(names(5));
  const held = blobs(10);
  net.store('node-001', held);
  net.store('node-002', held);
  net.run(500);
  net.bench('node-004', 'node-001', 'wrong');
  expect([...net.find('node-004', held).values()].every(({ holders }) => holders.join() === 'node-002')).toBe(true);
  for (let i = 1; i < limits.strikes; i++) net.bench('node-004', 'node-002', 'absent');
  expect(net.find('node-004', held).get(held[0] as string)?.holders).toEqual(['node-002']);
  net.bench('node-004', 'node-002', 'absent');
  expect(net.find('node-004', held).get(held[0] as string)?.holders).toEqual([]);
  // Others have their own experience.
  expect(net.find('node-003', held).get(held[0] as string)?.holders.length).toBe(2);
  net.run(limits.benchMs.wrong + 1_000);
  expect(net.find('node-004', held).get(held[0] as string)?.holders.length).toBe(2);
});

test('a suspended node asks its keepers anew', () => {
  const net = createProviderNet(names(4));
  net.store('node-001', blobs(50));
  net.run(500);
  net.sent.length = 0;
  net.gap('node-001');
  settle(net);
  expect(
    new Set(net.sent.filter(({ kind, from }) => kind === 'announce' && from === 'node-001').map(({ to }) => to)).size,
  ).toBe(3);
});

test('at rest hardly anything is said', () => {
  const net = createProviderNet(names(20));
  for (const node of net.nodes) net.store(node, blobs(50, node));
  settle(net);
  net.sent.length = 0;
  net.run(10 * 60 * 1_000);
  expect(net.sent.length).toBeLessThanOrEqual(20 * 2 * 2);
});
