/**
 * The same builds with a cache server and no mesh: every machine asks the server first, runs on its own slots what the
 * server lacks, and uploads it. A model for comparison, not a simulation of any product: the server is never slow or
 * down, answers in one round trip, and only its port and the links between limit it.
 */
import type { ActionKey } from '../../mesh/core/ids.ts';
import { createEngine } from '../engine.ts';
import { connectTimeoutUs } from '../network.ts';
import type { Fault } from '../plan.ts';
import type { Scenario } from './load.ts';
import { createChannel, createFlows } from './flows.ts';
import type { PlannedAction } from './graph.ts';
import type { PlannedBuild, ScenarioPlan } from './plan.ts';
import { createTopology } from './topology.ts';

export interface CentralResult {
  /** When each build ended, by invocation; those whose machine died are missing. */
  readonly endsMs: ReadonlyMap<string, number>;
  readonly actions: number;
  readonly hits: number;
  readonly runs: number;
  /** Runs to the end of what some machine had run to the end before. */
  readonly duplicated: number;
  readonly linkBytes: readonly number[];
}

interface Machine {
  freeSlots: number;
  readonly waiting: (() => void)[];
  readonly has: Set<ActionKey>;
  readonly asleep: readonly (readonly [fromUs: number, toUs: number])[];
  life: number;
}

