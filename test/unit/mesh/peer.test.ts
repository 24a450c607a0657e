import { expect, test } from 'vitest';
import { actionKey } from '../../../mesh/core/ids.ts';
import { deskLimits } from '../../../mesh/core/limits.ts';
import type { Attributes } from '../../../mesh/core/membership/records.ts';
import { createPeer, type Peer, type PeerEffect, type PeerEvent, type PeerRecord } from '../../../mesh/core/peer.ts';
import { createRing } from '../../../mesh/core/providers/ring.ts';
import { createRng } from '../../../mesh/core/rng.ts';
import { shardOf } from '../../../mesh/core/shards/placement.ts';
import { createEngine } from '../../../sim/engine.ts';
import { attributes, createSigner } from './membership/net.ts';

type Of<K extends PeerEffect['kind']> = Extract<PeerEffect, { kind: K }>;

interface PeerNet {
  readonly peers: Map<string, Peer>;
  readonly effects: { readonly node: string; readonly effect: PeerEffect }[];
  readonly records: Map<string, PeerRecord[]>;
  step(node: string, event: PeerEvent): void;
  run(forMs: number): void;
  of<K extends PeerEffect['kind']>(node: string, kind: K): Of<K>[];
  attributesOf(of: string, by: string): Attributes | undefined;
}

const shards = 2;
const slots = { kind: 'slots', slots: 4, guests: true, guestSlots: 3, capabilities: ['os=linux'] } as const;

/** Whole peers with disks that are done at once, on a network that loses nothing; nobody carries out work. */
function createPeerNet(names: readonly string[]): PeerNet {
  const engine = createEngine();
  const signer = createSigner();
  const wakes = new Map<string, number>();
  const nowMs = (): number => Math.trunc(engine.nowUs() / 1_000);
  const net: PeerNet = {
    peers: new Map(),
    effects: [],
    records: new Map(),
    step(node, event) {
      let durable: number | undefined;
      for (const effect of net.peers.get(node)?.step(event, nowMs()) ?? []) {
        net.effects.push({ node, effect });
        if (effect.kind === 'send') {
          const { to, message } = effect;
          engine.after(1_000, () => net.step(to, { kind: 'message', from: node, message }));
        } else if (effect.kind === 'persist') {
          net.records.get(node)?.push(effect.record);
          durable = effect.id;
        } else if (effect.kind === 'wakeAt' && effect.atMs < Number.POSITIVE_INFINITY) {
          const { atMs } = effect;
          wakes.set(node, atMs);
          engine.at(Math.max(engine.nowUs(), atMs * 1_000), () => {
            if (wakes.get(node) === atMs) net.step(node, { kind: 'wake' });
          });
        }
      }
      const id = durable;
      if (id !== undefined) engine.after(0, () => net.step(node, { kind: 'persisted', id }));
    },
    run: (forMs) => engine.runUntil(engine.nowUs() + forMs * 1_000),
    of: (node, kind) =>
      net.effects.flatMap((each) => (each.node === node && each.effect.kind === kind ? [each.effect as never] : [])),
    attributesOf: (of, by) => net.peers.get(by)?.membership.get(of)?.record.attributes,
  };
  for (const [index, self] of names.entries()) {
    net.records.set(self, []);
    const config = {
      self,
      attributes: { ...attributes, dataAddress: `10.0.0.${index}:7980` },
      signer,
      rng: createRng(index + 1),
      ringOf: (of: readonly string[]) => createRing(of, 9),
      capacityBytes: 1e9,
      held: [],
      uploadBytesPerSecond: 1e9,
      uploadsMax: 16,
      shards,
      founder: index === 0,
      holds: () => [],
    };
    net.peers.set(self, createPeer(config, [], 0));
    net.step(self, { kind: 'start', contacts: names.slice(0, 1) });
  }
  net.run(15_000);
  return net;
}

function item(request: string, key: string) {
  return {
    request,
    shard: shardOf(key, shards),
    key,
    invocation: 'build',
    priority: 0,
    requires: ['os=linux'],
    spaceBytes: 1_000,
    inputs: [],
    doNotCache: false,
    skipCacheLookup: false,
    expectedMs: 1_000,
    mnemonic: 'CppCompile',
    family: key,
    inputBytes: 1_000,
  };
}

const key = actionKey('main', 'sha256', 'a'.repeat(64), 150);

