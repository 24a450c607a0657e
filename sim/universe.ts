/**
 * One run: the plan's machines on one engine, its faults, its clients and all checkers; first chaos, in which only safety
 * is asked for, then healing, after which everything must come to an end.
 */
import type { Answer, ExecuteItem } from '../mesh/core/agents/submitter/types.ts';
import type { NodeId, RequestId } from '../mesh/core/ids.ts';
import type { MemberRecord, RecordSigner } from '../mesh/core/membership/records.ts';
import { createRing, type Ring } from '../mesh/core/providers/ring.ts';
import { createRng, type Rng } from '../mesh/core/rng.ts';
import { shardOf } from '../mesh/core/shards/placement.ts';
import type { WorkEffect } from '../node/mesh/driver.ts';
import { createAuditor } from './auditor.ts';
import type { Checker, CheckerFactory, World } from './checkers/checker.ts';
import { createClients } from './clients.ts';
import { createConnections } from './connections.ts';
import { createEngine, type Engine } from './engine.ts';
import { applyFault, type FaultContext, isBadMoment } from './faults.ts';
import { tamper } from './liar.ts';
import { createNetwork, type LinkClass, type Network } from './network.ts';
import { createSimNode, inputsOf, keyOf, nodeName, type NodePorts, type SimNode } from './node.ts';
import type { Fault, FaultKind, Plan } from './plan.ts';
import { drawFinalBuilds, type SimAction } from './workload.ts';

export interface Violation {
  readonly checker: string;
  readonly atMs: number;
  readonly reason: string;
}

export interface RunReport {
  readonly seed: number;
  readonly nodes: number;
  readonly simulatedMs: number;
  readonly events: number;
  readonly messages: number;
  readonly delivered: number;
  readonly bytes: number;
  readonly actions: number;
  readonly answers: { readonly [source: string]: number };
  readonly executions: number;
  readonly faults: number;
  readonly faultKinds: { readonly [K in FaultKind]?: number };
  /** What each checker observed. */
  readonly observed: { readonly [checker: string]: number };
  /** How often each "sometimes" happened. */
  readonly sometimes: { readonly [name: string]: number };
  readonly violation: Violation | undefined;
  readonly traceHash: string;
}

export interface RunOptions {
  readonly checkers: readonly CheckerFactory[];
  /** Gets one line per noteworthy event. */
  readonly trace?: (line: string) => void;
  readonly world?: DescribedWorld;
}

/** A world that somebody described, instead of one drawn from the seed: nothing happens in it beyond the plan. */
export interface DescribedWorld {
  network(engine: Engine, rng: Rng): Network;
  /** Bytes that the node has to fetch before it can run the action. */
  inputBytes(node: SimNode, action: SimAction): number;
}

class Broken extends Error {}

/** What a machine's own link carries, and the way between two sites. */
const bytesPerMs = { wired: 110_000, wifi: 25_000, vpn: 4_000 } as const;

