/**
 * What a mesh costs in messages, bytes and memory, for several sizes: `node test/sim/blobs/measure-cost.ts
 * [rest|actions|announce|large|memory] [NODES...]`. Whole nodes, but for the last three: those are the provider index
 * alone. No faults, one millisecond of latency; bytes are those of the wire format.
 */
import { actionKey } from '../../../mesh/core/ids.ts';
import type { Member } from '../../../mesh/core/membership/membership.ts';
import type { MachineAttributes } from '../../../mesh/core/membership/records.ts';
import { createPeer, type Peer, type PeerEvent, type PeerMessage } from '../../../mesh/core/peer.ts';
import { createProviders, type Providers } from '../../../mesh/core/providers/providers.ts';
import { createRing, type Ring } from '../../../mesh/core/providers/ring.ts';
import type { ProviderEvent, ProviderMessage } from '../../../mesh/core/providers/types.ts';
import { createRng } from '../../../mesh/core/rng.ts';
import { shardOf } from '../../../mesh/core/shards/placement.ts';
import { bodiesOf, encodeControl } from '../../../mesh/net/control/codec.ts';
import { blobNodeName } from '../../../sim/blobs/node.ts';
import { createBlobSigner } from '../../../sim/blobs/signer.ts';
import { createEngine } from '../../../sim/engine.ts';

/** On the wire, without what carries it. */
function bytesOf(message: PeerMessage, self: string, far: string): number {
  return bodiesOf(message, { self, far }).reduce((sum, body) => sum + encodeControl(body).byteLength, 0);
}

interface Counts {
  messages: number;
  bytes: number;
}

const latencyUs = 1_000;
const blobBytes = 20_000;
const formedNodesMax = 500;
const shards = 16;
const actionsAsked = 1_000;
const runMs = 2_000;
const slots = 8;
const rng = createRng(7);

function attributes(index: number): MachineAttributes {
  return {
    site: 'office',
    subnet: '10.0.0.0/24',
    dataAddress: `10.0.${index >> 8}.${index & 255}:7980`,
    cores: 8,
    memoryBytes: 16e9,
    power: 'mains',
    wired: true,
    coordinator: 'eligible',
    storeGeneration: 1,
  };
}

function blobNamed(): string {
  const words = Array.from({ length: 8 }, () => rng.next().toString(16).padStart(8, '0'));
  return `sha256/${words.join('')}/${blobBytes}`;
}

function createRings(): (nodes: readonly string[]) => Ring {
  let last: Ring | undefined;
  return (nodes) => {
    if (last?.nodes.length === nodes.length && last.nodes.every((node, i) => node === nodes[i])) return last;
    return (last = createRing(nodes, 1));
  };
}

