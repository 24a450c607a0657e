/**
 * Plays a scenario file (docs/scenarios.md) with real nodes instead of simulated ones: the same machines, sites, actions,
 * dependencies, builds and faults. An action sleeps for its time instead of working, so that one small machine can be
 * the host of all of them.
 */
import { createCipheriv } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { hashBytes } from '../../protos/hasher.ts';
import type { PlannedAction } from '../../sim/scenarios/graph.ts';
import type { Scenario, ScenarioNode } from '../../sim/scenarios/load.ts';
import { planScenario, type PlannedBuild } from '../../sim/scenarios/plan.ts';
import { type ActionClient, type ActionRun, type ActionSpec, shell } from './actions.ts';
import type { Machine } from './machine.ts';
import { lends, type MachineMesh, openMachineMesh } from './mesh.ts';

export interface PlayedBuild {
  readonly label: string;
  readonly node: string;
  readonly tookMs: number;
  readonly runs: readonly ActionRun[];
}

export interface PlayedScenario {
  /** From the first build's start to the last one's end. */
  readonly makespanMs: number;
  readonly builds: readonly PlayedBuild[];
  /** Peer ids by machine. */
  readonly peers: ReadonlyMap<string, string>;
}

/** Rounded up to whole pieces: what all actions share is many files, as headers are. */
const sharedPieceBytes = 1_000_000;

/**
 * @param only - the name of a node that does all alone, its own builds only, with no mesh
 * @param say - told what happens
 */
export async function playScenario(
  scenario: Scenario,
  only: string | undefined,
  say: (sentence: string) => void,
): Promise<PlayedScenario> {
  const number = only === undefined ? undefined : scenario.nodes.findIndex(({ name }) => name === only);
  const { builds, actions, nodes } = planScenario(scenario, number);
  const odd = scenario.nodes.find(({ speed }) => speed !== 1);
  if (odd) throw new Error(`${odd.name} has a speed of its own, and sleeping takes as long everywhere`);
  const siteOf = (node: ScenarioNode): string => scenario.sites[node.site]?.name ?? '';
  const args = nodes.map((node) => {
    const mesh = only === undefined ? lends(node.slots) : ['--mesh', 'off'];
    return [node.name, ['--slots', String(node.slots), '--site', siteOf(node), ...mesh]] as const;
  });
  const isSpread = only === undefined && scenario.links.length > 0;
  await using mesh = await openMachineMesh({
    machines: Object.fromEntries(args),
    where: isSpread ? 'lab' : 'loopback',
    subnetOf: (name) => siteOf(nodes.find((node) => node.name === name) as ScenarioNode),
  });
  if (isSpread) await layLinks(scenario, mesh);
  say(
    `${nodes.length} ${nodes.length === 1 ? 'machine' : 'machines'}, ${isSpread ? 'in network namespaces' : 'on loopback'}`,
  );

  const ended = new AbortController();
  const started = performance.now();
  const faults = only === undefined ? playFaults(scenario, mesh, say, ended.signal) : undefined;
  const played = await Promise.all(
    builds.map(async (build) => {
      const { name } = scenario.nodes[build.node] as ScenarioNode;
      await sleep(Math.max(0, build.atMs - scenario.warmUpMs - (performance.now() - started)));
      return playBuild(build, mesh.machine(name), actions);
    }),
  );
  const firstMs = Math.min(...builds.map(({ atMs }) => atMs)) - scenario.warmUpMs;
  const makespanMs = performance.now() - started - firstMs;
  ended.abort();
  await faults;
  const peers = new Map<string, string>();
  if (only === undefined) for (const one of mesh.machines) peers.set(one.name, await one.peerId());
  return { makespanMs, builds: played, peers };
}

async function layLinks({ links, sites }: Scenario, { lab, machines }: MachineMesh): Promise<void> {
  if (!lab) throw new Error('a scenario with links needs network namespaces: run it as root on Linux');
  for (const link of links) {
    const [from, to] = [sites[link.from]?.name ?? '', sites[link.to]?.name ?? ''];
    if (link.up !== link.down || link.loss > 0) throw new Error(`the link ${link.name} is more than this lab can lay`);
    await lab.delay(from, to, link.latencyMs);
  }
  // The lab has no link of a whole site: each machine gets what the narrowest link carries.
  const megabits = (Math.min(...links.map(({ up }) => up)) * 8) / 1e6;
  for (const { name } of machines) lab.limit(name, megabits);
}

