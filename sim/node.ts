/**
 * One simulated machine: its clock, disk, blobs, runs and transfers, and the production driver with the production peer
 * on top. It can be paused, suspended, cut from power, shut down, and given another disk.
 */
import type { Outcome } from '../mesh/core/agents/messages.ts';
import type { BlobKey, NodeId } from '../mesh/core/ids.ts';
import type { Attributes, RecordSigner } from '../mesh/core/membership/records.ts';
import { createPeer, type Peer, type PeerEvent, type PeerMessage, type PeerNote } from '../mesh/core/peer.ts';
import { createRng, type Rng } from '../mesh/core/rng.ts';
import { type Driver, startDriver, type WorkEffect } from '../node/mesh/driver.ts';
import type { LogFiles } from '../node/mesh/ports.ts';
import type { RunEnd, RunEffect } from './checkers/checker.ts';
import { createClock, type SimClock } from './clock.ts';
import { createDisk, type SimDisk } from './disk.ts';
import type { Engine } from './engine.ts';
import type { MachineModel } from './plan.ts';
import type { SimAction } from './workload.ts';

export type NodeState = 'up' | 'paused' | 'suspended' | 'down';

/** One disk: the log, and which blobs are durable on it, least recently stored first. */
export interface Disk {
  readonly generation: number;
  readonly log: SimDisk;
  readonly blobs: Map<BlobKey, number>;
  full: boolean;
}

/** What a node needs of the universe around it. */
export interface NodePorts {
  readonly engine: Engine;
  readonly signer: RecordSigner;
  readonly contacts: readonly NodeId[];
  readonly shards: number;
  send(from: SimNode, to: NodeId, message: PeerMessage): void;
  /** Moves a blob, or inputs when `blob` is undefined, from another node. */
  fetch(to: SimNode, from: NodeId, blob: BlobKey | undefined, sizeBytes: number, done: (ok: boolean) => void): void;
  action(key: string): SimAction;
  /** What this node has to fetch before it can run the action. */
  inputBytes(node: SimNode, action: SimAction): number;
  blobBytes(blob: BlobKey): number;
  executionNumber(): number;
  onEffect(node: SimNode, effect: WorkEffect): void;
  onNote(node: SimNode, note: PeerNote): void;
  onRun(node: SimNode, effect: RunEffect): void;
  onRunEnd(node: SimNode, run: number, end: RunEnd): void;
  onStored(node: SimNode, blob: BlobKey): void;
  onEvicted(node: SimNode, blob: BlobKey): void;
  onBoot(node: SimNode, blank: boolean): void;
  onDown(node: SimNode): void;
}

export interface SimRun {
  readonly effect: RunEffect;
  remainingUs: number;
  runningSinceUs: number | undefined;
  frozen: boolean;
  turn: number;
}

export interface SimNode {
  readonly index: number;
  readonly id: NodeId;
  readonly model: MachineModel;
  readonly clock: SimClock;
  state(): NodeState;
  /** Undefined while the machine is down. */
  peer(): Peer | undefined;
  driver(): Driver | undefined;
  disk(): Disk;
  runs(): ReadonlyMap<number, SimRun>;
  ownerPresent(): boolean;
  liar(): boolean;
  /** Loses power just after it voted or sent entries, now and then. */
  fragile(): boolean;
  /** How often the power was cut or the process ended. */
  life(): number;
  boot(): void;
  crash(): void;
  shutdown(): void;
  pause(): void;
  suspend(): void;
  /** Ends a pause or a suspend. */
  resume(): void;
  /** Puts another disk in: a blank one, or, unless `blank`, one that was in before. */
  swapDisk(blank: boolean): void;
  setFull(full: boolean): void;
  setLiar(liar: boolean): void;
  setFragile(fragile: boolean): void;
  setOwner(present: boolean): void;
  setPower(power: Attributes['power']): void;
  move(): void;
  deliver(event: PeerEvent): void;
  receive(from: NodeId, message: PeerMessage): void;
  loseBlobs(rng: Rng): void;
}

