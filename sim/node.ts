/**
 * One simulated machine: its clock, disk, blobs, runs and transfers, and the production driver with the production peer
 * on top. It can be paused, suspended, cut from power, shut down, and given another disk.
 */
import type { Outcome } from '../mesh/core/agents/messages.ts';
import type { Part } from '../mesh/core/fetch/types.ts';
import type { BlobKey, NodeId } from '../mesh/core/ids.ts';
import type { MachineAttributes, RecordSigner } from '../mesh/core/membership/records.ts';
import { createPeer, type Peer, type PeerEvent, type PeerMessage, type PeerNote } from '../mesh/core/peer.ts';
import type { Ring } from '../mesh/core/providers/ring.ts';
import { createRng, type Rng } from '../mesh/core/rng.ts';
import type { Driver, WorkEffect } from '../node/mesh/driver.ts';
import type { RunEnd, RunEffect } from './checkers/checker.ts';
import type { SimClock } from './clock.ts';
import type { Holding, Reader } from './connections.ts';
import { createDataPlane } from './data-plane.ts';
import { createDisk, type SimDisk } from './disk.ts';
import type { Engine } from './engine.ts';
import { createMachine } from './machine.ts';
import type { MachineModel } from './plan.ts';
import type { SimAction } from './workload.ts';

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
  readonly ringOf: (nodes: readonly NodeId[]) => Ring;
  send(from: SimNode, to: NodeId, message: PeerMessage): void;
  /** Carries a request to a holder and its bytes back; returns how to stop it. */
  request(node: SimNode, from: NodeId, parts: readonly Part[], to: Reader): () => void;
  action(key: string): SimAction;
  /** What this node has to fetch before it can run the action: one blob, which its submitter has. */
  inputs(node: SimNode, action: SimAction): { readonly blob: BlobKey; readonly sizeBytes: number };
  readonly blobBytes: (blob: BlobKey) => number;
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
  readonly durationUs: number;
  remainingUs: number;
  runningSinceUs: number | undefined;
  frozen: boolean;
  turn: number;
}

export interface SimNode extends Holding {
  readonly id: NodeId;
  readonly model: MachineModel;
  readonly clock: SimClock;
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
  setPower(power: MachineAttributes['power']): void;
  move(): void;
  deliver(event: PeerEvent): void;
  receive(from: NodeId, message: PeerMessage): void;
  loseBlobs(rng: Rng): void;
}

/** Goodbyes leave the machine within this time before the process ends. */
export const shutdownUs = 200_000;

/** What a fetch may take; whoever asked for it gives it up before. */
const fetchBudgetMs = 60_000;
/** Uploads a second, on average: most of what the machine's own link carries. */
const uploadBytesPerSecond = { wired: 100_000_000, wifi: 20_000_000 } as const;
const uploadsMax = 32;

/** Inputs are files of the submitting machine: it serves them whether or not they are in its store. */
const inputsPrefix = 'inputs/';

