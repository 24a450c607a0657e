/**
 * What sharing blobs costs in messages, bytes and memory, for meshes of several sizes: `node test/sim/blobs/measure-cost.ts
 * [rest|announce|large] [NODES...]`. No faults, one millisecond of latency; bytes are those of the wire format.
 */
import type { Member } from '../../../mesh/core/membership/membership.ts';
import type { Attributes } from '../../../mesh/core/membership/records.ts';
import { createProviders, type Providers } from '../../../mesh/core/providers/providers.ts';
import { createRing, type Ring } from '../../../mesh/core/providers/ring.ts';
import type { ProviderEvent, ProviderMessage } from '../../../mesh/core/providers/types.ts';
import { createRng } from '../../../mesh/core/rng.ts';
import { createSharing, type Sharing } from '../../../mesh/core/sharing.ts';
import type { SharingEvent, SharingMessage } from '../../../mesh/core/sharing-types.ts';
import { bodiesOf, encodeControl } from '../../../mesh/net/control/codec.ts';
import { blobNodeName } from '../../../sim/blobs/node.ts';
import { createBlobSigner } from '../../../sim/blobs/signer.ts';
import { createEngine } from '../../../sim/engine.ts';

/** On the wire, without what carries it. */
function bytesOf(message: SharingMessage): number {
  const ends = { self: '', far: '' };
  return bodiesOf(message, ends).reduce((sum, body) => sum + encodeControl(body).byteLength, 0);
}

interface Counts {
  messages: number;
  bytes: number;
}

const latencyUs = 1_000;
const blobBytes = 20_000;
const formedNodesMax = 500;
const rng = createRng(7);

function attributes(index: number): Attributes {
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
    guestSlots: 0,
    capabilities: [],
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

/** Whole sharing nodes, membership included. */
function createMesh(nodes: number) {
  const engine = createEngine();
  const machines: Sharing[] = [];
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

  function step(index: number, event: SharingEvent): void {
    const machine = machines[index] as Sharing;
    for (const effect of machine.step(event, nowMs())) {
      switch (effect.kind) {
        case 'send': {
          counts.messages += 1;
          counts.bytes += bytesOf(effect.message);
          const to = indexOf.get(effect.to) as number;
          const message: SharingMessage = effect.message;
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
        default:
      }
    }
  }

  for (let index = 0; index < nodes; index++) {
    engine.at(index * 5_000, () => {
      machines[index] = createSharing(
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
        },
        [],
        nowMs(),
      );
      const contacts = nodes > formedNodesMax ? [] : [blobNodeName(0), blobNodeName(Math.trunc(index / 2))];
      step(index, { kind: 'start', contacts });
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
          counts.bytes += bytesOf(effect.message);
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
      record: { id, incarnation: 1, presence: 'here', signature: '', attributes: attributes(index) },
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
else if (what === 'announce') for (const count of nodes.length > 0 ? nodes : [3, 30, 300, 3_000]) announce(count);
else if (what === 'memory') memory();
else if (what === 'large') for (const count of nodes.length > 0 ? nodes : [10_000]) large(count);
else console.error(`measure-cost: no such measurement: ${what}`);
