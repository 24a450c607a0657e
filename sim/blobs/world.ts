/** Runs one seed of the world of blobs: chaos, healing, and then everything that can be found is asked for. */
import { hashText } from '../../mesh/core/hash.ts';
import type { BlobKey } from '../../mesh/core/ids.ts';
import { createRing, type Ring } from '../../mesh/core/providers/ring.ts';
import { createRng, type Rng } from '../../mesh/core/rng.ts';
import { createConnections } from '../connections.ts';
import { createEngine } from '../engine.ts';
import { createNetwork } from '../network.ts';
import { createBandwidth } from '../bandwidth.ts';
import { blobCheckers } from './checkers/all.ts';
import type { BlobChecker, BlobWorld, Reading, ReadingEnd } from './checkers/checker.ts';
import { type BlobNode, type BlobPorts, type BlobWork, blobNodeName, createBlobNode } from './node.ts';
import { type BlobFault, type BlobPlanOptions, drawBlobPlan, type Making } from './plan.ts';
import { createBlobSigner } from './signer.ts';

export interface BlobRunOptions extends BlobPlanOptions {
  /** Prints the timeline. */
  readonly trace?: (line: string) => void;
}

export interface BlobRunReport {
  readonly seed: number;
  readonly nodes: number;
  readonly simulatedMs: number;
  readonly events: number;
  readonly messages: number;
  readonly bytes: number;
  readonly faults: number;
  readonly blobs: number;
  readonly answers: { readonly [end: string]: number };
  readonly observed: { readonly [checker: string]: number };
  readonly sometimes: { readonly [name: string]: number };
  readonly traceHash: string;
  readonly violation: { readonly checker: string; readonly atMs: number; readonly reason: string } | undefined;
}

/** Thrown by a checker to end the run. */
class Broken extends Error {}

const asksAfterHealing = 150;