export function runCentral(scenario: Scenario, planned: ScenarioPlan): CentralResult | undefined {
  const { centralCache } = scenario;
  if (!centralCache) return undefined;
  const engine = createEngine();
  const topology = createTopology(scenario, planned.nodes);
  const flows = createFlows(engine);
  const port = {
    up: createChannel('cache up', centralCache.bandwidth),
    down: createChannel('cache down', centralCache.bandwidth),
  };
  const stored = new Set<ActionKey>();
  const ran = new Set<ActionKey>();
  const endsMs = new Map<string, number>();
  const counts = { actions: 0, hits: 0, runs: 0, duplicated: 0 };
  const { faults } = planned.plan;
  const machines = planned.nodes.map(
    (node, index): Machine => ({
      freeSlots: node.slots,
      waiting: [],
      has: new Set(),
      asleep: sleepOf(faults, index),
      life: 0,
    }),
  );
  const routes = planned.nodes.map((_, index) => topology.serverRoute(centralCache.site, port, index));
  topology.slowLinks(engine, flows);

  for (const fault of faults) {
    const atUs = fault.atMs * 1_000;
    if (fault.kind === 'crash' || fault.kind === 'shutdown' || fault.kind === 'diskSwap') {
      engine.at(atUs, () => {
        for (const index of fault.nodes) {
          const machine = machines[index] as Machine;
          machine.life += 1;
          machine.freeSlots = planned.nodes[index]?.slots ?? 0;
          machine.waiting.length = 0;
          if (fault.kind === 'diskSwap') machine.has.clear();
        }
      });
    }
  }

  /** When work of this length that begins now is over, sleep included. */
  function endUs(machine: Machine, workUs: number): number {
    let atUs = engine.nowUs();
    let leftUs = workUs;
    for (const [fromUs, toUs] of machine.asleep) {
      if (toUs <= atUs) continue;
      if (fromUs > atUs + leftUs) break;
      leftUs -= Math.max(0, fromUs - atUs);
      atUs = toUs;
    }
    return atUs + leftUs;
  }

  function cutOff(index: number): boolean {
    const nowMs = engine.nowUs() / 1_000;
    return scenario.faults.some(
      (fault) =>
        fault.kind === 'linkCut' &&
        routes[index]?.crossed.includes(fault.link as number) &&
        nowMs >= scenario.warmUpMs + fault.atMs &&
        nowMs < scenario.warmUpMs + fault.atMs + fault.for.from,
    );
  }

  function start(build: PlannedBuild, index: number): void {
    const machine = machines[index] as Machine;
    const offUntilUs = downUntil(faults, index, engine.nowUs());
    if (offUntilUs !== undefined) {
      engine.at(offUntilUs, () => start(build, index));
      return;
    }
    const { life } = machine;
    const route = routes[index] as (typeof routes)[number];
    const { speed } = planned.nodes[index] as (typeof planned.nodes)[number];
    const needs = build.actions.map((action) => action.needs.length);
    const users = build.actions.map((): number[] => []);
    for (const [number, action] of build.actions.entries()) for (const need of action.needs) users[need]?.push(number);
    const ready: number[] = [];
    let underWay = 0;
    let left = build.actions.length;

    /** Only in the life of the machine in which the build began. */
    const here = (act: () => void) => () => {
      if (machine.life === life) act();
    };

    function more(): void {
      while (underWay < build.jobs && ready.length > 0) {
        underWay += 1;
        look(ready.shift() as number);
      }
    }

    function done(number: number, key: ActionKey): void {
      machine.has.add(key);
      underWay -= 1;
      left -= 1;
      if (left === 0) endsMs.set(build.invocation, engine.nowUs() / 1_000);
      for (const user of users[number] as number[]) {
        needs[user] = (needs[user] as number) - 1;
        if (needs[user] === 0) ready.push(user);
      }
      more();
    }

    function look(number: number): void {
      counts.actions += 1;
      const { key } = build.actions[number] as PlannedBuild['actions'][number];
      const action = planned.actions.get(key) as PlannedAction;
      if (machine.has.has(key) && !action.sim.doNotCache) {
        counts.hits += 1;
        engine.after(
          1_000,
          here(() => done(number, key)),
        );
        return;
      }
      if (cutOff(index)) {
        engine.after(
          connectTimeoutUs,
          here(() => runHere(number, action, false)),
        );
        return;
      }
      engine.after(
        2 * route.latencyUs(),
        here(() => {
          if (!stored.has(key) || action.sim.doNotCache) return runHere(number, action, !action.sim.doNotCache);
          counts.hits += 1;
          flows.start({
            path: route.fromServer,
            sizeBytes: action.sim.outputBytes,
            limitBytesPerUs: route.limitBytesPerUs(),
            done: here(() =>
              engine.after(
                2 * route.latencyUs(),
                here(() => done(number, key)),
              ),
            ),
          });
        }),
      );
    }

    function runHere(number: number, action: PlannedAction, upload: boolean): void {
      if (machine.freeSlots === 0) {
        machine.waiting.push(() => runHere(number, action, upload));
        return;
      }
      machine.freeSlots -= 1;
      const { key, outputBytes, durationMs } = action.sim;
      engine.at(
        endUs(machine, (durationMs * 1_000) / speed),
        here(() => {
          counts.runs += 1;
          if (ran.has(key) && !action.sim.doNotCache) counts.duplicated += 1;
          ran.add(key);
          machine.freeSlots += 1;
          machine.waiting.shift()?.();
          done(number, key);
          if (!upload || cutOff(index)) return;
          flows.start({
            path: route.toServer,
            sizeBytes: outputBytes,
            limitBytesPerUs: route.limitBytesPerUs(),
            done: () => stored.add(key),
          });
        }),
      );
    }

    for (const [number, count] of needs.entries()) if (count === 0) ready.push(number);
    more();
  }

  for (const [number, build] of planned.plan.builds.entries()) {
    engine.at(build.atMs * 1_000, () => start(planned.builds[number] as PlannedBuild, build.node));
  }
  engine.runUntil((scenario.warmUpMs + scenario.limitMs) * 1_000);
  flows.settle();
  return { ...counts, endsMs, linkBytes: topology.links.map(({ up, down }) => up.bytes + down.bytes) };
}

function sleepOf(faults: readonly Fault[], node: number): (readonly [number, number])[] {
  return faults
    .filter(({ kind, nodes }) => (kind === 'suspend' || kind === 'pause') && nodes.includes(node))
    .map(({ atMs, forMs }) => [atMs * 1_000, (atMs + forMs) * 1_000] as const);
}

function downUntil(faults: readonly Fault[], node: number, nowUs: number): number | undefined {
  const off = faults.find(
    ({ kind, nodes, atMs, forMs }) =>
      (kind === 'crash' || kind === 'shutdown' || kind === 'diskSwap') &&
      nodes.includes(node) &&
      nowUs >= atMs * 1_000 &&
      nowUs < (atMs + forMs) * 1_000,
  );
  return off && (off.atMs + off.forMs) * 1_000;
}
