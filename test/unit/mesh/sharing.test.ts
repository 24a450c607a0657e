import { expect, test } from 'vitest';
import type { Kept } from '../../../mesh/core/keeping/types.ts';
import { createRing } from '../../../mesh/core/providers/ring.ts';
import { createRng } from '../../../mesh/core/rng.ts';
import { createSharing, type Sharing } from '../../../mesh/core/sharing.ts';
import type { SharingEffect, SharingEvent, SharingRecord } from '../../../mesh/core/sharing-types.ts';
import { createEngine } from '../../../sim/engine.ts';
import { attributes, createSigner } from './membership/net.ts';
import { blobNamed } from './providers/net.ts';

interface ShareNet {
  readonly nodes: Map<string, Sharing>;
  /** Blobs on each node's disk. */
  readonly disks: Map<string, Map<string, number>>;
  readonly effects: { readonly node: string; readonly effect: SharingEffect }[];
  readonly records: Map<string, SharingRecord[]>;
  /** Nodes whose disk writes nothing. */
  readonly stuck: Set<string>;
  start(node: string, capacityBytes?: number): void;
  step(node: string, event: SharingEvent): void;
  store(node: string, blob: string, sizeBytes?: number): void;
  run(forMs: number): void;
  of<K extends SharingEffect['kind']>(node: string, kind: K): Extract<SharingEffect, { kind: K }>[];
}

/** Whole sharing nodes on a network that loses nothing; transfers take ten milliseconds. */
function createShareNet(names: readonly string[]): ShareNet {
  const engine = createEngine();
  const signer = createSigner();
  const wakes = new Map<string, number>();
  const nowMs = (): number => Math.trunc(engine.nowUs() / 1_000);
  const uploads = new Map<string, (serve: boolean) => void>();
  let nextUpload = 0;
  const net: ShareNet = {
    nodes: new Map(),
    disks: new Map(),
    effects: [],
    records: new Map(),
    stuck: new Set(),
    start(node, capacityBytes = 1e9) {
      const disk = net.disks.get(node) ?? new Map<string, number>();
      const records = net.records.get(node) ?? [];
      net.disks.set(node, disk);
      net.records.set(node, records);
      const index = names.indexOf(node);
      const config = {
        self: node,
        attributes: { ...attributes, dataAddress: `10.0.0.${index}:7980` },
        signer,
        rng: createRng(index + 1),
        ringOf: (of: readonly string[]) => createRing(of, 9),
        capacityBytes,
        held: [...disk],
        uploadBytesPerSecond: 1e9,
        uploadsMax: 16,
      };
      net.nodes.set(node, createSharing(config, [...records], nowMs()));
      net.step(node, { kind: 'start', contacts: names.slice(0, 2) });
    },
    step(node, event) {
      const machine = net.nodes.get(node);
      if (!machine) return;
      for (const effect of machine.step(event, nowMs())) perform(node, machine, effect);
    },
    store(node, blob, sizeBytes = 1_000) {
      net.disks.get(node)?.set(blob, sizeBytes);
      net.step(node, { kind: 'stored', blob, sizeBytes });
    },
    run: (forMs) => engine.runUntil(engine.nowUs() + forMs * 1_000),
    of: (node, kind) =>
      net.effects.flatMap((each) => (each.node === node && each.effect.kind === kind ? [each.effect as never] : [])),
  };

  function perform(node: string, machine: Sharing, effect: SharingEffect): void {
    net.effects.push({ node, effect });
    const later = (delayMs: number, act: () => void): void =>
      engine.after(delayMs * 1_000, () => {
        if (net.nodes.get(node) === machine) act();
      });
    switch (effect.kind) {
      case 'send':
        // Messages that promise something wait for the disk; here they leave when it is done.
        engine.after(2_000, () => net.step(effect.to, { kind: 'message', from: node, message: effect.message }));
        return;
      case 'persist':
        if (net.stuck.has(node)) return;
        net.records.get(node)?.push(effect.record);
        later(1, () => net.step(node, { kind: 'persisted', id: effect.id }));
        return;
      case 'wakeAt':
        wakes.set(node, effect.atMs);
        if (effect.atMs === Number.POSITIVE_INFINITY) return;
        engine.at(effect.atMs * 1_000, () => {
          if (wakes.get(node) === effect.atMs && net.nodes.get(node) === machine) net.step(node, { kind: 'wake' });
        });
        return;
      case 'evict':
        net.disks.get(node)?.delete(effect.blob);
        return;
      case 'transfer': {
        const { transfer, from, parts } = effect;
        nextUpload += 1;
        const upload = nextUpload;
        uploads.set(`${from} ${upload}`, (serve) => {
          if (!serve)
            return net.step(node, {
              kind: 'ended',
              transfer,
              outcome: { kind: 'busy', tryNodes: [], retryAfterMs: 50 },
            });
          later(10, () => {
            for (const { blob, lengthBytes } of parts) {
              const held = net.disks.get(from)?.has(blob) === true;
              if (held) net.disks.get(node)?.set(blob, lengthBytes);
              net.step(node, { kind: 'part', transfer, blob, outcome: held ? 'stored' : 'absent' });
            }
            net.step(node, { kind: 'ended', transfer, outcome: { kind: 'done' } });
            net.step(from, { kind: 'sent', upload, sentBytes: parts.reduce((sum, part) => sum + part.lengthBytes, 0) });
          });
        });
        engine.after(2_000, () => net.step(from, { kind: 'asked', upload, to: node, parts }));
        return;
      }
      case 'serve':
      case 'refuse':
        uploads.get(`${node} ${effect.upload}`)?.(effect.kind === 'serve');
        return;
      default:
    }
  }

  for (const name of names) net.start(name);
  net.run(20_000);
  return net;
}