export function runBlobs(options: BlobRunOptions): BlobRunReport {
  const plan = drawBlobPlan(options);
  const rng = createRng(plan.seed).fork('world');
  const engine = createEngine();
  const count = plan.machines.length;
  const nodes: BlobNode[] = [];
  const indexOf = new Map(plan.machines.map((_, index) => [blobNodeName(index), index]));
  const siteOf = (index: number): number => plan.machines[index]?.site as number;
  const network = createNetwork(engine, rng.fork('network'), count, {
    lossPerMillion: plan.lossPerMillion,
    duplicatePerMillion: 0,
    stragglePerMillion: 1_000,
    classOf: (from, to) =>
      siteOf(from) !== siteOf(to)
        ? 'vpn'
        : plan.machines[from]?.wired === true && plan.machines[to]?.wired === true
          ? 'wired'
          : 'wifi',
  });
  const slow = new Map<number, number>();
  const up = plan.machines.map(({ upBytesPerMs }) => upBytesPerMs);
  const bandwidth = createBandwidth(engine, {
    up,
    down: plan.machines.map(({ downBytesPerMs }) => downBytesPerMs),
    site: plan.machines.map(({ site }) => site),
    pipe: plan.pipeBytesPerMs,
    open: (from, to) => network.open(from, to) && network.open(to, from) && nodes[from]?.state() === 'up',
  });
  const rings = new Map<string, Ring>();
  const sizes = new Map<BlobKey, number>();
  const readings = new Map<number, Reading>();
  const finds = new Map<number, { asker: BlobNode; holders: Map<BlobKey, BlobNode[]> }>();
  const offended = new Set<number>();
  const answers: { [end: string]: number } = {};
  const checkers: BlobChecker[] = [];
  const faultRng = rng.fork('faults');
  let violation: BlobRunReport['violation'];
  let wants = 0;
  let made = 0;
  let bytes = 0;
  let faults = 0;
  const nowMs = (): number => Math.trunc(engine.nowUs() / 1_000);
  const trace = options.trace;

  const world: BlobWorld = {
    plan,
    nodes,
    nowMs,
    offended: (node) => offended.has(node.index),
    holders: (blob) => nodes.filter((node) => node.state() === 'up' && node.disk().blobs.get(blob)?.good === true),
  };

  const ports: BlobPorts = {
    engine,
    signer: createBlobSigner(),
    contacts: Array.from({ length: Math.min(3, count) }, (_, i) => blobNodeName(i)),
    ringOf(names) {
      const key = names.join();
      let ring = rings.get(key);
      if (!ring) rings.set(key, (ring = createRing(names, plan.seed)));
      return ring;
    },
    send(from, toId, message) {
      const to = indexOf.get(toId);
      if (to === undefined) return;
      network.send(from.index, to, () => {
        engine.note(engine.nowUs(), from.index * 1_024 + to, hashText(message.kind));
        const receiver = nodes[to] as BlobNode;
        if (receiver.state() !== 'down') network.heard(to, from.index);
        receiver.receive(from.id, message);
      });
    },
    request: (node, fromId, parts, to) =>
      connections.request(node.index, nodes[indexOf.get(fromId) as number] as BlobNode, parts, to),
    onWork,
    onStored(node, blob) {
      for (const check of checkers) check.onStored?.(node, blob);
    },
  };

  const connections = createConnections({
    engine,
    open: network.open,
    latencyUs: (reader, holder) => rng.between(200, siteOf(reader) === siteOf(holder) ? 3_000 : 40_000),
    flow: bandwidth.start,
    onSent(holder, reader, parts, moved) {
      bytes += moved;
      const [from, to] = [nodes[holder], nodes[reader]] as [BlobNode, BlobNode];
      for (const check of checkers) check.onSent?.(from, to, parts, moved);
    },
  });

  function onWork(node: BlobNode, effect: BlobWork): void {
    if (trace && effect.kind !== 'serve') trace(`${nowMs()} ${node.id} ${describe(effect)}`);
    for (const check of checkers) check.onWork?.(node, effect);
    if (effect.kind === 'fetched') endReading(effect.want, 'fetched');
    else if (effect.kind === 'failed') endReading(effect.want, effect.reason);
    else if (effect.kind === 'found') {
      const find = finds.get(effect.find);
      for (const found of effect.found) {
        const holders = find?.holders.get(found.blob);
        if (find && holders) for (const check of checkers) check.onFound?.(find.asker, found, holders);
      }
    }
  }

  function endReading(want: number, end: ReadingEnd): void {
    const reading = readings.get(want);
    readings.delete(want);
    if (!reading) return;
    answers[end] = (answers[end] ?? 0) + 1;
    engine.note(engine.nowUs(), want, hashText(end));
    for (const check of checkers) check.onReadEnd?.(reading, end);
  }

  function read(node: BlobNode, blobs: readonly BlobKey[], budgetMs: number, hints: readonly number[]): void {
    if (node.state() !== 'up') return;
    const list = blobs
      .filter((blob) => !node.disk().blobs.has(blob))
      .map((blob) => {
        wants += 1;
        const reading: Reading = {
          node,
          blob,
          sizeBytes: sizes.get(blob) as number,
          budgetMs,
          askedAtMs: node.clock.nowMs(),
          life: node.life(),
          stops: node.stops(),
        };
        readings.set(wants, reading);
        for (const check of checkers) check.onRead?.(reading);
        return { want: wants, blob, sizeBytes: reading.sizeBytes, budgetMs, hints: hints.map(blobNodeName) };
      });
    if (list.length > 0) node.deliver({ kind: 'want', wants: list });
  }

  function make(making: Making): void {
    const node = nodes[making.node] as BlobNode;
    if (node.state() !== 'up') return;
    const blobs = making.sizesBytes.map((sizeBytes) => {
      made += 1;
      const blob = blobNamed(plan.seed, made, sizeBytes);
      sizes.set(blob, sizeBytes);
      node.make(blob, sizeBytes);
      return blob;
    });
    if (making.stampede) for (const check of checkers) check.onStampede?.(making, blobs[0] as BlobKey);
    for (const { node: reader, afterMs, budgetMs } of making.readers) {
      const act = (): void => read(nodes[reader] as BlobNode, blobs, budgetMs, making.hinted ? [making.node] : []);
      engine.after((10 + afterMs) * 1_000, act);
      // Two actions of one build that have an input in common.
      engine.after((12 + afterMs) * 1_000, act);
    }
  }

  function apply(fault: BlobFault): void {
    faults += 1;
    const { forMs } = fault;
    const [index = 0, other = 0] = fault.nodes;
    const node = nodes[index] as BlobNode;
    trace?.(`${nowMs()} fault ${fault.kind} for ${forMs} ms on ${fault.nodes.map(blobNodeName).join(' ')}`);
    for (const check of checkers) check.onFault?.(fault);
    const later = (act: () => void): void => engine.after(forMs * 1_000, act);
    const block = (pairs: readonly (readonly [number, number])[]): void => {
      for (const [from, to] of pairs) network.block(from, to, true);
      later(() => {
        for (const [from, to] of pairs) network.block(from, to, false);
        bandwidth.refresh();
      });
    };
    switch (fault.kind) {
      case 'pause':
        node.pause();
        later(() => node.resume());
        break;
      case 'suspend':
        node.suspend(faultRng.below(2) === 0);
        later(() => node.resume());
        break;
      case 'lid':
        for (const each of fault.nodes) (nodes[each] as BlobNode).suspend(true);
        later(() => {
          for (const each of fault.nodes) (nodes[each] as BlobNode).resume();
        });
        break;
      case 'crash':
      case 'newDisk':
        node.crash();
        connections.break((_, holder) => holder === index);
        if (fault.kind === 'newDisk') node.newDisk();
        later(() => node.boot());
        break;
      case 'split': {
        const side = new Set(fault.nodes);
        const pairs = nodes.flatMap((_, a) =>
          nodes.flatMap((__, b) => (side.has(a) !== side.has(b) ? [[a, b] as const] : [])),
        );
        block(pairs);
        break;
      }
      case 'cut':
        block([
          [index, other],
          [other, index],
        ]);
        break;
      case 'loss':
        network.setLoss(faultRng.between(50_000, 400_000));
        later(() => network.setLoss(plan.lossPerMillion));
        break;
      case 'reset':
        network.reset(index, faultRng.below(count));
        connections.break((reader, holder) => reader === index || holder === index);
        break;
      case 'liar':
        offended.add(index);
        node.setLiar(true);
        later(() => node.setLiar(false));
        break;
      case 'bitRot':
        offended.add(index);
        node.rot(faultRng);
        break;
      case 'blobsLost':
        node.lose(faultRng);
        break;
      case 'slow': {
        const full = plan.machines[index]?.upBytesPerMs as number;
        slow.set(index, (slow.get(index) ?? 0) + 1);
        up[index] = Math.max(1, Math.trunc(full / 500));
        later(() => {
          slow.set(index, (slow.get(index) as number) - 1);
          if (slow.get(index) === 0) up[index] = full;
          bandwidth.refresh();
        });
        break;
      }
      case 'diskFull':
        node.setFull(true);
        later(() => node.setFull(false));
        break;
      default:
        fault.kind satisfies never;
    }
    bandwidth.refresh();
  }

  function heal(): void {
    trace?.(`${nowMs()} healed`);
    network.heal();
    for (const node of nodes) {
      node.setLiar(false);
      node.setFull(false);
      node.resume();
      node.boot();
      up[node.index] = node.model.upBytesPerMs;
    }
    bandwidth.refresh();
  }

  /** Somebody who has it not asks for each of many blobs that are somewhere. */
  function askForEverything(choice: Rng): void {
    const all = [...sizes.keys()];
    for (let i = 0; i < asksAfterHealing && all.length > 0; i++) {
      const [blob] = all.splice(choice.below(all.length), 1) as [BlobKey];
      const atMs = choice.below(plan.askMs - 25_000);
      engine.after(atMs * 1_000, () => {
        const holders = world.holders(blob);
        const others = nodes.filter((node) => !node.disk().blobs.has(blob));
        if (holders.length === 0 || others.length === 0) return;
        const asker = others[choice.below(others.length)] as BlobNode;
        finds.set(i + 1, { asker, holders: new Map([[blob, holders]]) });
        asker.deliver({ kind: 'find', find: i + 1, blobs: [blob] });
        // Those that a slow link carries in time.
        if ((sizes.get(blob) as number) < 200_000) engine.after(1_000_000, () => read(asker, [blob], 20_000, []));
      });
    }
  }

  for (const factory of blobCheckers) {
    const checker: BlobChecker = factory(world, (reason): never => {
      violation ??= { checker: checker.name, atMs: nowMs(), reason };
      throw new Broken(reason);
    });
    checkers.push(checker);
  }
  const machineRng = rng.fork('nodes');
  for (const [index, model] of plan.machines.entries()) nodes.push(createBlobNode(ports, index, model, machineRng));

  try {
    for (const node of nodes) engine.at(node.index * 30_000, () => node.boot());
    for (const fault of plan.faults) engine.at(fault.atMs * 1_000, () => apply(fault));
    for (const { node, atMs } of plan.retired) {
      engine.at(atMs * 1_000, () => {
        nodes[node]?.retire();
        connections.break((_, holder) => holder === node);
      });
    }
    for (const making of plan.makings) engine.at(making.atMs * 1_000, () => make(making));
    engine.at(plan.chaosMs * 1_000, heal);
    engine.at((plan.chaosMs + plan.settleMs) * 1_000, () => askForEverything(rng.fork('asks')));
    const second = (): void => {
      for (const check of checkers) check.onSecond?.();
      engine.after(1_000_000, second);
    };
    engine.after(1_000_500, second);
    engine.runUntil((plan.chaosMs + plan.settleMs + plan.askMs) * 1_000);
    for (const check of checkers) check.onEnd?.();
  } catch (error) {
    if (!(error instanceof Broken)) {
      // An assertion of a machine is a broken invariant like any other.
      const reason = error instanceof Error ? (error.stack ?? error.message) : String(error);
      violation = { checker: 'assertions', atMs: nowMs(), reason };
    }
  }

  const sometimes: { [name: string]: number } = {};
  for (const checker of checkers) Object.assign(sometimes, checker.sometimes?.());
  return {
    seed: plan.seed,
    nodes: count,
    simulatedMs: nowMs(),
    events: engine.events(),
    messages: network.counts.sent,
    bytes,
    faults,
    blobs: made,
    answers,
    observed: Object.fromEntries(checkers.map((checker) => [checker.name, checker.observed()])),
    sometimes,
    traceHash: engine.traceHash(),
    violation,
  };
}

/** A blob's name: 64 hexadecimal digits drawn from the seed, as if they were a hash. */
function blobNamed(seed: number, number: number, sizeBytes: number): BlobKey {
  const digits = createRng(hashText(`${seed} ${number}`));
  const words = Array.from({ length: 8 }, () => digits.next().toString(16).padStart(8, '0'));
  return `sha256/${words.join('')}/${sizeBytes}`;
}

function describe(effect: BlobWork): string {
  return JSON.stringify(effect, (key, value: unknown) =>
    key === 'blob' && typeof value === 'string' ? `${value.slice(7, 15)}/${value.slice(72)}` : value,
  );
}