export function createSimNode(ports: NodePorts, index: number, model: MachineModel, seedRng: Rng): SimNode {
  const { engine } = ports;
  const id = nodeName(index);
  const rng = seedRng.fork(id);
  const machine = createMachine<Peer>(engine, rng.between(1_000, 10_000_000));
  const { clock, live } = machine;
  const disks: Disk[] = [];
  const runs = new Map<number, SimRun>();
  /** Actions that clients here asked for. */
  const asked = new Set<string>();
  /** Fetches under way, by the number of their want. */
  const wants = new Map<number, (ok: boolean) => void>();
  const wantOfRun = new Map<number, number>();
  const wantOfFetch = new Map<number, number>();
  let nextWant = 0;
  let ownerPresent = false;
  let power: MachineAttributes['power'] = 'mains';
  let address = 0;
  let liar = false;
  let fragile = false;
  let disk = newDisk();
  const data = createDataPlane({
    engine,
    live,
    deliver: (event) => machine.driver()?.deliver(event),
    store: (blob, sizeBytes, done) => store(blob, sizeBytes, (ok) => done(ok ? 'stored' : 'noRoom')),
    holds: (blob) => (disk.blobs.has(blob) || isOwnInput(blob) ? true : undefined),
    sizeOf: ports.blobBytes,
    liar: () => liar && rng.below(2) === 0,
    request: (from, parts, to) => ports.request(node, from, parts, to),
    nodeAt: nodeName,
  });

  function isOwnInput(blob: BlobKey): boolean {
    return blob.startsWith(inputsPrefix) && asked.has(blob.slice(inputsPrefix.length).split('#', 1)[0] as string);
  }

  function newDisk(): Disk {
    const generation = disks.length + 1;
    const log = createDisk(engine, rng.fork(`disk ${generation}`), { syncUsMin: 300, syncUsMax: model.syncUsMax });
    const made: Disk = { generation, log, blobs: new Map(), full: false };
    disks.push(made);
    return made;
  }

  function attributes(): MachineAttributes {
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
    const run: SimRun = {
      effect,
      durationUs: remainingUs,
      remainingUs,
      runningSinceUs: undefined,
      frozen: false,
      turn: 0,
    };
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
    const result = resultOf(effect.key, action.deterministic ? undefined : ports.executionNumber());
    run.runningSinceUs = undefined;
    store(result, action.outputBytes, (ok) => {
      if (!runs.delete(effect.run)) return;
      ports.onRunEnd(node, effect.run, ok ? 'done' : 'failed');
      const outcome: Outcome = { result, sizeBytes: action.outputBytes, cacheable: !action.fails };
      const runMs = Math.trunc(run.durationUs / 1_000);
      if (ok) machine.driver()?.deliver({ kind: 'ran', run: effect.run, outcome, runMs });
      else machine.driver()?.deliver({ kind: 'runFailed', run: effect.run, reason: 'executorFault' });
    });
  }

  /** Has a blob brought here by the peer's own planner, beginning with the machine that is likely to have it. */
  function bring(blob: BlobKey, sizeBytes: number, from: NodeId, done: (ok: boolean) => void): number {
    nextWant += 1;
    const want = nextWant;
    wants.set(want, done);
    soon(() => {
      if (!wants.has(want)) return;
      if (sizeBytes === 0 || disk.blobs.has(blob)) brought(want, true);
      else {
        const wanted = { want, blob, sizeBytes, budgetMs: fetchBudgetMs, hints: [from] };
        machine.driver()?.deliver({ kind: 'want', wants: [wanted] });
      }
    });
    return want;
  }

  function brought(want: number, ok: boolean): void {
    const done = wants.get(want);
    wants.delete(want);
    done?.(ok);
  }

  function giveUp(want: number | undefined): void {
    if (want === undefined || !wants.delete(want)) return;
    soon(() => machine.driver()?.deliver({ kind: 'unwant', want }));
  }

  /** After the step that is under way: a peer is never entered twice. */
  function soon(act: () => void): void {
    engine.after(0, live(act));
  }

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
        giveUp(wantOfRun.get(effect.run));
        wantOfRun.delete(effect.run);
        if (runs.delete(effect.run)) ports.onRunEnd(node, effect.run, 'killed');
        return;
      case 'fetchInputs': {
        const { run, from, key } = effect;
        const { blob, sizeBytes } = ports.inputs(node, ports.action(key));
        const ended = (ok: boolean): void => {
          wantOfRun.delete(run);
          machine.driver()?.deliver({ kind: 'inputsFetched', run, ok });
        };
        wantOfRun.set(run, bring(blob, sizeBytes, from, ended));
        return;
      }
      case 'fetchOutputs': {
        const { fetch, from, result } = effect;
        const sizeBytes = ports.blobBytes(result);
        const cacheable = !ports.action(keyOf(result)).fails;
        const ended = (ok: boolean): void => {
          wantOfFetch.delete(fetch);
          const outcome = ok ? { result, sizeBytes, cacheable } : undefined;
          machine.driver()?.deliver({ kind: 'outputsFetched', fetch, outcome });
        };
        wantOfFetch.set(fetch, bring(result, sizeBytes, from, ended));
        return;
      }
      case 'stopFetch':
        giveUp(wantOfFetch.get(effect.fetch));
        wantOfFetch.delete(effect.fetch);
        return;
      case 'fetched':
        return soon(() => brought(effect.want, true));
      case 'failed':
        return soon(() => brought(effect.want, false));
      case 'transfer':
      case 'cancelTransfer':
      case 'assemble':
      case 'discard':
      case 'serve':
      case 'refuse':
        return data.perform(effect);
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
      // Nobody here asks for the others: no tier pins, reserves, looks up or secures, and no client reads stages.
      default:
        return;
    }
  }

  function slots(): PeerEvent {
    const { slots: all } = model;
    return { kind: 'slots', slots: all, guests: power === 'mains', guestSlots: all, capabilities: ['os=linux'] };
  }

  function loseProcess(): void {
    for (const run of [...runs.keys()]) ports.onRunEnd(node, run, 'lost');
    runs.clear();
    wants.clear();
    wantOfRun.clear();
    wantOfFetch.clear();
    data.end();
    machine.end();
    ports.onDown(node);
  }

  function standStill(as: 'paused' | 'suspended'): void {
    if (machine.state() !== 'up') return;
    for (const run of runs.values()) halt(run);
    machine.standStill(as);
  }

  const node: SimNode = {
    index,
    id,
    model,
    clock,
    state: machine.state,
    peer: machine.peer,
    driver: machine.driver,
    disk: () => disk,
    runs: () => runs,
    ownerPresent: () => ownerPresent,
    liar: () => liar,
    fragile: () => fragile,
    life: machine.life,
    boot() {
      if (machine.state() !== 'down') return;
      const blank = disk.log.read('peer.log').length === 0;
      machine.boot(disk.log, { send: (to, message) => ports.send(node, to, message), work }, (restored, nowMs) =>
        createPeer(
          {
            self: id,
            attributes: attributes(),
            signer: ports.signer,
            rng: createRng(rng.next()),
            ringOf: ports.ringOf,
            shards: ports.shards,
            founder: index === 0 && disk.generation === 1,
            capacityBytes: model.capacityBytes,
            held: [...disk.blobs],
            uploadBytesPerSecond: uploadBytesPerSecond[model.wired ? 'wired' : 'wifi'],
            uploadsMax,
            holds: () => [],
          },
          restored,
          nowMs,
        ),
      );
      ports.onBoot(node, blank);
      machine.deliver({ kind: 'start', contacts: ports.contacts });
      machine.deliver(slots());
      machine.deliver({ kind: 'owner', present: ownerPresent });
    },
    crash() {
      if (machine.state() === 'down') return;
      disk.log.crash();
      loseProcess();
      clock.restart();
    },
    shutdown() {
      if (machine.state() !== 'up') return;
      machine.deliver({ kind: 'goodbye', presence: 'left' });
      // The disk is synced by the operating system.
      const mine = machine.life();
      engine.after(shutdownUs, () => {
        if (mine === machine.life() && machine.state() === 'up') loseProcess();
      });
    },
    pause: () => standStill('paused'),
    suspend: () => standStill('suspended'),
    resume() {
      if (machine.state() !== 'paused' && machine.state() !== 'suspended') return;
      for (const run of runs.values()) go(run);
      machine.goOn(() => machine.driver()?.wake());
    },
    swapDisk(blank) {
      if (machine.state() !== 'down') return;
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
      machine.deliver({ kind: 'owner', present });
    },
    setPower(now) {
      power = now;
      live(() => {
        machine.driver()?.deliver({ kind: 'attributes', attributes: attributes() });
        machine.driver()?.deliver(slots());
      })();
    },
    move() {
      address += 1;
      live(() => machine.driver()?.deliver({ kind: 'attributes', attributes: attributes() }))();
    },
    deliver(event) {
      if (event.kind === 'execute') asked.add(event.item.key);
      machine.deliver(event);
    },
    receive: (from, message) => machine.receive({ kind: 'message', from, message }),
    request(request) {
      if (machine.state() === 'up') data.request(request);
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

/** What an action's result is called; `execution` tells apart the results of one that differ. */
export function resultOf(key: string, execution?: string | number): BlobKey {
  return execution === undefined ? `result/${key}` : `result/${key}#${execution}`;
}

/** The action that a result is of. */
export function keyOf(result: BlobKey): string {
  return result.slice('result/'.length).split('#', 1)[0] as string;
}

/** What an action needs of its submitter; `whose` tells apart what several machines lack of it. */
export function inputsOf(key: string, whose?: number): BlobKey {
  return whose === undefined ? `${inputsPrefix}${key}` : `${inputsPrefix}${key}#${whose}`;
}