/** Does to the machines what the scenario says, and undoes it, until everything is built. */
async function playFaults(
  scenario: Scenario,
  mesh: MachineMesh,
  say: (sentence: string) => void,
  signal: AbortSignal,
): Promise<void> {
  const passed = async (ms: number): Promise<void> => {
    await sleep(ms, undefined, { signal }).catch(() => {});
  };
  await Promise.all(
    scenario.faults.map(async ({ kind, atMs, nodes, link, target, for: span }) => {
      const victims = nodes.map((node) => mesh.machine(scenario.nodes[node]?.name ?? ''));
      const across = link === undefined ? undefined : scenario.links[link];
      const between = across && [across.from, across.to].map((site) => scenario.sites[site]?.name ?? '');
      const act = async (isOn: boolean): Promise<void> => {
        switch (kind) {
          case 'linkCut':
            return mesh.lab?.cut(between?.[0] ?? '', between?.[1] ?? '', isOn);
          case 'pause':
            for (const one of victims) one.node().child.kill(isOn ? 'SIGSTOP' : 'SIGCONT');
            return;
          case 'ownerBack':
            for (const one of victims) await one.owner(isOn ? 'back' : 'away');
            return;
          case 'crash':
            for (const one of victims) await (isOn ? one.node().kill() : one.up());
            return;
          default:
            throw new Error(`${kind} is not played with real nodes`);
        }
      };
      await passed(atMs);
      if (signal.aborted) return;
      await act(true);
      say(`${kind} on ${target}`);
      await passed(span.from);
      await act(false);
      say(`${kind} on ${target} is over`);
    }),
  );
}

/** Everything that is ready runs, up to the build's jobs; what an action needs is the output of those before it. */
async function playBuild(
  build: PlannedBuild,
  machine: Machine,
  actions: ReadonlyMap<string, PlannedAction>,
): Promise<PlayedBuild> {
  using client = machine.client();
  const started = performance.now();
  const shared = new Map<string, Promise<Readonly<Record<string, string>>>>();
  const runs: ActionRun[] = [];
  const waiting = new Set(build.actions.keys());
  const doneAt = new Map<number, string>();
  const running = new Set<Promise<void>>();
  while (waiting.size > 0 || running.size > 0) {
    for (const index of waiting) {
      const { key, needs } = build.actions[index] as PlannedBuild['actions'][number];
      if (running.size >= build.jobs) break;
      if (!needs.every((need) => doneAt.has(need))) continue;
      waiting.delete(index);
      const work = async (): Promise<void> => {
        const action = actions.get(key) as PlannedAction;
        const uploading = shared.get(action.graph) ?? putShared(client, action);
        shared.set(action.graph, uploading);
        const headers = await uploading;
        const used = needs.map((need) => [`need-${need}`, doneAt.get(need) ?? ''] as const);
        const run = await runOne(client, specOf(action, { ...headers, ...Object.fromEntries(used) }));
        runs.push(run);
        doneAt.set(index, run.outputs.get('out') ?? '');
      };
      const one = work().finally(() => running.delete(one));
      running.add(one);
    }
    await Promise.race(running);
  }
  return { label: build.label, node: machine.name, tookMs: performance.now() - started, runs };
}

async function runOne(client: ActionClient, spec: ActionSpec): Promise<ActionRun> {
  const [run] = await client.run([spec]);
  if (!run || run.code !== 'OK' || run.exitCode !== 0)
    throw new Error(`${spec.name} failed: ${run?.code}: ${run?.message}`);
  return run;
}

async function putShared(client: ActionClient, { graph, sharedBytes }: PlannedAction): Promise<Record<string, string>> {
  const pieces = Array.from({ length: Math.ceil(sharedBytes / sharedPieceBytes) }, (_, piece) =>
    bytesOf(`${graph} ${piece}`, sharedPieceBytes),
  );
  const names = await client.put(pieces);
  return Object.fromEntries(names.map((name, piece) => [`shared-${piece}`, name]));
}

function specOf({ sim, sourceBytes }: PlannedAction, inputs: Readonly<Record<string, string>>): ActionSpec {
  return {
    name: sim.key,
    argv: shell(`sleep ${sim.durationMs / 1000}; yes '${sim.key}' | head -c ${sim.outputBytes} > out`),
    inputs: { ...inputs, source: bytesOf(sim.key, sourceBytes) },
    doNotCache: sim.doNotCache,
  };
}

/** The same bytes for the same label, and others for any other. */
function bytesOf(label: string, sizeBytes: number): Uint8Array {
  const key = Buffer.alloc(16);
  key.set(Buffer.from(hashBytes('sha256', Buffer.from(label)), 'hex').subarray(0, 16));
  return createCipheriv('aes-128-ctr', key, Buffer.alloc(16)).update(Buffer.alloc(sizeBytes));
}