test('numbers that the outside gives are its own, whatever the peer pins and reserves itself', () => {
  const net = createPeerNet(['anna']);
  net.step('anna', slots);
  net.step('anna', { kind: 'execute', item: item('r1', key) });
  net.run(100);
  const [run] = net.of('anna', 'run');
  expect(run).toMatchObject({ key, request: 'r1', guest: false });
  // The run has reserved space under its own number.
  net.step('anna', { kind: 'reserve', reservation: run?.run ?? 0, sizeBytes: 5_000 });
  expect(net.of('anna', 'reserved')).toEqual([{ kind: 'reserved', reservation: run?.run }]);
  net.step('anna', { kind: 'stored', blob: 'result', sizeBytes: 10 });
  for (let pin = 0; pin < 4; pin++) {
    net.step('anna', { kind: 'pin', pin, blob: 'result', purpose: 'ownClient', forMs: 1_000 });
  }
  const outcome = { result: 'result', sizeBytes: 400, cacheable: true };
  net.step('anna', { kind: 'ran', run: run?.run ?? 0, outcome, runMs: 700 });
  net.run(200);
  expect(net.of('anna', 'answer')).toMatchObject([{ request: 'r1', answer: { kind: 'result', outcome } }]);
  expect(net.of('anna', 'pinned').map(({ pin }) => pin)).toEqual([0, 1, 2, 3]);
  const { promises } = net.peers.get('anna') as Peer;
  expect(promises.reservedBytes()).toBe(5_000);
  net.step('anna', { kind: 'release', reservation: run?.run ?? 0 });
  expect(promises.reservedBytes()).toBe(0);
  // The outside lets go of its pins; the peer's own hold on, the client's until its invocation ends.
  for (let pin = 0; pin < 4; pin++) net.step('anna', { kind: 'unpin', pin });
  const purposes = (): string[] => [...promises.pins()].map(({ purpose }) => purpose).sort();
  expect(purposes()).toEqual(['ownClient', 'replica']);
  net.step('anna', { kind: 'invocationEnded', invocation: 'build' });
  expect(purposes()).toEqual(['replica']);
});

test('what a machine lends is in its record: nothing while its owner is there', () => {
  const net = createPeerNet(['anna', 'ben']);
  expect(net.attributesOf('anna', 'ben')).toMatchObject({ guestSlots: 0, capabilities: [] });
  net.step('anna', slots);
  net.run(3_000);
  expect(net.attributesOf('anna', 'ben')).toMatchObject({ guestSlots: 3, capabilities: ['os=linux'] });
  net.step('anna', { kind: 'owner', present: true });
  // What the driver says of the machine leaves that alone.
  net.step('anna', { kind: 'attributes', attributes: { ...attributes, power: 'battery' } });
  net.run(3_000);
  const capabilities = ['os=linux'];
  expect(net.attributesOf('anna', 'ben')).toMatchObject({ guestSlots: 0, power: 'battery', capabilities });
  // A machine that never lends offers nothing that anybody could wait for.
  net.step('anna', { ...slots, guests: false });
  net.run(3_000);
  expect(net.attributesOf('anna', 'ben')).toMatchObject({ guestSlots: 0, capabilities: [] });
});

test('registers are read, filled and cleared without a claim', () => {
  const net = createPeerNet(['anna', 'ben']);
  const other = actionKey('main', 'sha256', 'b'.repeat(64), 150);
  net.step('ben', { kind: 'stored', blob: 'upload', sizeBytes: 10 });
  net.step('ben', { kind: 'publish', key, result: 'upload' });
  net.step('ben', { kind: 'publish', key: other, result: 'nowhere' });
  net.run(1_000);
  const look = (lookup: number): Of<'lookedUp'> | undefined => {
    net.step('ben', { kind: 'lookup', lookup, keys: [key, other] });
    net.run(500);
    return net.of('ben', 'lookedUp').find((answer) => answer.lookup === lookup);
  };
  const first = look(1);
  expect([...(first?.answered ?? [])].sort()).toEqual([key, other].sort());
  expect(first?.found).toMatchObject([{ key, register: { result: 'upload', class: 'unclaimed', executor: 'ben' } }]);
  // That it is wrong counts only from its leader's own node.
  const leader = net.peers.get('ben')?.coordination.leaderOf(shardOf(key, shards));
  const elsewhere = leader === 'anna' ? 'ben' : 'anna';
  net.step(elsewhere, { kind: 'invalidate', key, result: 'upload', reason: 'wrong' });
  net.run(3_000);
  expect(look(2)?.found).toHaveLength(1);
  net.step(leader as string, { kind: 'invalidate', key, result: 'upload', reason: 'wrong' });
  net.run(1_000);
  expect(look(3)?.found).toMatchObject([{ register: { kind: 'tombstone', reason: 'wrong' } }]);
});

test('a lookup whose leader is silent is answered in time, with nothing', () => {
  const net = createPeerNet(['anna', 'ben']);
  const [asker, leader] =
    net.peers.get('anna')?.coordination.leaderOf(shardOf(key, shards)) === 'ben' ? ['anna', 'ben'] : ['ben', 'anna'];
  net.peers.delete(leader as string);
  net.step(asker as string, { kind: 'lookup', lookup: 1, keys: [key] });
  net.run(deskLimits.lookupMs - 10);
  expect(net.of(asker as string, 'lookedUp')).toEqual([]);
  net.run(20);
  expect(net.of(asker as string, 'lookedUp')).toEqual([{ kind: 'lookedUp', lookup: 1, found: [], answered: [] }]);
});

test('records of all machines are numbered together, and leave in that order', () => {
  const net = createPeerNet(['anna', 'ben']);
  const persists = net.effects.flatMap(({ node, effect }) =>
    node === 'anna' && effect.kind === 'persist' ? [effect.id] : [],
  );
  expect(persists.length).toBeGreaterThan(2);
  expect(persists).toEqual(persists.toSorted((a, b) => a - b));
  expect(new Set(persists).size).toBe(persists.length);
  const kinds = new Set(net.records.get('anna')?.map(({ of }) => of));
  expect(kinds).toEqual(new Set(['membership', 'coordination']));
});
