/** From a scenario to a plan of the simulator: machines with their traces, builds with their actions, faults with their victims. */
import type { ActionKey } from '../../mesh/core/ids.ts';
import { createRng, type Rng } from '../../mesh/core/rng.ts';
import { blankDisk } from '../faults.ts';
import type { Fault, FaultKind, MachineModel, Plan } from '../plan.ts';
import type { Build } from '../workload.ts';
import { actionsOf, drawGraph, type Graph, type PlannedAction } from './graph.ts';
import type { Scenario, ScenarioFault, ScenarioNode } from './load.ts';
import type { Span } from './reader.ts';
import type { ScenarioFaultKind } from './schema.ts';
import { waysBetween } from './topology.ts';

export interface PlannedBuild {
  readonly invocation: string;
  /** Number of the node in the scenario. */
  readonly node: number;
  readonly label: string;
  readonly atMs: number;
  readonly jobs: number;
  readonly actions: readonly { readonly key: ActionKey; readonly needs: readonly number[] }[];
}

export interface ScenarioPlan {
  readonly plan: Plan;
  /** The machines of the plan, in its order. */
  readonly nodes: readonly ScenarioNode[];
  readonly builds: readonly PlannedBuild[];
  readonly actions: ReadonlyMap<ActionKey, PlannedAction>;
  /** The fault of the scenario that each fault of the plan belongs to. */
  readonly faultOf: ReadonlyMap<Fault, number>;
}

const kinds: { readonly [K in Exclude<ScenarioFaultKind, 'linkSlow'>]: FaultKind } = {
  linkCut: 'split',
  lidClosed: 'suspend',
  pause: 'pause',
  crash: 'crash',
  leave: 'shutdown',
  diskLost: 'diskSwap',
  blobsLost: 'blobsLost',
  diskFull: 'diskFull',
  liar: 'liar',
  ownerBack: 'ownerBack',
};

/** The whole scenario, or one of its nodes alone with its own builds and faults. */
export function planScenario(scenario: Scenario, alone?: number): ScenarioPlan {
  const rng = createRng(scenario.seed);
  const numbers = scenario.nodes.map((_, number) => number).filter((number) => alone === undefined || number === alone);
  const nodes = numbers.map((number) => scenario.nodes[number] as ScenarioNode);
  const totalMs = scenario.warmUpMs + scenario.limitMs;
  const { builds, actions } = planBuilds(scenario, rng, numbers);
  const faultOf = new Map<Fault, number>();
  for (const [index, fault] of scenario.faults.entries()) {
    for (const planned of planFault(scenario, fault, numbers, rng.fork(`fault ${index}`))) faultOf.set(planned, index);
  }
  const plan: Plan = {
    seed: scenario.seed,
    shards: scenario.shards,
    chaosMs: totalMs,
    healMs: 0,
    machines: nodes.map((node) => machineOf(node, rng.fork(`node ${node.name}`), totalMs)),
    lossPerMillion: 0,
    duplicatePerMillion: 0,
    stragglePerMillion: 0,
    faults: [...faultOf.keys()].sort((a, b) => a.atMs - b.atMs),
    builds: builds.map((build): Build => {
      return {
        node: numbers.indexOf(build.node),
        atMs: build.atMs,
        invocation: build.invocation,
        actions: build.actions.map(({ key, needs }) => ({ action: (actions.get(key) as PlannedAction).sim, needs })),
        cancelAfterMs: undefined,
        skipCacheLookup: false,
        priority: 0,
        jobs: build.jobs,
      };
    }),
  };
  return { plan, nodes, builds, actions, faultOf };
}

function machineOf(node: ScenarioNode, rng: Rng, totalMs: number): MachineModel {
  return {
    kind: node.class === 'runner' ? 'ci' : node.class,
    site: node.site,
    wired: node.wired,
    slots: node.slots,
    speedPercent: Math.max(1, Math.round(node.speed * 100)),
    capacityBytes: node.diskBytes,
    syncUsMax: 4_000,
    ownerTraceMs: drawTrace(
      rng,
      node.owner.map(({ away, back }) => [away, back]),
      totalMs,
    ),
    powerTraceMs: drawTrace(
      rng,
      node.power.map(({ mains, battery }) => [mains, battery]),
      totalMs,
    ),
  };
}