const names = ['anna', 'ben', 'cleo', 'dora', 'emil'];
const secured = (net: ShareNet, node: string): readonly Kept[] => net.of(node, 'secured').at(-1)?.kept ?? [];

test('what one node stored another one finds, fetches, keeps and announces in turn', () => {
  const net = createShareNet(names);
  const blob = blobNamed('shared');
  net.store('anna', blob);
  net.run(500);
  net.step('ben', { kind: 'want', wants: [{ want: 1, blob, sizeBytes: 1_000, budgetMs: 5_000, hints: [] }] });
  net.run(1_000);
  expect(net.of('ben', 'fetched')).toEqual([{ kind: 'fetched', want: 1, blob, from: 'anna' }]);
  expect(net.nodes.get('ben')?.promises.holds(blob)).toBe(true);
  net.run(500);
  net.step('cleo', { kind: 'find', find: 7, blobs: [blob] });
  net.run(1_000);
  expect(
    net
      .of('cleo', 'found')
      .flatMap(({ found }) => found.flatMap(({ holders }) => [...holders]))
      .sort(),
  ).toEqual(['anna', 'ben']);
});

test('a blob evicted to make room for a fetched one is no longer found', () => {
  const net = createShareNet(names);
  const [old, wanted] = [blobNamed('old'), blobNamed('wanted')];
  net.nodes.delete('dora');
  net.start('dora', 1_500);
  net.run(15_000);
  net.store('dora', old);
  net.store('anna', wanted);
  net.run(500);
  net.step('dora', { kind: 'want', wants: [{ want: 1, blob: wanted, sizeBytes: 1_000, budgetMs: 5_000, hints: [] }] });
  net.run(1_000);
  expect(net.of('dora', 'evict')).toEqual([{ kind: 'evict', blob: old }]);
  net.step('ben', { kind: 'find', find: 1, blobs: [old] });
  net.run(1_000);
  expect(net.of('ben', 'found').flatMap(({ found }) => found)).toEqual([{ blob: old, holders: [], sure: 'asked' }]);
});

test('two holders of each blob are asked to keep it, and their promise is durable before they say so', () => {
  const net = createShareNet(names);
  const blob = blobNamed('promised');
  for (const node of ['anna', 'ben', 'cleo']) net.store(node, blob);
  net.run(500);
  net.step('emil', { kind: 'secure', secure: 3, blobs: [blob], forMs: 600_000, budgetMs: 2_000 });
  net.run(2_500);
  const [kept] = secured(net, 'emil');
  expect(kept?.holders.length).toBe(2);
  for (const node of kept?.holders ?? []) {
    expect(net.records.get(node)?.some(({ of }) => of === 'promises')).toBe(true);
    expect(net.nodes.get(node)?.promises.pinnedUntilMs(blob)).toBeDefined();
  }
});