/** Runs a plan to its end or to the first broken invariant. */
export function runPlan(plan: Plan, options: RunOptions): RunReport {
  const engine = createEngine();
  const rng = createRng(plan.seed);
  const netRng = rng.fork('links');
  const lieRng = rng.fork('lies');
  const lossRng = rng.fork('losses');
  const count = plan.machines.length;
  const endMs = plan.chaosMs + plan.healMs;
  const classOf = (from: number, to: number): LinkClass => {
    const [a, b] = [plan.machines[from], plan.machines[to]];
    if (a?.site !== b?.site) return 'vpn';
    return a?.wired && b?.wired ? 'wired' : 'wifi';
  };
  const links = {
    up: plan.machines.map(({ wired }) => bytesPerMs[wired ? 'wired' : 'wifi']),
    down: plan.machines.map(({ wired }) => bytesPerMs[wired ? 'wired' : 'wifi']),
    site: plan.machines.map(({ site }) => site),
    pipe: bytesPerMs.vpn,
  };
  const carrier =
    options.world?.network(engine, netRng) ?? createNetwork(engine, netRng, count, { ...plan, classOf, links });
  const connections = createConnections({
    engine,
    open: carrier.open,
    latencyUs: carrier.latencyUs,
    flow: carrier.flow,
    onSent: () => {},
  });
  const network: Network = {
    ...carrier,
    reset(a, b) {
      carrier.reset(a, b);
      connections.break((reader, holder) => (reader === a && holder === b) || (reader === b && holder === a));
    },
    moved(node) {
      carrier.moved(node);
      connections.break((reader, holder) => reader === node || holder === node);
    },
  };
  const rings = new Map<string, Ring>();
  const actions = new Map<string, SimAction>();
  const checkers: Checker[] = [];
  const nodes: SimNode[] = [];
  const indexOf = new Map<NodeId, number>();
  const sometimes: Record<string, number> = {};
  const answers: Record<string, number> = {};
  const faultKinds: { [K in FaultKind]?: number } = {};
  const active: { readonly fault: Fault; readonly endsAtMs: number }[] = [];
  const excused = new Set<number>();
  let faultsApplied = 0;
  let disturbances = 0;
  let executions = 0;
  let executed = 0;
  let requested = 0;
  let healedAtMs: number | undefined;
  let violation: Violation | undefined;

  const nowMs = (): number => Math.trunc(engine.nowUs() / 1_000);
  const trace = options.trace
    ? (node: SimNode | undefined, text: string): void => {
        const at = (engine.nowUs() / 1_000_000).toFixed(3).padStart(9);
        options.trace?.(`${at} ${node ? node.id : '    '} ${text}`);
      }
    : undefined;

  const flawless = plan.lossPerMillion + plan.duplicatePerMillion + plan.stragglePerMillion === 0;
  const world: World = {
    nodes,
    shards: plan.shards,
    nowMs,
    faultsWithin: (withinMs) => {
      const now = nowMs();
      return active.reduce((sum, { endsAtMs }) => (endsAtMs + withinMs >= now ? sum + 1 : sum), 0);
    },
    healedAtMs: () => healedAtMs,
    faults: () => faultsApplied,
    disturbances: () => faultsApplied + disturbances + (flawless ? 0 : 1),
    excused: (node) => excused.has(node.index),
    calm: plan.faults.length === 0 && flawless && !options.world,
    after: (delayMs, act) => engine.after(delayMs * 1_000, act),
    action: (key) => actions.get(key),
  };

  const auditor = createAuditor(engine, rng.fork('audits'), {
    nodes,
    shards: plan.shards,
    open: (from, to) => network.open(from.index, to.index),
    send: (from, to, message) => ports.send(from, to.id, message),
  });
  const signer = createSigner(plan.seed, count);
  const ports: NodePorts = {
    engine,
    signer,
    contacts: Array.from({ length: Math.min(3, count) }, (_, i) => nodeName(i)),
    shards: plan.shards,
    send(from, to, message) {
      const target = indexOf.get(to);
      if (target === undefined) return;
      const said = from.liar() ? tamper(lieRng, from.id, message, nodes.length) : message;
      for (const check of onSend) check.onSend?.(from, target, said);
      const receiver = nodes[target] as SimNode;
      if (from.fragile() && isBadMoment(said) && lossRng.below(6) === 0) cutPower(from);
      const sender = from.index;
      const code = codeOf(said.kind);
      network.send(sender, target, () => {
        engine.note(engine.nowUs(), sender * 1_024 + target, code);
        if (receiver.state() !== 'down') network.heard(target, sender);
        if (receiver.state() === 'up') for (const check of onReceive) check.onReceive?.(receiver, sender, said);
        receiver.receive(from.id, said);
      });
    },
    ringOf(names) {
      const key = names.join();
      let ring = rings.get(key);
      if (!ring) rings.set(key, (ring = createRing(names, plan.seed)));
      return ring;
    },
    request: (node, from, parts, to) =>
      connections.request(node.index, nodes[indexOf.get(from) as number] as SimNode, parts, to),
    action: (key) => actions.get(key) as SimAction,
    inputs(node, action) {
      const { world: described } = options;
      return described
        ? { blob: inputsOf(action.key, node.index), sizeBytes: described.inputBytes(node, action) }
        : { blob: inputsOf(action.key), sizeBytes: action.inputBytes };
    },
    blobBytes: (blob) => (actions.get(keyOf(blob)) as SimAction).outputBytes,
    executionNumber: () => ++executions,
    onEffect: (node, effect) => onAnswer(node, effect as Extract<WorkEffect, { kind: 'answer' }>),
    onNote(node, note) {
      if (note.kind === 'mail') {
        // To the checkers a message is a message, whether or not a network carried it.
        for (const check of onSend) check.onSend?.(node, node.index, note.message);
        for (const check of onReceive) check.onReceive?.(node, node.index, note.message);
        return;
      }
      trace?.(node, describe(note));
      for (const check of onNote) check.onNote?.(node, note);
    },
    onRun(node, effect) {
      executed += 1;
      engine.note(engine.nowUs(), node.index, effect.run);
      trace?.(node, `run ${effect.run} ${effect.key}${effect.token ? '' : ' without a claim'}`);
      for (const check of checkers) check.onRun?.(node, effect);
    },
    onRunEnd(node, run, end) {
      trace?.(node, `run ${run} ${end}`);
      for (const check of checkers) check.onRunEnd?.(node, run, end);
    },
    onStored(node, blob) {
      for (const check of checkers) check.onStored?.(node, blob);
    },
    onEvicted(node, blob) {
      trace?.(node, `evict ${blob}`);
      for (const check of checkers) check.onEvicted?.(node, blob);
    },
    onBoot(node, blank) {
      trace?.(node, `boot, disk ${node.disk().generation}${blank ? ', blank' : ''}`);
      for (const check of checkers) check.onBoot?.(node, blank);
    },
    onDown(node) {
      trace?.(node, 'down');
      connections.break((_, holder) => holder === node.index);
      clients.nodeDown(node);
      for (const check of checkers) check.onDown?.(node);
    },
  };

  const clients = createClients(engine, {
    execute(node, item, action) {
      actions.set(action.key, action);
      requested += 1;
      auditor.know(action.key);
      const full: ExecuteItem = { ...item, shard: shardOf(item.key, plan.shards) };
      trace?.(node, `execute ${full.request} ${full.key}`);
      for (const check of checkers) check.onExecute?.(node, full, action);
      node.deliver({ kind: 'execute', item: full });
    },
    cancel(node, request) {
      trace?.(node, `cancel ${request}`);
      for (const check of checkers) check.onCancel?.(node, request);
      node.deliver({ kind: 'cancel', request });
    },
    ended: (node, invocation) => node.deliver({ kind: 'invocationEnded', invocation }),
  });

  /** After the present event, and not for long. */
  function cutPower(node: SimNode): void {
    engine.after(0, () => node.crash());
    engine.after(lossRng.between(5_000, 400_000), () => node.boot());
  }

  function onAnswer(node: SimNode, effect: { readonly request: RequestId; readonly answer: Answer }): void {
    const { request, answer } = effect;
    const name = answer.kind === 'result' ? answer.source : answer.reason;
    answers[name] = (answers[name] ?? 0) + 1;
    engine.note(engine.nowUs(), node.index, codeOf(request));
    trace?.(node, `answer ${request} ${name}`);
    for (const check of checkers) check.onAnswer?.(node, request, answer);
    clients.answered(node, request, answer);
  }

  for (const make of options.checkers) {
    const checker: Checker = make(world, (reason): never => {
      violation ??= { checker: checker.name, atMs: nowMs(), reason };
      throw new Broken(reason);
    });
    checkers.push(checker);
  }
  const onSend = checkers.filter((checker) => 'onSend' in checker);
  const onReceive = checkers.filter((checker) => 'onReceive' in checker);
  const onNote = checkers.filter((checker) => 'onNote' in checker);
  const onSecond = checkers.filter((checker) => 'onSecond' in checker);

  const machineRng = rng.fork('nodes');
  for (const [index, model] of plan.machines.entries()) {
    indexOf.set(nodeName(index), index);
    nodes.push(createSimNode(ports, index, model, machineRng));
  }

  const faultContext: FaultContext = { engine, network, nodes, rng: lossRng, lossPerMillion: plan.lossPerMillion };

  function schedule(): void {
    for (const node of nodes) {
      engine.at(node.index === 0 ? 0 : 100_000 + node.index * 20_000, () => node.boot());
      alternate(node.model.ownerTraceMs, (odd) => {
        disturbances += 1;
        node.setOwner(odd);
        for (const check of checkers) check.onOwner?.(node, odd);
      });
      alternate(node.model.powerTraceMs, (odd) => {
        disturbances += 1;
        node.setPower(odd ? 'battery' : 'mains');
      });
    }
    for (const fault of plan.faults) {
      engine.at(fault.atMs * 1_000, () => {
        faultsApplied += 1;
        faultKinds[fault.kind] = (faultKinds[fault.kind] ?? 0) + 1;
        if (fault.kind === 'liar' || fault.kind === 'blobsLost') for (const index of fault.nodes) excused.add(index);
        active.push({ fault, endsAtMs: fault.atMs + fault.forMs });
        engine.note(engine.nowUs(), codeOf(fault.kind), fault.nodes.length);
        trace?.(undefined, `fault ${fault.kind} for ${fault.forMs} ms on ${fault.nodes.map(nodeName).join(' ')}`);
        for (const check of checkers) check.onFault?.(fault);
        applyFault(faultContext, fault);
        if (fault.kind === 'ownerBack') {
          for (const index of fault.nodes) {
            for (const check of checkers) check.onOwner?.(nodes[index] as SimNode, true);
          }
        }
      });
    }
    if (!options.world) auditor.start();
    engine.at(plan.chaosMs * 1_000, heal);
    const finals = options.world ? [] : drawFinalBuilds(rng.fork('finals'), count, plan.chaosMs + 30_000, 20_000);
    for (const build of [...plan.builds, ...finals]) clients.schedule(build, () => nodes[build.node] as SimNode);
    const second = (): void => {
      for (const check of onSecond) check.onSecond?.();
      engine.after(1_000_000, second);
    };
    engine.after(1_000_500, second);
  }

  function alternate(spansMs: readonly number[], act: (odd: boolean) => void): void {
    let atMs = 0;
    for (const [i, spanMs] of spansMs.slice(0, -1).entries()) {
      atMs += spanMs;
      engine.at(atMs * 1_000, () => act(i % 2 === 0));
    }
  }

  function heal(): void {
    healedAtMs = nowMs();
    trace?.(undefined, 'healed');
    network.heal();
    for (const node of nodes) {
      node.clock.setRate(1_000_000);
      node.setFull(false);
      node.setLiar(false);
      node.setFragile(false);
      node.resume();
      node.boot();
    }
    for (const check of checkers) check.onHealed?.();
  }

  try {
    schedule();
    engine.runUntil(endMs * 1_000);
    for (const check of checkers) check.onEnd?.();
  } catch (error) {
    if (!(error instanceof Broken)) {
      // An assertion of a machine is a broken invariant like any other.
      const reason = error instanceof Error ? (error.stack ?? error.message) : String(error);
      violation = { checker: 'assertions', atMs: nowMs(), reason };
    }
  }
  if (violation) trace?.(undefined, `BROKEN ${violation.checker}: ${violation.reason}`);
  for (const checker of checkers) Object.assign(sometimes, checker.sometimes?.());

  return {
    seed: plan.seed,
    nodes: count,
    simulatedMs: nowMs(),
    events: engine.events(),
    messages: network.counts.sent,
    delivered: network.counts.delivered,
    bytes: network.counts.bytes,
    actions: requested,
    answers,
    executions: executed,
    faults: faultsApplied,
    faultKinds,
    observed: Object.fromEntries(checkers.map((checker) => [checker.name, checker.observed()])),
    sometimes,
    violation,
    traceHash: engine.traceHash(),
  };
}