/** Whole nodes; every action takes `runMs`, and every transfer of bytes one latency. */
function createMesh(nodes: number) {
  const engine = createEngine();
  const machines: Peer[] = [];
  const tally = { answered: 0, elsewhere: 0, byKind: new Map<string, Counts>() };
  const wakes: number[] = [];
  const counts: Counts = { messages: 0, bytes: 0 };
  const ringOf = createRings();
  const signer = createBlobSigner();
  const nowMs = (): number => Math.trunc(engine.nowUs() / 1_000);
  const indexOf = new Map(Array.from({ length: nodes }, (_, i) => [blobNodeName(i), i]));

  function arm(index: number, atMs: number): void {
    wakes[index] = atMs;
    if (atMs === Number.POSITIVE_INFINITY) return;
    engine.at(atMs * 1_000, () => {
      if (wakes[index] === atMs) step(index, { kind: 'wake' });
    });
  }

  function step(index: number, event: PeerEvent): void {
    const machine = machines[index] as Peer;
    const later = (delayUs: number, answer: PeerEvent): void => engine.after(delayUs, () => step(index, answer));
    for (const effect of machine.step(event, nowMs())) {
      switch (effect.kind) {
        case 'send': {
          const { message } = effect;
          const bytes = bytesOf(message, blobNodeName(index), effect.to);
          counts.messages += 1;
          counts.bytes += bytes;
          const kind = tally.byKind.get(message.kind) ?? { messages: 0, bytes: 0 };
          tally.byKind.set(message.kind, { messages: kind.messages + 1, bytes: kind.bytes + bytes });
          const to = indexOf.get(effect.to) as number;
          engine.after(latencyUs, () => {
            if (machines[to]) step(to, { kind: 'message', from: blobNodeName(index), message });
          });
          break;
        }
        case 'persist':
          engine.after(latencyUs, () => step(index, { kind: 'persisted', id: effect.id }));
          break;
        case 'wakeAt':
          arm(index, effect.atMs);
          break;
        case 'fetchInputs':
          later(latencyUs, { kind: 'inputsFetched', run: effect.run, ok: true });
          break;
        case 'run': {
          const { run, guest, key } = effect;
          if (guest) tally.elsewhere += 1;
          const outcome = { result: `result/${key}`, sizeBytes: blobBytes, cacheable: true };
          later(runMs * 1_000, { kind: 'ran', run, outcome, runMs });
          break;
        }
        case 'fetchOutputs': {
          const outcome = { result: effect.result, sizeBytes: blobBytes, cacheable: true };
          later(latencyUs, { kind: 'outputsFetched', fetch: effect.fetch, outcome });
          break;
        }
        case 'answer':
          tally.answered += 1;
          break;
        default:
      }
    }
  }

  for (let index = 0; index < nodes; index++) {
    engine.at(index * 5_000, () => {
      machines[index] = createPeer(
        {
          self: blobNodeName(index),
          attributes: attributes(index),
          signer,
          rng: createRng(rng.next()),
          ringOf,
          capacityBytes: 1e12,
          held: [],
          uploadBytesPerSecond: 1e8,
          uploadsMax: 32,
          shards,
          founder: index === 0,
          holds: () => [],
        },
        [],
        nowMs(),
      );
      const contacts = nodes > formedNodesMax ? [] : [blobNodeName(0), blobNodeName(Math.trunc(index / 2))];
      step(index, { kind: 'start', contacts });
      step(index, { kind: 'slots', slots, guests: true, guestSlots: slots, capabilities: ['OSFamily=linux'] });
    });
  }
  if (nodes > formedNodesMax) {
    // Too many to form by gossip in the time there is: each is told of all others at once.
    engine.at(nodes * 5_000, () => {
      const rumours = machines.map((machine) => {
        const record = machine.membership.self();
        return { record, verdict: 'here' as const, by: record.id };
      });
      const message = { kind: 'sync' as const, reply: false, rumours };
      for (let index = 0; index < nodes; index++) step(index, { kind: 'message', from: blobNodeName(0), message });
    });
  }
  return {
    counts,
    tally,
    machines,
    step,
    run: (forMs: number) => engine.runUntil(engine.nowUs() + forMs * 1_000),
    known: () => Math.min(...machines.map((machine) => [...machine.membership.members()].length)),
  };
}

function rest(nodes: number): void {
  const mesh = createMesh(nodes);
  mesh.run(nodes * 5 + 60_000);
  const stored = nodes > formedNodesMax ? 20 : 200;
  for (let index = 0; index < nodes; index++) {
    for (let i = 0; i < stored; i++) mesh.step(index, { kind: 'stored', blob: blobNamed(), sizeBytes: blobBytes });
  }
  // What was new while the mesh formed is passed on for some minutes more.
  mesh.run(nodes < 100 ? 120_000 : nodes > formedNodesMax ? 400_000 : 1_200_000);
  const known = mesh.known();
  const before = { ...mesh.counts };
  const minutes = nodes > formedNodesMax ? 2 : 5;
  mesh.run(minutes * 60_000);
  const per = (of: keyof Counts): string => ((mesh.counts[of] - before[of]) / nodes / minutes).toFixed(0);
  console.log(
    `rest      ${nodes} nodes (all know ${known}): ${per('messages')} messages, ${per('bytes')} bytes per node and minute`,
  );
}

