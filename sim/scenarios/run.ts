/**
 * Runs a scenario: once with the mesh, once for each building machine alone with its own cache, and once with a central
 * cache; and puts the figures side by side.
 */
import type { Checker, CheckerFactory } from '../checkers/checker.ts';
import { electionSafety } from '../checkers/election-safety.ts';
import { logMatching } from '../checkers/log-matching.ts';
import { nothingForgotten } from '../checkers/nothing-forgotten.ts';
import { oneChange } from '../checkers/one-change.ts';
import { oneClaim } from '../checkers/one-claim.ts';
import { outputsPromised } from '../checkers/outputs-promised.ts';
import { ownTerm } from '../checkers/own-term.ts';
import { ownerFirst } from '../checkers/owner-first.ts';
import { pinsKept } from '../checkers/pins-kept.ts';
import { stateMachineSafety } from '../checkers/state-machine-safety.ts';
import { tokenOrder } from '../checkers/token-order.ts';
import type { Engine } from '../engine.ts';
import { runPlan, type RunReport } from '../universe.ts';
import { type CentralResult, runCentral } from './central.ts';
import { createInputs } from './inputs.ts';
import type { Scenario, ScenarioNode } from './load.ts';
import { planScenario, type ScenarioPlan } from './plan.ts';
import { createRecorder, type Recording } from './recorder.ts';
import type { ScenarioFaultKind } from './schema.ts';
import { createTopology, type Topology } from './topology.ts';

/** Invariants of safety, which hold at any time; those of healing are for the sweeps. */
const checkers: readonly CheckerFactory[] = [
  electionSafety,
  logMatching,
  nothingForgotten,
  oneChange,
  ownTerm,
  stateMachineSafety,
  tokenOrder,
  oneClaim,
  outputsPromised,
  pinsKept,
  ownerFirst,
];

/** What one way to build came to. Undefined where something did not end in time. */
export interface Figures {
  readonly makespanMs: number | undefined;
  /** Mean of the builds that ended. */
  readonly buildTimeMs: number | undefined;
  readonly actions: number;
  readonly hits: number;
  readonly hitRate: number;
  readonly runs: number;
  readonly duplicatedActions: number;
}

export interface MeshFigures extends Figures {
  /** Share of the runs that were on another machine than the client. */
  readonly elsewhere: number;
  readonly lostActions: number;
  /** Runs that were killed, or lost with their machine. */
  readonly brokenRuns: number;
}

export interface BuildReport {
  readonly label: string;
  readonly node: string;
  readonly atMs: number;
  readonly actions: number;
  readonly hits: number;
  readonly meshMs: number | undefined;
  readonly aloneMs: number | undefined;
  readonly centralMs: number | undefined;
  /** The machine went down with its client. */
  readonly abandoned: boolean;
}

export interface FaultReport {
  readonly kind: ScenarioFaultKind;
  readonly what: string;
  readonly atMs: number;
  readonly forMs: number;
  /** Longer than that when its length was drawn for each machine. */
  readonly forMsMost: number;
  /** Actions that ran for others on the machines that it hit, or beyond the link that it cut. */
  readonly interrupted: number;
  /** From its beginning until the last of those was answered; 0 when it hit none, undefined when one never was. */
  readonly recoveryMs: number | undefined;
}

export interface LinkReport {
  readonly name: string;
  readonly from: string;
  readonly to: string;
  readonly upBytes: number;
  readonly downBytes: number;
  readonly centralBytes: number | undefined;
}

/** All times from the beginning of the scenario, after the warm-up. */
export interface ScenarioResult {
  readonly title: string;
  readonly about: string;
  readonly seed: number;
  readonly nodes: number;
  readonly simulatedMs: number;
  readonly mesh: MeshFigures;
  readonly alone: Figures;
  readonly central: Figures | undefined;
  readonly speedup: number | undefined;
  readonly speedupOverCache: number | undefined;
  readonly recoveryMs: number | undefined;
  readonly builds: readonly BuildReport[];
  readonly faults: readonly FaultReport[];
  readonly links: readonly LinkReport[];
  /** A broken invariant of the mesh: a defect of Potluck, whatever the scenario says. */
  readonly violation: string | undefined;
  readonly traceHash: string;
}

