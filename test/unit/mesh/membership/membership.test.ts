import { describe, expect, test } from 'vitest';
import { periodMs, rumoursPerMessage } from '../../../../mesh/core/membership/limits.ts';
import { createMembership, doublings } from '../../../../mesh/core/membership/membership.ts';
import { createRng } from '../../../../mesh/core/rng.ts';
import { agreed, attributes, createNet, createSigner, type TestNet } from './net.ts';

const name = (i: number): string => `node-${String(i).padStart(4, '0')}`;

function mesh(size: number): TestNet {
  const net = createNet();
  for (let i = 0; i < size; i++) net.add(name(i), [name(0), name(1), name(2)].slice(0, Math.max(1, size - 1)));
  return net;
}

const everybodySees = (net: TestNet, subject: string, status: string): boolean =>
  [...net.machines].every(([id, machine]) => id === subject || machine.status(subject) === status);

describe.each([2, 30])('a mesh of %i nodes', (size) => {
  const bound = (rounds: number): number => rounds * doublings(size) * periodMs;

  test('forms, and everybody sees everybody alive', () => {
    const net = mesh(size);
    const tookMs = net.until(
      () => agreed(net) && [...net.machines.values()].every((m) => [...m.members()].length === size),
      bound(8),
    );
    expect(tookMs).toBeDefined();
  });

  test('a crashed member is found dead by all others in O(log n) periods, a graceful one at once', () => {
    const net = mesh(size);
    net.run(bound(6));
    net.kill(name(1));
    expect(
      net.until(() => everybodySees({ ...net, machines: without(net, name(1)) }, name(1), 'dead'), bound(12) + 10_000),
    ).toBeDefined();
    if (size === 2) return;
    net.tell(name(2), { kind: 'goodbye', presence: 'left' });
    const others = without(net, name(1), name(2));
    expect(net.until(() => everybodySees({ ...net, machines: others }, name(2), 'left'), bound(4))).toBeDefined();
  });

  test('no message carries more rumours than the bound', () => {
    const net = mesh(size);
    net.run(20_000);
    expect(net.rumoursMax()).toBeLessThanOrEqual(rumoursPerMessage);
  });
});

function without(net: TestNet, ...ids: string[]): TestNet['machines'] {
  return new Map([...net.machines].filter(([id]) => !ids.includes(id)));
}

test('a thousand nodes hear of a newcomer and of a death in O(log n) periods', () => {
  const net = mesh(1_000);
  const bound = (rounds: number): number => rounds * doublings(1_000) * periodMs;
  expect(net.until(() => agreed(net), bound(6))).toBeDefined();
  net.add(name(1_000), [name(3)]);
  expect(net.until(() => everybodySees(net, name(1_000), 'alive'), bound(3))).toBeDefined();
  net.kill(name(500));
  const others = without(net, name(500));
  expect(net.until(() => everybodySees({ ...net, machines: others }, name(500), 'dead'), bound(6))).toBeDefined();
});

test('two halves of a split declare each other dead, and meet again after it heals', () => {
  const net = mesh(20);
  net.run(30_000);
  const left = (id: string): boolean => id < name(10);
  net.drop = (from, to) => left(from) !== left(to);
  net.run(60_000);
  expect(net.machines.get(name(0))?.status(name(15))).toBe('dead');
  net.drop = () => false;
  const whole = (): boolean => agreed(net) && [...net.machines.keys()].every((id) => everybodySees(net, id, 'alive'));
  expect(net.until(whole, (24 + 6 * doublings(20)) * periodMs)).toBeDefined();
});

test('a member that is accused refutes with a higher incarnation, and nobody else can', () => {
  const signer = createSigner();
  let persists = 0;
  const config = { attributes, signer, nextPersistId: () => ++persists };
  const anna = createMembership({ ...config, self: 'anna', rng: createRng(1) });
  anna.step({ kind: 'start', contacts: [] }, 0);
  const before = anna.self();
  const rumours = [{ record: before, verdict: 'suspect' as const, by: 'ben' }];
  const effects = anna.step({ kind: 'message', from: 'ben', message: { kind: 'ping', seq: 1, rumours } }, 10);
  expect(anna.self().incarnation).toBe(before.incarnation + 1);
  const ack = effects.find((effect) => effect.kind === 'send' && effect.message.kind === 'ack');
  expect(ack).toMatchObject({ message: { rumours: [{ record: { incarnation: before.incarnation + 1 } }] } });

  const ben = createMembership({ ...config, self: 'ben', rng: createRng(2) });
  ben.step({ kind: 'start', contacts: [] }, 0);
  ben.step(
    {
      kind: 'message',
      from: 'anna',
      message: { kind: 'syncOffer', summary: 0, rumours: [{ record: before, verdict: 'here', by: 'anna' }] },
    },
    1,
  );
  const forged = { ...before, incarnation: before.incarnation + 5 };
  ben.step(
    {
      kind: 'message',
      from: 'eve',
      message: { kind: 'sync', reply: false, rumours: [{ record: forged, verdict: 'dead', by: 'eve' }] },
    },
    2,
  );
  expect(ben.get('anna')?.record.incarnation).toBe(before.incarnation);
  expect(ben.status('anna')).toBe('alive');
});