/** A build of many actions on one node of a mesh at rest, four times as many as it has slots for at a time. */
function actions(nodes: number): void {
  const mesh = createMesh(nodes);
  mesh.run(nodes * 5 + (nodes < 100 ? 120_000 : 1_200_000));
  const restBefore = { ...mesh.counts };
  mesh.run(60_000);
  const restPerMs = (of: keyof Counts): number => (mesh.counts[of] - restBefore[of]) / 60_000;
  const rest = { messages: restPerMs('messages'), bytes: restPerMs('bytes') };
  const before = { ...mesh.counts };
  mesh.tally.byKind.clear();
  for (let i = 0; i < actionsAsked; i++) {
    const key = actionKey('main', 'sha256', blobNamed().split('/')[1] as string, 150);
    const item = {
      request: `r${i}`,
      shard: shardOf(key, shards),
      key,
      invocation: 'build',
      priority: 0,
      requires: ['OSFamily=linux'],
      spaceBytes: 1_000_000,
      inputs: [],
      doNotCache: false,
      skipCacheLookup: false,
      expectedMs: runMs,
      mnemonic: 'CppCompile',
      family: 'CppCompile',
      inputBytes: 100_000,
    };
    if (i % (4 * slots) === 0) mesh.run(100);
    mesh.step(1, { kind: 'execute', item });
  }
  let tookMs = 0;
  while (mesh.tally.answered < actionsAsked && tookMs < 600_000) {
    mesh.run(500);
    tookMs += 500;
  }
  mesh.run(5_000);
  const all = tookMs + 5_000 + (actionsAsked / (4 * slots)) * 100;
  const own = (of: keyof Counts): number => Math.round(mesh.counts[of] - before[of] - rest[of] * all);
  console.log(
    `actions   ${nodes} nodes: ${own('messages')} messages, ${own('bytes')} bytes beyond those at rest for ${mesh.tally.answered} actions, ` +
      `${mesh.tally.elsewhere} of them elsewhere, in ${(tookMs / 1_000).toFixed(1)} s`,
  );
  const kinds = [...mesh.tally.byKind].sort(([, a], [, b]) => b.bytes - a.bytes).slice(0, 12);
  console.log(`          ${kinds.map(([kind, { messages, bytes }]) => `${kind} ${messages} (${bytes})`).join(', ')}`);
}

/** The provider index alone, over one shared view of the members. */
function createIndex(nodes: number) {
  const engine = createEngine();
  const members = new Map<string, Member>();
  const machines = new Map<string, Providers>();
  const wakes = new Map<string, number>();
  const counts: Counts = { messages: 0, bytes: 0 };
  const tally = { found: 0, missed: 0 };
  const ringOf = createRings();
  const nowMs = (): number => Math.trunc(engine.nowUs() / 1_000);
  const ids = Array.from({ length: nodes }, (_, i) => blobNodeName(i));

  function step(node: string, event: ProviderEvent): void {
    for (const effect of (machines.get(node) as Providers).step(event, nowMs())) {
      switch (effect.kind) {
        case 'send': {
          counts.messages += 1;
          counts.bytes += bytesOf(effect.message, node, effect.to);
          const { to } = effect;
          const message: ProviderMessage = effect.message;
          engine.after(latencyUs, () => step(to, { kind: 'message', from: node, message }));
          break;
        }
        case 'wakeAt': {
          wakes.set(node, effect.atMs);
          if (effect.atMs === Number.POSITIVE_INFINITY) break;
          engine.at(effect.atMs * 1_000, () => {
            if (wakes.get(node) === effect.atMs) step(node, { kind: 'wake' });
          });
          break;
        }
        case 'found':
          for (const { holders } of effect.found) tally[holders.length > 0 ? 'found' : 'missed'] += 1;
          break;
        case 'note':
          break;
        default:
          effect satisfies never;
      }
    }
  }

  for (const [index, id] of ids.entries()) {
    members.set(id, {
      status: 'alive',
      record: {
        id,
        incarnation: 1,
        presence: 'here',
        signature: '',
        attributes: { ...attributes(index), guestSlots: 0, capabilities: [] },
      },
    });
  }
  const view = { get: (id: string) => members.get(id), members: () => members.values() };
  for (const self of ids) {
    const config = { self, generation: 1, members: view, ringOf, rng: createRng(rng.next()), held: [] };
    machines.set(self, createProviders(config, nowMs()));
  }
  return {
    counts,
    tally,
    machines,
    ids,
    step,
    run: (forMs: number) => engine.runUntil(engine.nowUs() + forMs * 1_000),
  };
}

