/**
 * One simulated machine that shares blobs: its clock, disk and transfers, and the production driver with the production
 * machines on top. What it stores may rot; while it lies it sends other bytes than it says.
 */
import type { Part, PartOutcome, TransferOutcome } from '../../mesh/core/fetch/types.ts';
import type { BlobKey, NodeId } from '../../mesh/core/ids.ts';
import type { Attributes, RecordSigner } from '../../mesh/core/membership/records.ts';
import type { Ring } from '../../mesh/core/providers/ring.ts';
import { createRng, type Rng } from '../../mesh/core/rng.ts';
import { createSharing, type Sharing } from '../../mesh/core/sharing.ts';
import type { SharingEffect, SharingEvent, SharingMessage } from '../../mesh/core/sharing-types.ts';
import { type Driver, startDriver } from '../../node/mesh/driver.ts';
import type { LogFiles } from '../../node/mesh/ports.ts';
import { createClock, type SimClock } from '../clock.ts';
import { createDisk, type SimDisk } from '../disk.ts';
import type { Engine } from '../engine.ts';
import type { BlobMachine } from './plan.ts';

export type BlobNodeState = 'up' | 'paused' | 'suspended' | 'down';
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

/** A request at the serving side, as the network sees it. */
export interface Request {
  readonly from: number;
  readonly to: number;
  readonly parts: readonly Part[];
  /** Bytes begin to flow; `cancelled` ones never do. */
  answered(answer: RequestAnswer): void;
}

export type RequestAnswer =
  | {
      readonly kind: 'serve';
      readonly parts: readonly { readonly part: Part; readonly has: 'good' | 'bad' | 'absent' }[];
      readonly sent: (bytes: number) => void;
    }
  | { readonly kind: 'busy'; readonly tryNodes: readonly NodeId[]; readonly retryAfterMs: number };

export interface BlobPorts {
  readonly engine: Engine;
  readonly signer: RecordSigner;
  readonly contacts: readonly NodeId[];
  readonly ringOf: (nodes: readonly NodeId[]) => Ring;
  send(from: BlobNode, to: NodeId, message: SharingMessage): void;
  /** Carries a request to a holder and its bytes back; returns how to stop it. */
  transfer(
    node: BlobNode,
    from: NodeId,
    parts: readonly Part[],
    progress: (receivedBytes: number) => void,
    part: (part: Part, has: 'good' | 'bad' | 'absent') => void,
    ended: (outcome: TransferOutcome) => void,
  ): () => void;
  onWork(node: BlobNode, effect: BlobWork): void;
  onStored(node: BlobNode, blob: BlobKey): void;
}

