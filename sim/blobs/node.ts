/**
 * One simulated machine that shares blobs: its clock, disk and transfers, and the production driver with the production
 * machines on top. What it stores may rot; while it lies it sends other bytes than it says.
 */
import type { Part } from '../../mesh/core/fetch/types.ts';
import type { BlobKey, NodeId } from '../../mesh/core/ids.ts';
import type { Attributes, RecordSigner } from '../../mesh/core/membership/records.ts';
import type { Ring } from '../../mesh/core/providers/ring.ts';
import { createRng, type Rng } from '../../mesh/core/rng.ts';
import { createSharing, type Sharing } from '../../mesh/core/sharing.ts';
import type { SharingEffect, SharingEvent, SharingMessage } from '../../mesh/core/sharing-types.ts';
import type { SimClock } from '../clock.ts';
import type { Reader, Request } from '../connections.ts';
import { createDataPlane } from '../data-plane.ts';
import { createDisk, type SimDisk } from '../disk.ts';
import type { Engine } from '../engine.ts';
import { createMachine, type NodeState } from '../machine.ts';
import type { BlobMachine } from './plan.ts';

export type BlobWork = Exclude<SharingEffect, { readonly kind: 'persist' | 'send' | 'wakeAt' }>;

interface Stored {
  readonly sizeBytes: number;
  /** The bytes are those of the digest. */
  good: boolean;
}

export interface BlobDisk {
  readonly generation: number;
  readonly log: SimDisk;
  readonly blobs: Map<BlobKey, Stored>;
}

export interface BlobPorts {
  readonly engine: Engine;
  readonly signer: RecordSigner;
  readonly contacts: readonly NodeId[];
  readonly ringOf: (nodes: readonly NodeId[]) => Ring;
  send(from: BlobNode, to: NodeId, message: SharingMessage): void;
  /** Carries a request to a holder and its bytes back; returns how to stop it. */
  request(node: BlobNode, from: NodeId, parts: readonly Part[], to: Reader): () => void;
  onWork(node: BlobNode, effect: BlobWork): void;
  onStored(node: BlobNode, blob: BlobKey): void;
}

export interface BlobNode {
  readonly index: number;
  readonly id: NodeId;
  readonly model: BlobMachine;
  readonly clock: SimClock;
  state(): NodeState;
  sharing(): Sharing | undefined;
  disk(): BlobDisk;
  liar(): boolean;
  /** How often its process ended. */
  life(): number;
  /** Virtual time at which its process began. */
  bootedAtMs(): number;
  /** Changes whenever it stood still. */
  stops(): number;
  boot(): void;
  crash(): void;
  /** Crashes, and never boots again. */
  retire(): void;
  /** Goodbye first, then asleep. */
  suspend(goodbye: boolean): void;
  pause(): void;
  resume(): void;
  newDisk(): void;
  setFull(full: boolean): void;
  setLiar(liar: boolean): void;
  deliver(event: SharingEvent): void;
  receive(from: NodeId, message: SharingMessage): void;
  /** Makes a blob here. */
  make(blob: BlobKey, sizeBytes: number): void;
  rot(rng: Rng): void;
  lose(rng: Rng): void;
  request(request: Request): void;
}

export function blobNodeName(index: number): NodeId {
  return `node-${String(index).padStart(5, '0')}`;
}