/** Goodbyes leave the machine within this time before the process ends. */
export const shutdownUs = 200_000;

/** Messages that a paused machine's sockets hold; more are lost, as a full receive buffer loses its connection. */
const backlogMax = 20_000;

export function createSimNode(ports: NodePorts, index: number, model: MachineModel, seedRng: Rng): SimNode {
  const { engine } = ports;
  const id = nodeName(index);
  const rng = seedRng.fork(id);
  const clock = createClock(engine, rng.between(1_000, 10_000_000));
  const disks: Disk[] = [];
  const runs = new Map<number, SimRun>();
  let backlog: (() => void)[] = [];
  let state: NodeState = 'down';
  let life = 0;
  let peer: Peer | undefined;
  let driver: Driver | undefined;
  let armedUs = Number.POSITIVE_INFINITY;
  let wakeAtMs = Number.POSITIVE_INFINITY;
  let suspendedAtUs = 0;
  let ownerPresent = false;
  let power: Attributes['power'] = 'mains';
  let address = 0;
  let liar = false;
  let fragile = false;
  let disk = newDisk();

  function newDisk(): Disk {
    const generation = disks.length + 1;
    const log = createDisk(engine, rng.fork(`disk ${generation}`), { syncUsMin: 300, syncUsMax: model.syncUsMax });
    const made: Disk = { generation, log, blobs: new Map(), full: false };
    disks.push(made);
    return made;
  }

  function attributes(): Attributes {
    return {
      site: `site-${model.site}`,
      subnet: `subnet-${model.site}`,
      dataAddress: `10.${model.site}.${index}.${address}`,
      cores: model.slots,
      memoryBytes: 16_000_000_000,
      power,
      wired: model.wired,
      coordinator: model.kind === 'ci' ? 'always-on' : 'eligible',
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

  function filesOf(log: SimDisk): LogFiles {
    return {
      append: (name, text, done) => log.append(name, text, live(done)),
      sync: (name, done) => log.sync(name, live(done)),
      replace: (name, text, done) => log.replace(name, text, live(done)),
    };
  }

  function arm(): void {
    const atUs = clock.globalUs(wakeAtMs);
    if (wakeAtMs === Number.POSITIVE_INFINITY || atUs >= armedUs) return;
    armedUs = atUs;
    const mine = life;
    engine.at(atUs, () => {
      if (mine !== life || armedUs !== atUs) return;
      armedUs = Number.POSITIVE_INFINITY;
      if (state === 'up') ring();
    });
  }

  function ring(): void {
    if (clock.nowMs() < wakeAtMs) {
      arm();
      return;
    }
    wakeAtMs = Number.POSITIVE_INFINITY;
    driver?.wake();
  }

  /** Stores a blob durably; `done(false)` when the disk has no room. */
  function store(blob: BlobKey, sizeBytes: number, done: (ok: boolean) => void): void {
    const { blobs } = disk;
    if (disk.full) {
      done(false);
      return;
    }
    engine.after(
      rng.between(300, model.syncUsMax),
      live(() => {
        blobs.set(blob, sizeBytes);
        ports.onStored(node, blob);
        done(true);
      }),
    );
  }

  function startRun(effect: RunEffect): void {
    const action = ports.action(effect.key);
    const remainingUs = Math.trunc((action.durationMs * 100_000) / model.speedPercent);
    const run: SimRun = { effect, remainingUs, runningSinceUs: undefined, frozen: false, turn: 0 };
    runs.set(effect.run, run);
    ports.onRun(node, effect);
    go(run);
  }

  function go(run: SimRun): void {
    if (run.frozen || run.runningSinceUs !== undefined) return;
    run.runningSinceUs = engine.nowUs();
    run.turn += 1;
    const { turn } = run;
    engine.after(
      run.remainingUs,
      live(() => {
        if (runs.get(run.effect.run) === run && run.turn === turn && run.runningSinceUs !== undefined) finishRun(run);
      }),
    );
  }

  function halt(run: SimRun): void {
    if (run.runningSinceUs === undefined) return;
    run.remainingUs = Math.max(0, run.remainingUs - (engine.nowUs() - run.runningSinceUs));
    run.runningSinceUs = undefined;
    run.turn += 1;
  }

  function finishRun(run: SimRun): void {
    const { effect } = run;
    const action = ports.action(effect.key);
    const result = action.deterministic ? `result/${effect.key}` : `result/${effect.key}#${ports.executionNumber()}`;
    run.runningSinceUs = undefined;
    store(result, action.outputBytes, (ok) => {
      if (!runs.delete(effect.run)) return;
      ports.onRunEnd(node, effect.run, ok ? 'done' : 'failed');
      const outcome: Outcome = { result, sizeBytes: action.outputBytes };
      if (ok) driver?.deliver({ kind: 'ran', run: effect.run, outcome });
      else driver?.deliver({ kind: 'runFailed', run: effect.run, reason: 'executorFault' });
    });
  }

  const fetching = new Map<number, number>();
  const fetchingInputs = new Map<number, number>();
  let fetchTurn = 0;

  function work(effect: WorkEffect): void {
    switch (effect.kind) {
      case 'run':
        return startRun(effect);
      case 'freeze':
      case 'thaw': {
        const run = runs.get(effect.run);
        if (!run) return;
        run.frozen = effect.kind === 'freeze';
        if (run.frozen) halt(run);
        else go(run);
        return;
      }
      case 'kill':
        fetchingInputs.delete(effect.run);
        if (runs.delete(effect.run)) ports.onRunEnd(node, effect.run, 'killed');
        return;
      case 'fetchInputs': {
        const turn = ++fetchTurn;
        fetchingInputs.set(effect.run, turn);
        const done = live((ok: boolean) => {
          if (fetchingInputs.get(effect.run) !== turn) return;
          fetchingInputs.delete(effect.run);
          driver?.deliver({ kind: 'inputsFetched', run: effect.run, ok });
        });
        ports.fetch(node, effect.from, undefined, ports.inputBytes(node, ports.action(effect.key)), done);
        return;
      }
      case 'fetchOutputs': {
        const turn = ++fetchTurn;
        const { fetch, result } = effect;
        const sizeBytes = ports.blobBytes(result);
        fetching.set(fetch, turn);
        const ended = (outcome: Outcome | undefined): void => {
          if (fetching.get(fetch) !== turn) return;
          fetching.delete(fetch);
          driver?.deliver({ kind: 'outputsFetched', fetch, outcome });
        };
        const arrived = live((ok: boolean) => {
          if (!ok) ended(undefined);
          else store(result, sizeBytes, (stored) => ended(stored ? { result, sizeBytes } : undefined));
        });
        ports.fetch(node, effect.from, result, sizeBytes, arrived);
        return;
      }
      case 'stopFetch':
        fetching.delete(effect.fetch);
        return;
      case 'evict':
        disk.blobs.delete(effect.blob);
        ports.onEvicted(node, effect.blob);
        return;
      case 'note':
        ports.onNote(node, effect.note);
        return;
      case 'answer':
        ports.onEffect(node, effect);
        return;
      default:
        effect satisfies never;
    }
  }

  function slots(): PeerEvent {
    return { kind: 'slots', slots: model.slots, guests: power === 'mains', capabilities: ['os=linux'] };
  }

  function loseProcess(): void {
    life += 1;
    for (const run of [...runs.keys()]) ports.onRunEnd(node, run, 'lost');
    runs.clear();
    fetching.clear();
    fetchingInputs.clear();
    backlog = [];
    peer = undefined;
    driver = undefined;
    armedUs = Number.POSITIVE_INFINITY;
    wakeAtMs = Number.POSITIVE_INFINITY;
    state = 'down';
    ports.onDown(node);
  }

  function standStill(next: 'paused' | 'suspended'): void {
    for (const run of runs.values()) halt(run);
    state = next;
  }

  const node: SimNode = {
    index,
    id,
    model,
    clock,
    state: () => state,
    peer: () => peer,
    driver: () => driver,
    disk: () => disk,
    runs: () => runs,
    ownerPresent: () => ownerPresent,
    liar: () => liar,
    fragile: () => fragile,
    life: () => life,
    boot() {
      if (state !== 'down') return;
      state = 'up';
      const text = disk.log.read('peer.log');
      const blank = text.length === 0;
      const started = startDriver(
        {
          clock,
          alarm: {
            set(atMs) {
              wakeAtMs = atMs;
              arm();
            },
          },
          files: filesOf(disk.log),
          send: (to, message) => ports.send(node, to, message),
          work,
        },
        { text, truncate: (length) => disk.log.truncate('peer.log', length) },
        (restored, nowMs) =>
          createPeer(
            {
              self: id,
              attributes: attributes(),
              signer: ports.signer,
              rng: createRng(rng.next()),
              shards: ports.shards,
              founder: index === 0 && disk.generation === 1,
              capacityBytes: model.capacityBytes,
              held: [...disk.blobs],
            },
            restored,
            nowMs,
          ),
      );
      peer = started.peer;
      driver = started.driver;
      ports.onBoot(node, blank);
      driver.deliver({ kind: 'start', contacts: ports.contacts });
      driver.deliver(slots());
      driver.deliver({ kind: 'owner', present: ownerPresent });
    },
    crash() {
      if (state === 'down') return;
      disk.log.crash();
      loseProcess();
      clock.restart();
    },
    shutdown() {
      if (state !== 'up') return;
      driver?.deliver({ kind: 'goodbye', presence: 'left' });
      // The disk is synced by the operating system.
      const mine = life;
      engine.after(shutdownUs, () => {
        if (mine === life && state === 'up') loseProcess();
      });
    },
    pause() {
      if (state !== 'up') return;
      clock.stop();
      standStill('paused');
    },
    suspend() {
      if (state !== 'up') return;
      suspendedAtUs = clock.nowUs();
      standStill('suspended');
    },
    resume() {
      if (state !== 'paused' && state !== 'suspended') return;
      if (state === 'paused') clock.go();
      else clock.addSuspended(clock.nowUs() - suspendedAtUs);
      state = 'up';
      for (const run of runs.values()) go(run);
      const waiting = backlog;
      backlog = [];
      for (const act of waiting) act();
      armedUs = Number.POSITIVE_INFINITY;
      if (driver) driver.wake();
      arm();
    },
    swapDisk(blank) {
      if (state !== 'down') return;
      // Every second swap brings the disk before back, as it was when it was taken out.
      const shelf = disks.filter((other) => other !== disk);
      disk = !blank && shelf.length > 0 && rng.below(2) === 0 ? (shelf[rng.below(shelf.length)] as Disk) : newDisk();
    },
    setFull(full) {
      disk.full = full;
      disk.log.setFull(full);
    },
    setLiar(now) {
      liar = now;
    },
    setFragile(now) {
      fragile = now;
    },
    setOwner(present) {
      ownerPresent = present;
      live(() => driver?.deliver({ kind: 'owner', present }))();
    },
    setPower(now) {
      power = now;
      live(() => {
        driver?.deliver({ kind: 'attributes', attributes: attributes() });
        driver?.deliver(slots());
      })();
    },
    move() {
      address += 1;
      live(() => driver?.deliver({ kind: 'attributes', attributes: attributes() }))();
    },
    deliver(event) {
      live(() => driver?.deliver(event))();
    },
    receive(from, message) {
      if (state === 'up') driver?.deliver({ kind: 'message', from, message });
      else if (state === 'paused' && backlog.length < backlogMax) {
        const mine = life;
        backlog.push(() => {
          if (mine === life) driver?.deliver({ kind: 'message', from, message });
        });
      }
    },
    loseBlobs(by) {
      for (const blob of [...disk.blobs.keys()]) {
        if (by.below(3) > 0) continue;
        disk.blobs.delete(blob);
        node.deliver({ kind: 'gone', blob });
      }
    },
  };
  return node;
}

export function nodeName(index: number): NodeId {
  return `n${index < 10 ? '00' : index < 100 ? '0' : ''}${index}`;
}