function announce(nodes: number): void {
  const index = createIndex(nodes);
  const blobs = Array.from({ length: 10_000 }, blobNamed);
  index.step(index.ids[0] as string, { kind: 'stored', blobs });
  index.run(30_000);
  const told = { ...index.counts };
  console.log(`announce  ${nodes} nodes: ${told.messages} messages, ${told.bytes} bytes for 10,000 blobs of one node`);
  index.step(index.ids[1] as string, { kind: 'find', find: 1, blobs: blobs.slice(0, 500), thorough: false });
  index.run(5_000);
  const asked = { messages: index.counts.messages - told.messages, bytes: index.counts.bytes - told.bytes };
  console.log(
    `find      ${nodes} nodes: ${asked.messages} messages, ${asked.bytes} bytes for 500 blobs; ${index.tally.found} found`,
  );
}

function large(nodes: number): void {
  const startedMs = performance.now();
  const perNode = 100;
  const asks = 20;
  const index = createIndex(nodes);
  const emptyBytes = process.memoryUsage().rss;
  const blobs: string[] = [];
  for (const id of index.ids) {
    const own = Array.from({ length: perNode }, blobNamed);
    blobs.push(...own.slice(0, asks));
    index.step(id, { kind: 'stored', blobs: own });
    index.run(20);
  }
  index.run(30_000);
  const announced = { ...index.counts };
  const announcedMs = performance.now();
  for (const [i, id] of index.ids.entries()) {
    const wanted = Array.from({ length: asks }, () => blobs[rng.below(blobs.length)] as string);
    index.step(id, { kind: 'find', find: i, blobs: wanted, thorough: false });
    index.run(5);
  }
  index.run(5_000);
  let records = 0;
  let recordBytes = 0;
  for (const machine of index.machines.values()) {
    records += machine.records();
    recordBytes += machine.recordBytes();
  }
  const { rss, heapUsed, arrayBuffers } = process.memoryUsage();
  const mega = (bytes: number): string => `${Math.round(bytes / 1e6)} MB`;
  console.log(
    `large     ${nodes} nodes, ${nodes * perNode} blobs, ${records} records in ${mega(recordBytes)} of arrays`,
  );
  console.log(
    `          announced with ${announced.messages} messages, ${mega(announced.bytes)}, in ${Math.round((announcedMs - startedMs) / 1_000)} s; ` +
      `${index.tally.found} of ${nodes * asks} found, ${index.tally.missed} missed, in ${Math.round((performance.now() - announcedMs) / 1_000)} s`,
  );
  console.log(
    `          process: ${mega(rss)} resident (${mega(emptyBytes)} before), heap ${mega(heapUsed)}, arrays ${mega(arrayBuffers)}`,
  );
}

/** One node with many records: what a record costs. */
function memory(): void {
  const index = createIndex(10);
  for (const id of index.ids) {
    index.step(id, { kind: 'stored', blobs: Array.from({ length: 100_000 }, blobNamed) });
    index.run(2_000);
  }
  index.run(60_000);
  let records = 0;
  let recordBytes = 0;
  for (const machine of index.machines.values()) {
    records += machine.records();
    recordBytes += machine.recordBytes();
  }
  const each = (recordBytes / (records + 1_000_000)).toFixed(1);
  console.log(
    `memory    10 nodes of 100,000 blobs: ${records} records of others, ${each} bytes a record with the own ones`,
  );
}

const [what = 'rest', ...sizes] = process.argv.slice(2);
const nodes = sizes.map(Number);
if (what === 'rest') for (const count of nodes.length > 0 ? nodes : [3, 30, 300]) rest(count);
else if (what === 'actions') for (const count of nodes.length > 0 ? nodes : [3, 30, 300]) actions(count);
else if (what === 'announce') for (const count of nodes.length > 0 ? nodes : [3, 30, 300, 3_000]) announce(count);
else if (what === 'memory') memory();
else if (what === 'large') for (const count of nodes.length > 0 ? nodes : [10_000]) large(count);
else console.error(`measure-cost: no such measurement: ${what}`);