/** Spans in turn, the first of each pair and the second, from the beginning again until the end; equal neighbours are one. */
export function drawTrace(
  rng: Rng,
  pairs: readonly (readonly [Span | undefined, Span | undefined])[],
  totalMs: number,
): number[] {
  const states = pairs.flatMap((pair) => pair.flatMap((span, state) => (span ? [{ span, state }] : [])));
  const trace: number[] = [];
  // A trace that says nothing, or whose spans are all empty, is of one state for ever.
  if (!states.some(({ span }) => span.to > 0)) return [totalMs];
  for (let atMs = 0, i = 0; atMs < totalMs; i++) {
    const { span, state } = states[i % states.length] as (typeof states)[number];
    const forMs = drawSpan(rng, span);
    atMs += forMs;
    // Even places are of the first state, odd ones of the second.
    if (trace.length % 2 === state) trace.push(forMs);
    else if (trace.length === 0) trace.push(0, forMs);
    else trace.push((trace.pop() as number) + forMs);
  }
  return trace;
}

export function drawSpan(rng: Rng, { from, to }: Span): number {
  return rng.between(Math.round(from), Math.round(to));
}

function planBuilds(
  scenario: Scenario,
  rng: Rng,
  numbers: readonly number[],
): { readonly builds: PlannedBuild[]; readonly actions: Map<ActionKey, PlannedAction> } {
  const graphs = new Map<string, Graph>();
  for (const [name, source] of scenario.graphs) {
    graphs.set(name, 'read' in source ? source.read : drawGraph(rng.fork(`graph ${name}`), source.drawn));
  }
  const actions = new Map<ActionKey, PlannedAction>();
  const builds: PlannedBuild[] = [];
  for (const [index, build] of scenario.builds.entries()) {
    const graph = graphs.get(build.graph) as Graph;
    for (const number of build.nodes) {
      const { name } = scenario.nodes[number] as ScenarioNode;
      // Drawn whether or not the node takes part, so that it builds at the same time alone.
      const firstMs = drawSpan(rng.fork(`build ${index} of ${name}`), build.at);
      if (!numbers.includes(number)) continue;
      for (let i = 0; i < build.repeat; i++) {
        const revision = { name: build.revision ?? `${name}/${index}.${i}`, changed: build.changed };
        const planned = actionsOf(build.graph, graph, revision, scenario.seed);
        for (const action of planned) actions.set(action.sim.key, action);
        builds.push({
          invocation: `${index}.${i}-${name}`,
          node: number,
          label: `${build.graph} on ${name}${build.repeat > 1 ? `, ${i + 1} of ${build.repeat}` : ''}`,
          atMs: scenario.warmUpMs + firstMs + i * build.everyMs,
          jobs: build.jobs,
          actions: planned.map((action, at) => ({ key: action.sim.key, needs: graph.actions[at]?.needs ?? [] })),
        });
      }
    }
  }
  return { builds: builds.sort((a, b) => a.atMs - b.atMs), actions };
}

function planFault(scenario: Scenario, fault: ScenarioFault, numbers: readonly number[], rng: Rng): Fault[] {
  const atMs = scenario.warmUpMs + fault.atMs;
  if (fault.kind === 'linkSlow') return [];
  const kind = kinds[fault.kind];
  if (fault.kind === 'linkCut') {
    const links = pairsAcross(scenario, fault.link as number, numbers);
    return links.length > 0 ? [{ kind, atMs, forMs: drawSpan(rng, fault.for), nodes: [], amount: 0, links }] : [];
  }
  const amount = fault.kind === 'diskLost' ? blankDisk : fault.kind === 'lidClosed' && !fault.goodbye ? 1 : 0;
  const faults: Fault[] = [];
  for (const number of fault.nodes) {
    const forMs = drawSpan(rng, fault.for);
    const node = numbers.indexOf(number);
    if (node >= 0) faults.push({ kind, atMs, forMs, nodes: [node], amount });
  }
  return faults;
}

/** Every directed pair of machines whose way leads over the link. */
function pairsAcross(scenario: Scenario, link: number, numbers: readonly number[]): [from: number, to: number][] {
  const sites = scenario.nodes.map(({ site }) => site);
  const crosses = new Map<string, boolean>();
  const pairs: [from: number, to: number][] = [];
  for (const [from, a] of numbers.entries()) {
    for (const [to, b] of numbers.entries()) {
      const [siteA, siteB] = [sites[a] as number, sites[b] as number];
      const id = `${siteA} ${siteB}`;
      let across = crosses.get(id);
      if (across === undefined) {
        across = waysBetween(scenario, siteA, siteB).some(({ index }) => index === link);
        crosses.set(id, across);
      }
      if (across) pairs.push([from, to]);
    }
  }
  return pairs;
}