const codes = new Map<string, number>();

/** A small number for a name, the same in every process. */
function codeOf(name: string): number {
  let code = codes.get(name);
  if (code === undefined) {
    code = 0;
    for (let i = 0; i < name.length; i++) code = (Math.imul(code, 31) + name.charCodeAt(i)) | 0;
    if (codes.size < 100_000) codes.set(name, code);
  }
  return code;
}

function describe(note: object): string {
  return JSON.stringify(note);
}

/** Signatures that only the holder of a secret can make: a keyed checksum, whose keys the liars do not know. */
function createSigner(seed: number, nodes: number): RecordSigner {
  const secrets = new Map<NodeId, number>();
  const rng = createRng(seed).fork('secrets');
  for (let i = 0; i < nodes; i++) secrets.set(nodeName(i), rng.next());
  const genuine = new WeakSet<MemberRecord>();

  function signatureOf(record: Omit<MemberRecord, 'signature'>): string {
    const { id, incarnation, presence, attributes } = record;
    let hash = secrets.get(id) ?? 0;
    const text = JSON.stringify([id, incarnation, presence, attributes]);
    for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
    return (hash >>> 0).toString(36);
  }

  return {
    sign(record) {
      const signed: MemberRecord = { ...record, signature: signatureOf(record) };
      genuine.add(signed);
      return signed;
    },
    verify(record) {
      return genuine.has(record) || (secrets.has(record.id) && signatureOf(record) === record.signature);
    },
  };
}