test('after a suspend the incarnation is raised before anything is answered', () => {
  const net = mesh(3);
  net.run(10_000);
  const machine = net.machines.get(name(1));
  const before = machine?.self().incarnation ?? 0;
  net.tell(name(1), { kind: 'goodbye', presence: 'suspended' });
  net.run(1_000);
  expect(net.machines.get(name(0))?.status(name(1))).toBe('suspended');
  net.tell(name(1), { kind: 'gap', gapMs: 60_000 });
  expect(machine?.self().incarnation).toBeGreaterThan(before + 1);
  expect(net.until(() => everybodySees(net, name(1), 'alive'), 5_000)).toBeDefined();
});

test('a restarted node speaks above every incarnation of its life before, and waits for the disk', () => {
  const signer = createSigner();
  let persists = 0;
  const first = createMembership({
    self: 'anna',
    attributes,
    signer,
    rng: createRng(1),
    nextPersistId: () => ++persists,
  });
  const effects = first.step({ kind: 'start', contacts: ['ben'] }, 0);
  const persist = effects.find((effect) => effect.kind === 'persist');
  expect(effects.find((effect) => effect.kind === 'send')).toMatchObject({ after: persist?.id });
  for (let i = 0; i < 200; i++) first.step({ kind: 'attributes', attributes }, i);
  const second = createMembership(
    { self: 'anna', attributes, signer, rng: createRng(1), nextPersistId: () => ++persists },
    first.checkpoint(),
  );
  expect(second.self().incarnation).toBeGreaterThan(first.self().incarnation);
});

test('a node that stood still doubts itself and accuses nobody', () => {
  const net = mesh(5);
  net.run(15_000);
  net.kill(name(0));
  const machine = net.machines.get(name(0));
  net.run(7_000);
  net.revive(name(0));
  net.tell(name(0), { kind: 'wake' });
  expect(machine?.selfDoubt()).toBeGreaterThan(0);
  expect([...(machine?.members() ?? [])].every(({ status }) => status === 'alive')).toBe(true);
});

test('a probe is answered by its target, or by who was asked to help, and by nobody else', () => {
  const signer = createSigner();
  let persists = 0;
  const config = { attributes, signer, nextPersistId: () => ++persists };
  const others = ['ben', 'cleo', 'eve'].map((self, i) => createMembership({ ...config, self, rng: createRng(i + 2) }));
  const anna = createMembership({ ...config, self: 'anna', rng: createRng(1) });
  anna.step({ kind: 'start', contacts: [] }, 0);
  const rumours = others.map((other) => ({ record: other.self(), verdict: 'here' as const, by: other.self().id }));
  anna.step({ kind: 'message', from: 'ben', message: { kind: 'sync', reply: false, rumours } }, 1);
  const probed = (from: number): { to: string; seq: number; atMs: number } => {
    for (let atMs = from; ; atMs += 50) {
      for (const effect of anna.step({ kind: 'wake' }, atMs)) {
        if (effect.kind === 'send' && effect.message.kind === 'ping')
          return { to: effect.to, seq: effect.message.seq, atMs };
      }
    }
  };
  const { to, seq, atMs } = probed(50);
  const stranger = others.map((other) => other.self().id).find((id) => id !== to) as string;
  anna.step({ kind: 'message', from: stranger, message: { kind: 'ack', seq, rumours: [] } }, atMs + 1);
  for (let at = atMs + 50; at <= atMs + periodMs; at += 50) anna.step({ kind: 'wake' }, at);
  expect(anna.status(to)).toBe('suspect');
  const next = probed(atMs + periodMs + 50);
  anna.step({ kind: 'message', from: next.to, message: { kind: 'ack', seq: next.seq, rumours: [] } }, next.atMs + 1);
  for (let at = next.atMs + 50; at <= next.atMs + periodMs; at += 50) anna.step({ kind: 'wake' }, at);
  expect(anna.status(next.to)).toBe(next.to === to ? 'suspect' : 'alive');
});

test('a node that holds everybody dead says goodbye to some of them all the same', () => {
  const net = mesh(3);
  net.run(10_000);
  // Anna hears nothing, and is heard.
  net.drop = (_, to) => to === name(1);
  net.run(60_000);
  expect(net.machines.get(name(1))?.status(name(0))).toBe('dead');
  net.tell(name(1), { kind: 'goodbye', presence: 'left' });
  net.run(100);
  expect(net.machines.get(name(0))?.status(name(1))).toBe('left');
});