export interface ScenarioRun {
  readonly result: ScenarioResult;
  readonly planned: ScenarioPlan;
  readonly recording: Recording;
  readonly topology: Topology;
}

export function runScenario(scenario: Scenario, trace?: (line: string) => void): ScenarioRun {
  const planned = planScenario(scenario);
  const { report, recording, topology } = simulate(scenario, planned, trace);
  const aloneEnds = new Map<string, number>();
  let alone: Figures = { ...noFigures };
  for (const node of new Set(planned.builds.map((build) => build.node))) {
    const single = planScenario(scenario, node);
    const { recording: own } = simulate(scenario, single);
    for (const [invocation, { endMs }] of own.builds) if (endMs !== undefined) aloneEnds.set(invocation, endMs);
    alone = add(alone, countsOf(own));
  }
  const central = runCentral(scenario, planned);
  const meshEnds = endsOf(recording);
  const { warmUpMs } = scenario;
  const dead = new Set([...recording.builds.values()].flatMap((build) => (build.abandoned ? [build.invocation] : [])));

  const builds = planned.builds.map((build): BuildReport => {
    const after = (ends: ReadonlyMap<string, number> | undefined): number | undefined => {
      const endMs = ends?.get(build.invocation);
      return endMs === undefined ? undefined : endMs - build.atMs;
    };
    const record = recording.builds.get(build.invocation);
    return {
      label: build.label,
      node: (scenario.nodes[build.node] as ScenarioNode).name,
      atMs: build.atMs - warmUpMs,
      actions: build.actions.length,
      hits: record?.hits ?? 0,
      meshMs: after(meshEnds),
      aloneMs: after(aloneEnds),
      centralMs: after(central?.endsMs),
      abandoned: record?.abandoned === true,
    };
  });
  const guests = recording.spans.filter(({ guest }) => guest).length;
  const mesh: MeshFigures = {
    ...countsOf(recording),
    ...timesOf(planned, meshEnds, dead),
    elsewhere: ratio(guests, recording.spans.length),
    lostActions: recording.lostActions,
    brokenRuns: recording.spans.filter(({ end }) => end !== 'done').length,
  };
  const faults = faultsOf(scenario, recording);
  topology.flows().settle();
  return {
    planned,
    recording,
    topology,
    result: {
      title: scenario.title,
      about: scenario.about,
      seed: scenario.seed,
      nodes: scenario.nodes.length,
      simulatedMs: Math.max(0, report.simulatedMs - warmUpMs),
      mesh,
      alone: { ...alone, hitRate: ratio(alone.hits, alone.actions), ...timesOf(planned, aloneEnds, dead) },
      central: central && { ...centralCounts(central), ...timesOf(planned, central.endsMs, dead) },
      speedup: compare(builds, ({ aloneMs }) => aloneMs),
      speedupOverCache: central && compare(builds, ({ centralMs }) => centralMs),
      recoveryMs: faults.some(({ recoveryMs }) => recoveryMs === undefined)
        ? undefined
        : faults.reduce((longest, { recoveryMs = 0 }) => Math.max(longest, recoveryMs), 0),
      builds,
      faults,
      links: scenario.links.map((link, index) => ({
        name: link.name,
        from: scenario.sites[link.from]?.name ?? '',
        to: scenario.sites[link.to]?.name ?? '',
        upBytes: Math.round(topology.links[index]?.up.bytes ?? 0),
        downBytes: Math.round(topology.links[index]?.down.bytes ?? 0),
        centralBytes: central && Math.round(central.linkBytes[index] ?? 0),
      })),
      violation: report.violation && `${report.violation.checker}: ${report.violation.reason.split('\n', 1)[0]}`,
      traceHash: report.traceHash,
    },
  };
}

/** One run of the real machines. */
function simulate(
  scenario: Scenario,
  planned: ScenarioPlan,
  trace?: (line: string) => void,
): { readonly report: RunReport; readonly recording: Recording; readonly topology: Topology } {
  const topology = createTopology(scenario, planned.nodes);
  const inputs = createInputs(planned.actions);
  let engine: Engine | undefined;
  const recorder = createRecorder(planned, { stop: () => engine?.stop(), silent: (node) => topology.silent(node) });
  const report = runPlan(planned.plan, {
    checkers: [...checkers.map(withoutEnd), recorder.factory],
    ...(trace ? { trace } : {}),
    world: {
      network(made, rng) {
        engine = made;
        return topology.network(made, rng);
      },
      inputBytes: (node, action) => inputs.fetch(node, action),
    },
  });
  return { report, recording: recorder.result(), topology };
}