test('a holder whose disk does not answer promises nothing; another one does', () => {
  const net = createShareNet(names);
  const blob = blobNamed('promised');
  for (const node of ['anna', 'ben', 'cleo']) net.store(node, blob);
  net.run(500);
  net.stuck.add('anna');
  net.step('emil', { kind: 'secure', secure: 3, blobs: [blob], forMs: 600_000, budgetMs: 3_000 });
  net.run(3_500);
  expect([...(secured(net, 'emil')[0]?.holders ?? [])].sort()).toEqual(['ben', 'cleo']);
});

test('what nobody holds, or one alone, is reported as kept by that many', () => {
  const net = createShareNet(names);
  const [lone, lost] = [blobNamed('lone'), blobNamed('lost')];
  net.store('anna', lone);
  net.run(500);
  net.step('emil', { kind: 'secure', secure: 3, blobs: [lone, lost], forMs: 600_000, budgetMs: 2_000 });
  net.run(2_500);
  expect(secured(net, 'emil')).toEqual([
    { blob: lone, holders: ['anna'] },
    { blob: lost, holders: [] },
  ]);
});

test('pins given to others outlive a restart', () => {
  const net = createShareNet(names);
  const blob = blobNamed('promised');
  net.store('anna', blob);
  net.run(500);
  net.step('emil', { kind: 'secure', secure: 3, blobs: [blob], forMs: 600_000, budgetMs: 2_000 });
  net.run(2_500);
  net.nodes.delete('anna');
  net.start('anna');
  expect(net.nodes.get('anna')?.promises.pinnedUntilMs(blob)).toBeDefined();
});

test('pins and reservations of this node are answered under its own numbers', () => {
  const net = createShareNet(['anna', 'ben']);
  const blob = blobNamed('mine');
  net.store('anna', blob);
  net.step('anna', { kind: 'pin', pin: 42, blob, purpose: 'seed', forMs: 1_000 });
  net.step('anna', { kind: 'pin', pin: 43, blob: blobNamed('absent'), purpose: 'seed', forMs: 1_000 });
  net.step('anna', { kind: 'reserve', reservation: 5, sizeBytes: 1_000 });
  net.step('anna', { kind: 'reserve', reservation: 6, sizeBytes: 2e9 });
  net.run(10);
  expect(net.of('anna', 'pinned').map(({ pin }) => pin)).toEqual([42]);
  expect(net.of('anna', 'pinRefused').map(({ pin, reason }) => [pin, reason])).toEqual([[43, 'absent']]);
  expect(net.of('anna', 'reserved').map(({ reservation }) => reservation)).toEqual([5]);
  expect(net.of('anna', 'reserveRefused').map(({ reservation }) => reservation)).toEqual([6]);
  net.step('anna', { kind: 'unpin', pin: 42 });
  expect(net.nodes.get('anna')?.promises.pinnedUntilMs(blob)).toBeUndefined();
});

test('pins that ended by themselves are forgotten, and those that hold are not', () => {
  const net = createShareNet(['anna', 'ben']);
  const blob = blobNamed('mine');
  net.store('anna', blob);
  net.step('anna', { kind: 'pin', pin: 1, blob, purpose: 'seed', forMs: 3_600_000 });
  for (let pin = 2; pin < 3_000; pin++) net.step('anna', { kind: 'pin', pin, blob, purpose: 'seed', forMs: 1 });
  net.run(100);
  net.step('anna', { kind: 'pin', pin: 3_000, blob, purpose: 'seed', forMs: 1 });
  net.run(100);
  expect(net.nodes.get('anna')?.promises.pinnedUntilMs(blob)).toBeDefined();
  net.step('anna', { kind: 'unpin', pin: 1 });
  net.run(100);
  expect(net.nodes.get('anna')?.promises.pinnedUntilMs(blob)).toBeUndefined();
});