export interface BlobNode {
  readonly index: number;
  readonly id: NodeId;
  readonly model: BlobMachine;
  readonly clock: SimClock;
  state(): BlobNodeState;
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
  const clock = createClock(engine, rng.between(1_000, 10_000_000));
  let state: BlobNodeState = 'down';
  let life = 0;
  let stops = 0;
  let bootedAtMs = 0;
  let disks = 0;
  let full = false;
  let liar = false;
  let retired = false;
  let driver: Driver<Sharing> | undefined;
  let sharing: Sharing | undefined;
  let backlog: (() => void)[] = [];
  let suspendedAtUs = 0;
  let saidGoodbye = false;
  let wakeAtMs = Number.POSITIVE_INFINITY;
  let armedUs = Number.POSITIVE_INFINITY;
  /** Ranges at hand of blobs that are still arriving, by offset: whether the bytes are right. */
  const arriving = new Map<BlobKey, Map<number, boolean>>();
  const stopTransfer = new Map<number, () => void>();
  const requests = new Map<number, Request>();
  let nextUpload = 0;
  let disk = emptyDisk();

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
    };
  }

  /** Wraps a callback into this life of the machine: dropped after a crash, put off while it stands still. */
  function live<A extends unknown[]>(act: (...args: A) => void): (...args: A) => void {
    const mine = life;
    return (...args) => {
      if (mine !== life || state === 'down') return;
      if (state === 'up') act(...args);
      else backlog.push(() => act(...args));
    };
  }

  function arm(): void {
    if (wakeAtMs === Number.POSITIVE_INFINITY) return;
    const atUs = clock.globalUs(wakeAtMs);
    if (atUs >= armedUs) return;
    armedUs = atUs;
    const mine = life;
    engine.at(atUs, () => {
      if (mine !== life || armedUs !== atUs) return;
      armedUs = Number.POSITIVE_INFINITY;
      if (state !== 'up') return;
      if (clock.nowMs() < wakeAtMs) arm();
      else {
        wakeAtMs = Number.POSITIVE_INFINITY;
        driver?.wake();
      }
    });
  }

  /** Puts a blob on the disk; `done` says what became of it. The machines hear of it by what they asked for. */
  function store(blob: BlobKey, sizeBytes: number, good: boolean, done: (outcome: 'stored' | 'noRoom') => void): void {
    const { blobs } = disk;
    engine.after(
      rng.between(200, 4_000),
      live(() => {
        const freeBytes = sharing?.promises.freeBytes() ?? 0;
        if (full || sizeBytes > freeBytes) return done('noRoom');
        blobs.set(blob, { sizeBytes, good });
        ports.onStored(node, blob);
        done('stored');
      }),
    );
  }

  function startTransfer(effect: Extract<BlobWork, { kind: 'transfer' }>): void {
    const { transfer, from, parts } = effect;
    const report = (part: Part, outcome: PartOutcome): void =>
      driver?.deliver({ kind: 'part', transfer, blob: part.blob, outcome });
    let storing = 0;
    let over: TransferOutcome | undefined;
    const end = (): void => {
      if (!over || storing > 0 || !stopTransfer.delete(transfer)) return;
      driver?.deliver({ kind: 'ended', transfer, outcome: over });
    };
    const stop = ports.transfer(
      node,
      from,
      parts,
      live((receivedBytes: number) => {
        if (stopTransfer.has(transfer)) driver?.deliver({ kind: 'progress', transfer, receivedBytes });
      }),
      live((part: Part, has: 'good' | 'bad' | 'absent') => {
        if (!stopTransfer.has(transfer)) return;
        if (has === 'absent') return report(part, 'absent');
        if (!part.whole) {
          const ranges = arriving.get(part.blob) ?? new Map<number, boolean>();
          arriving.set(part.blob, ranges);
          if (!ranges.has(part.offset)) ranges.set(part.offset, has === 'good');
          return report(part, 'arrived');
        }
        // The receiver checks while it reads: wrong bytes never become visible.
        if (has === 'bad') return report(part, 'wrong');
        storing += 1;
        store(part.blob, part.lengthBytes, true, (outcome) => {
          storing -= 1;
          if (stopTransfer.has(transfer)) report(part, outcome);
          else if (outcome === 'stored')
            driver?.deliver({ kind: 'stored', blob: part.blob, sizeBytes: part.lengthBytes });
          end();
        });
      }),
      live((outcome: TransferOutcome) => {
        over = outcome;
        end();
      }),
    );
    stopTransfer.set(transfer, stop);
  }

  function assemble(blob: BlobKey): void {
    const ranges = arriving.get(blob);
    arriving.delete(blob);
    const sizeBytes = Number(blob.slice(blob.lastIndexOf('/') + 1));
    if (![...(ranges ?? new Map([[0, false]])).values()].every((good) => good)) {
      engine.after(
        1_000,
        live(() => driver?.deliver({ kind: 'assembled', blob, outcome: 'wrong' })),
      );
      return;
    }
    store(blob, sizeBytes, true, (outcome) => driver?.deliver({ kind: 'assembled', blob, outcome }));
  }

  function has(part: Part): 'good' | 'bad' | 'absent' {
    const stored = disk.blobs.get(part.blob);
    const good = stored ? stored.good : part.whole ? undefined : arriving.get(part.blob)?.get(part.offset);
    if (good === undefined) return 'absent';
    return good && !liar ? 'good' : 'bad';
  }

  function work(effect: BlobWork): void {
    ports.onWork(node, effect);
    switch (effect.kind) {
      case 'transfer':
        return startTransfer(effect);
      case 'cancelTransfer':
        stopTransfer.get(effect.transfer)?.();
        stopTransfer.delete(effect.transfer);
        return;
      case 'assemble':
        return assemble(effect.blob);
      case 'discard':
        arriving.delete(effect.blob);
        return;
      case 'evict':
        disk.blobs.delete(effect.blob);
        return;
      case 'serve': {
        const { upload } = effect;
        const request = requests.get(upload);
        requests.delete(upload);
        request?.answered({
          kind: 'serve',
          parts: request.parts.map((part) => ({ part, has: has(part) })),
          sent: live((sentBytes: number) => driver?.deliver({ kind: 'sent', upload, sentBytes })),
        });
        return;
      }
      case 'refuse': {
        const request = requests.get(effect.upload);
        requests.delete(effect.upload);
        request?.answered({ kind: 'busy', tryNodes: effect.tryNodes, retryAfterMs: effect.retryAfterMs });
        return;
      }
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

  function loseProcess(): void {
    life += 1;
    for (const stop of stopTransfer.values()) stop();
    stopTransfer.clear();
    requests.clear();
    arriving.clear();
    backlog = [];
    driver = undefined;
    sharing = undefined;
    wakeAtMs = Number.POSITIVE_INFINITY;
    armedUs = Number.POSITIVE_INFINITY;
    state = 'down';
  }

  const node: BlobNode = {
    index,
    id,
    model,
    clock,
    state: () => state,
    sharing: () => sharing,
    disk: () => disk,
    liar: () => liar,
    life: () => life,
    bootedAtMs: () => bootedAtMs,
    stops: () => stops,
    boot() {
      if (state !== 'down' || retired) return;
      state = 'up';
      bootedAtMs = Math.trunc(engine.nowUs() / 1_000);
      const { log } = disk;
      const files: LogFiles = {
        append: (name, text, done) => log.append(name, text, live(done)),
        sync: (name, done) => log.sync(name, live(done)),
        replace: (name, text, done) => log.replace(name, text, live(done)),
      };
      const started = startDriver<Sharing>(
        {
          clock,
          alarm: {
            set(atMs) {
              wakeAtMs = atMs;
              arm();
            },
          },
          files,
          send: (to, message) => ports.send(node, to, message as SharingMessage),
          work,
        },
        { text: log.read('peer.log'), truncate: (length) => log.truncate('peer.log', length) },
        (restored, nowMs) =>
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
      sharing = started.peer;
      driver = started.driver;
      driver.deliver({ kind: 'start', contacts: ports.contacts });
    },
    crash() {
      if (state === 'down') return;
      stops += 1;
      disk.log.crash();
      loseProcess();
      clock.restart();
    },
    retire() {
      node.crash();
      retired = true;
    },
    suspend(goodbye) {
      if (state !== 'up') return;
      saidGoodbye = goodbye;
      if (goodbye) driver?.deliver({ kind: 'goodbye', presence: 'suspended' });
      stops += 1;
      suspendedAtUs = clock.nowUs();
      state = 'suspended';
    },
    pause() {
      if (state !== 'up') return;
      stops += 1;
      clock.stop();
      state = 'paused';
    },
    resume() {
      if (state !== 'paused' && state !== 'suspended') return;
      if (state === 'paused') clock.go();
      else clock.addSuspended(clock.nowUs() - suspendedAtUs);
      state = 'up';
      const waiting = backlog;
      backlog = [];
      for (const act of waiting) act();
      armedUs = Number.POSITIVE_INFINITY;
      // A sleep too short for a gap on the clock still ends what was announced.
      if (saidGoodbye) driver?.deliver({ kind: 'gap', gapMs: 0 });
      else driver?.wake();
      saidGoodbye = false;
      arm();
    },
    newDisk() {
      if (state === 'down') disk = emptyDisk();
    },
    setFull(now) {
      full = now;
    },
    setLiar(now) {
      liar = now;
    },
    deliver(event) {
      live(() => driver?.deliver(event))();
    },
    receive(from, message) {
      if (state === 'up') driver?.deliver({ kind: 'message', from, message });
    },
    make(blob, sizeBytes) {
      if (state !== 'up') return;
      store(blob, sizeBytes, true, (outcome) => {
        if (outcome === 'stored') driver?.deliver({ kind: 'stored', blob, sizeBytes });
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
        live(() => driver?.deliver({ kind: 'gone', blob }))();
      }
    },
    request(request) {
      if (state !== 'up') return;
      nextUpload += 1;
      requests.set(nextUpload, request);
      driver?.deliver({ kind: 'asked', upload: nextUpload, to: blobNodeName(request.to), parts: request.parts });
    },
  };
  return node;
}