export function createBlobNode(ports: BlobPorts, index: number, model: BlobMachine, seedRng: Rng): BlobNode {
  const { engine } = ports;
  const id = blobNodeName(index);
  const rng = seedRng.fork(id);
  const machine = createMachine<Sharing>(engine, rng.between(1_000, 10_000_000));
  const { clock, live } = machine;
  let stops = 0;
  let bootedAtMs = 0;
  let disks = 0;
  let full = false;
  let liar = false;
  let retired = false;
  let saidGoodbye = false;
  let disk = emptyDisk();
  const data = createDataPlane({
    engine,
    live,
    deliver: (event) => machine.driver()?.deliver(event),
    store: (blob, sizeBytes, done) => store(blob, sizeBytes, done),
    holds: (blob) => disk.blobs.get(blob)?.good,
    sizeOf: (blob) => Number(blob.slice(blob.lastIndexOf('/') + 1)),
    liar: () => liar,
    request: (from, parts, to) => ports.request(node, from, parts, to),
    nodeAt: blobNodeName,
  });

  function emptyDisk(): BlobDisk {
    disks += 1;
    const log = createDisk(engine, rng.fork(`disk ${disks}`), { syncUsMin: 300, syncUsMax: 5_000 });
    return { generation: disks, log, blobs: new Map() };
  }

  function attributes(): Attributes {
    return {
      site: `site-${model.site}`,
      subnet: `subnet-${model.site}-${index % 2}`,
      dataAddress: `10.${model.site}.0.${index}:7000`,
      cores: 4,
      memoryBytes: 16_000_000_000,
      power: 'mains',
      wired: model.wired,
      coordinator: 'eligible',
      storeGeneration: disk.generation,
      guestSlots: 0,
      capabilities: [],
    };
  }

  /** Puts a blob on the disk; `done` says what became of it. The machines hear of it by what they asked for. */
  function store(blob: BlobKey, sizeBytes: number, done: (outcome: 'stored' | 'noRoom') => void): void {
    const { blobs } = disk;
    engine.after(
      rng.between(200, 4_000),
      live(() => {
        const freeBytes = machine.peer()?.promises.freeBytes() ?? 0;
        if (full || sizeBytes > freeBytes) return done('noRoom');
        blobs.set(blob, { sizeBytes, good: true });
        ports.onStored(node, blob);
        done('stored');
      }),
    );
  }

  function work(effect: BlobWork): void {
    ports.onWork(node, effect);
    switch (effect.kind) {
      case 'transfer':
      case 'cancelTransfer':
      case 'assemble':
      case 'discard':
      case 'serve':
      case 'refuse':
        return data.perform(effect);
      case 'evict':
        disk.blobs.delete(effect.blob);
        return;
      case 'fetched':
      case 'failed':
      case 'found':
      case 'secured':
      case 'pinned':
      case 'pinRefused':
      case 'reserved':
      case 'reserveRefused':
      case 'note':
        return;
      default:
        effect satisfies never;
    }
  }

  const node: BlobNode = {
    index,
    id,
    model,
    clock,
    state: machine.state,
    sharing: machine.peer,
    disk: () => disk,
    liar: () => liar,
    life: machine.life,
    bootedAtMs: () => bootedAtMs,
    stops: () => stops,
    boot() {
      if (machine.state() !== 'down' || retired) return;
      bootedAtMs = Math.trunc(engine.nowUs() / 1_000);
      machine.boot(disk.log, { send: (to, message) => ports.send(node, to, message), work }, (restored, nowMs) =>
        createSharing(
          {
            self: id,
            attributes: attributes(),
            signer: ports.signer,
            rng: createRng(rng.next()),
            ringOf: ports.ringOf,
            capacityBytes: model.capacityBytes,
            held: [...disk.blobs].map(([blob, { sizeBytes }]) => [blob, sizeBytes] as const),
            uploadBytesPerSecond: model.uploadBytesPerSecond,
            uploadsMax: 32,
          },
          restored,
          nowMs,
        ),
      );
      machine.driver()?.deliver({ kind: 'start', contacts: ports.contacts });
    },
    crash() {
      if (machine.state() === 'down') return;
      stops += 1;
      disk.log.crash();
      data.end();
      machine.end();
      clock.restart();
    },
    retire() {
      node.crash();
      retired = true;
    },
    suspend(goodbye) {
      if (machine.state() !== 'up') return;
      saidGoodbye = goodbye;
      if (goodbye) machine.deliver({ kind: 'goodbye', presence: 'suspended' });
      stops += 1;
      machine.standStill('suspended');
    },
    pause() {
      if (machine.state() !== 'up') return;
      stops += 1;
      machine.standStill('paused');
    },
    resume() {
      if (machine.state() !== 'paused' && machine.state() !== 'suspended') return;
      machine.goOn(() => {
        // A sleep too short for a gap on the clock still ends what was announced.
        if (saidGoodbye) machine.deliver({ kind: 'gap', gapMs: 0 });
        else machine.driver()?.wake();
        saidGoodbye = false;
      });
    },
    newDisk() {
      if (machine.state() === 'down') disk = emptyDisk();
    },
    setFull(now) {
      full = now;
    },
    setLiar(now) {
      liar = now;
    },
    deliver: machine.deliver,
    receive: (from, message) => machine.receive({ kind: 'message', from, message }),
    make(blob, sizeBytes) {
      if (machine.state() !== 'up') return;
      store(blob, sizeBytes, (outcome) => {
        if (outcome === 'stored') machine.deliver({ kind: 'stored', blob, sizeBytes });
      });
    },
    rot(choice) {
      const held = [...disk.blobs.values()];
      for (let i = 0; i < 1 + held.length / 10 && held.length > 0; i++) {
        (held[choice.below(held.length)] as Stored).good = false;
      }
    },
    lose(choice) {
      for (const blob of [...disk.blobs.keys()]) {
        if (choice.below(3) > 0) continue;
        disk.blobs.delete(blob);
        machine.deliver({ kind: 'gone', blob });
      }
    },
    request(request) {
      if (machine.state() === 'up') data.request(request);
    },
  };
  return node;
}