/** A scenario ends when its builds have, with or without everything healed. */
function withoutEnd(make: CheckerFactory): CheckerFactory {
  return (world, fail): Checker => {
    const checker = make(world, fail);
    delete checker.onEnd;
    return checker;
  };
}

const noFigures: Figures = {
  makespanMs: undefined,
  buildTimeMs: undefined,
  actions: 0,
  hits: 0,
  hitRate: 0,
  runs: 0,
  duplicatedActions: 0,
};

function countsOf(recording: Recording): Figures {
  let [actions, hits] = [0, 0];
  for (const build of recording.builds.values()) {
    actions += build.asked;
    hits += build.hits;
  }
  const { spans, duplicated } = recording;
  return {
    ...noFigures,
    actions,
    hits,
    hitRate: ratio(hits, actions),
    runs: spans.length,
    duplicatedActions: duplicated,
  };
}

function centralCounts({ actions, hits, runs, duplicated }: CentralResult): Figures {
  return { ...noFigures, actions, hits, hitRate: ratio(hits, actions), runs, duplicatedActions: duplicated };
}

function add(a: Figures, b: Figures): Figures {
  return {
    ...a,
    actions: a.actions + b.actions,
    hits: a.hits + b.hits,
    runs: a.runs + b.runs,
    duplicatedActions: a.duplicatedActions + b.duplicatedActions,
  };
}

function ratio(part: number, whole: number): number {
  return whole === 0 ? 0 : part / whole;
}

function endsOf(recording: Recording): Map<string, number> {
  const ends = new Map<string, number>();
  for (const [invocation, { endMs }] of recording.builds) if (endMs !== undefined) ends.set(invocation, endMs);
  return ends;
}

/** Of all builds but those that died with their machine in the mesh; undefined when another one did not end. */
function timesOf(
  planned: ScenarioPlan,
  ends: ReadonlyMap<string, number>,
  dead: ReadonlySet<string>,
): Pick<Figures, 'makespanMs' | 'buildTimeMs'> {
  const counted = planned.builds.filter(({ invocation }) => !dead.has(invocation));
  const done = counted.filter(({ invocation }) => ends.has(invocation));
  if (done.length === 0) return { makespanMs: undefined, buildTimeMs: undefined };
  const endOf = ({ invocation }: { readonly invocation: string }): number => ends.get(invocation) as number;
  const firstMs = Math.min(...counted.map(({ atMs }) => atMs));
  const lastMs = Math.max(...done.map(endOf));
  const sumMs = done.reduce((sum, build) => sum + endOf(build) - build.atMs, 0);
  return {
    makespanMs: done.length === counted.length ? Math.round(lastMs - firstMs) : undefined,
    buildTimeMs: Math.round(sumMs / done.length),
  };
}

/** How many times longer the builds took the other way, over those that ended both ways. */
function compare(
  builds: readonly BuildReport[],
  other: (build: BuildReport) => number | undefined,
): number | undefined {
  let [ours, theirs] = [0, 0];
  for (const build of builds) {
    const otherMs = other(build);
    if (build.meshMs === undefined || otherMs === undefined) continue;
    ours += build.meshMs;
    theirs += otherMs;
  }
  return ours === 0 ? undefined : theirs / ours;
}

function faultsOf(scenario: Scenario, recording: Recording): FaultReport[] {
  const open = new Set(recording.unanswered);
  return scenario.faults.map((fault, index): FaultReport => {
    const record = recording.faults.get(index);
    const atMs = fault.atMs;
    const never = [...(record?.interrupted ?? [])].some((request) => open.has(request));
    const recoveryMs = record && record.interrupted.size > 0 ? record.lastAnswerMs - scenario.warmUpMs - atMs : 0;
    return {
      kind: fault.kind,
      // `lidClosed on laptop-1, laptop-2`.
      what: `${fault.kind} on ${fault.target}`,
      atMs,
      forMs: fault.for.from,
      forMsMost: fault.for.to,
      interrupted: record?.interrupted.size ?? 0,
      recoveryMs: never ? undefined : Math.max(0, recoveryMs),
    };
  });
}
