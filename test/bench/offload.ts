/**
 * `node test/bench/offload.ts [makespan busy overhead throughput]`: what running actions on other machines brings and
 * costs. Real nodes on loopback; each figure stands beside the ideal or beside a reference measured in the same run.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type ActionClient, type ActionRun, type ActionSpec, sleepers } from '../support/actions.ts';
import { createMachine, type Machine } from '../support/machine.ts';
import { lends, type MachineMesh, openMachineMesh } from '../support/mesh.ts';
import { bareBwrap, spawnMs } from './actions.ts';
import { quantile } from './measure.ts';
import { profileText } from './profile.ts';

const peers = ['ben', 'cora', 'dora', 'emil'];
const peerSlots = 4;
const ownSlots = 2;
const sleepMs = 1_000;
const actions = 200;
/** Enough to see a difference of 5 %, in ten waves. */
const busyActions = 40;
const pairs = 100;
const throughputActions = 400;
const inFlight = 8;
const run = Date.now().toString(36);

const parts = { makespan, busy, overhead, throughput };
const wanted = process.argv.slice(2);
const unknown = wanted.filter((name) => !(name in parts));
if (unknown.length > 0) {
  console.error(`there is no ${unknown.join(', ')}; there are: ${Object.keys(parts).join(', ')}`);
  process.exit(2);
}
for (const [name, measure] of Object.entries(parts)) {
  if (wanted.length === 0 || wanted.includes(name)) await measure();
}

async function makespan(): Promise<void> {
  await using mesh = await openMesh();
  using client = mesh.machine('anna').client();
  await warmUp(client);
  const specs = sleepers(`makespan-${run}`, actions, sleepMs);
  const { tookMs, runs } = await timed(client, specs);
  const slots = ownSlots + peers.length * peerSlots;
  const idealMs = Math.ceil(actions / slots) * sleepMs;
  console.log(
    `${actions} actions of ${sleepMs} ms, ${ownSlots} slots here and ${slots - ownSlots} idle ones elsewhere:`,
  );
  console.log(`  ${seconds(tookMs)}, ideal ${seconds(idealMs)}, ratio ${(tookMs / idealMs).toFixed(3)}`);
  console.log(`  ${await whoRan(mesh, runs)}`);
  const overheads = runs.map(({ workerMs }) => workerMs - sleepMs);
  console.log(
    `  on the worker an action took ${quantile(overheads, 0.5).toFixed(0)} ms longer than it slept (p50; p99 ${quantile(overheads, 0.99).toFixed(0)} ms)`,
  );
}

/** The owners of all peers are there: the build is this machine's alone, and must not notice that it is in a mesh. */
async function busy(): Promise<void> {
  await using mesh = await openMesh();
  for (const name of peers) await mesh.machine(name).owner('back');
  using inMesh = mesh.machine('anna').client();
  const dir = await mkdtemp(join(tmpdir(), 'potluck-bench-'));
  try {
    await using alone = createMachine({
      name: 'alone',
      dataDir: join(dir, 'alone'),
      args: ['--slots', String(ownSlots), '--mesh', 'off'],
    });
    await alone.up();
    using offMesh = alone.client();
    for (const client of [inMesh, offMesh]) await warmUp(client);
    const ratios: number[] = [];
    for (let round = 0; round < 3; round++) {
      const specs = sleepers(`busy-${run}-${round}`, busyActions, sleepMs);
      const first = await timed(round % 2 === 0 ? inMesh : offMesh, specs);
      const second = await timed(round % 2 === 0 ? offMesh : inMesh, specs);
      const [ours, reference] = round % 2 === 0 ? [first, second] : [second, first];
      ratios.push(ours.tookMs / reference.tookMs);
      console.log(
        `${busyActions} actions, owners back: ${seconds(ours.tookMs)} in the mesh, ${seconds(reference.tookMs)} with the mesh off; ${await whoRan(mesh, ours.runs)}`,
      );
    }
    console.log(`  ratio ${quantile(ratios, 0.5).toFixed(3)} (median of ${ratios.length})`);
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}

/** One trivial action at a time, by turns here and there: where it runs is said by what it asks of the machine. */
async function overhead(): Promise<void> {
  await using mesh = await openMesh();
  using client = mesh.machine('anna').client();
  const here = trivial(`here-${run}`, pairs, 'anna');
  const there = trivial(`there-${run}`, pairs, 'peer');
  await client.upload([...here, ...there]);
  const [localMs, peerMs]: [number[], number[]] = [[], []];
  for (let at = 0; at < pairs; at++) {
    localMs.push(await one(client, here[at] as ActionSpec));
    peerMs.push(await one(client, there[at] as ActionSpec));
  }
  // The first ones find out what connections and caches are for.
  const [a, b] = [localMs.slice(20), peerMs.slice(20)];
  const overMs = b.map((ms, at) => ms - (a[at] as number));
  const line = (what: string, all: readonly number[]): string =>
    `  ${what}: p50 ${quantile(all, 0.5).toFixed(1)} ms, p99 ${quantile(all, 0.99).toFixed(1)} ms`;
  console.log(`one trivial action at a time, ${a.length} pairs:`);
  console.log([line('here', a), line('on a peer', b), line('over the same here', overMs)].join('\n'));
}

/** Many trivial actions on all peers at once, beside as many bare sandboxes, with a profile of submitter and one peer. */
async function throughput(): Promise<void> {
  const dir = await mkdtemp(join(tmpdir(), 'potluck-profile-'));
  try {
    {
      await using mesh = await openMesh((name) => (name === 'anna' || name === 'ben' ? join(dir, name) : undefined));
      using client = mesh.machine('anna').client();
      const specs = trivial(`many-${run}`, throughputActions, 'peer');
      await client.upload(specs);
      await warmUp(client);
      const rates: [ours: number, bare: number][] = [];
      for (let round = 0; round < 2; round++) {
        const half = specs.slice((round * specs.length) / 2, ((round + 1) * specs.length) / 2);
        const ours = await perSecond(half.length, async (at) => one(client, half[at] as ActionSpec));
        rates.push([ours, await perSecond(half.length, async () => spawnMs('bwrap', bareBwrap))]);
      }
      console.log(`trivial actions through the mesh, ${inFlight} in flight:`);
      for (const [ours, bare] of rates) {
        console.log(
          `  ${ours.toFixed(1)} a second, bare bwrap /bin/true ${bare.toFixed(1)}, ratio ${(ours / bare).toFixed(3)}`,
        );
      }
      for (const machine of mesh.machines) await machine.node().stop();
    }
    for (const name of ['anna', 'ben']) {
      console.log(
        `what the node of ${name} spent its processor time on, ${name === 'anna' ? 'submitter' : 'executor'}:`,
      );
      console.log(await profileText(join(dir, name)));
    }
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}

function openMesh(profileDirOf?: (name: string) => string | undefined): Promise<MachineMesh> {
  const peerArgs = ['--slots', String(peerSlots), '--platform', 'at=peer', ...lends(peerSlots)];
  return openMachineMesh({
    machines: {
      anna: ['--slots', String(ownSlots), '--platform', 'at=anna', ...lends(0)],
      ...Object.fromEntries(peers.map((name) => [name, peerArgs])),
    },
    where: 'loopback',
    envOf: (name) => {
      const profileDir = profileDirOf?.(name);
      return profileDir === undefined ? {} : { NODE_OPTIONS: `--cpu-prof --cpu-prof-dir=${profileDir}` };
    },
  });
}

/** Everybody has run something, and speeds are known. */
async function warmUp(client: ActionClient): Promise<void> {
  await timed(client, sleepers(`warm-${run}-${Math.random()}`, 40, 50));
}

async function timed(
  client: ActionClient,
  specs: readonly ActionSpec[],
): Promise<{ tookMs: number; runs: ActionRun[] }> {
  await client.upload(specs);
  const started = performance.now();
  const runs = await Promise.all(specs.map((spec) => client.execute(spec)));
  const tookMs = performance.now() - started;
  for (const each of runs) requireOk(each);
  return { tookMs, runs };
}

async function one(client: ActionClient, spec: ActionSpec): Promise<number> {
  const result = await client.execute(spec);
  requireOk(result);
  return result.tookMs;
}

function requireOk({ name, code, message, exitCode }: ActionRun): void {
  if (code !== 'OK' || exitCode !== 0) throw new Error(`${name}: ${code} (exit code ${exitCode}): ${message}`);
}

function trivial(label: string, count: number, at: 'anna' | 'peer'): ActionSpec[] {
  return Array.from({ length: count }, (_, index) => ({
    name: `${label}-${index}`,
    argv: ['/bin/true'],
    platform: { at },
  }));
}

async function perSecond(count: number, each: (at: number) => Promise<unknown>): Promise<number> {
  const started = performance.now();
  let next = 0;
  await Promise.all(
    Array.from({ length: inFlight }, async () => {
      while (next < count) await each(next++);
    }),
  );
  return count / ((performance.now() - started) / 1000);
}

async function whoRan({ machines }: MachineMesh, runs: readonly ActionRun[]): Promise<string> {
  const ids = await Promise.all(machines.map(async (one: Machine) => [one.name, await one.peerId()] as const));
  return ids.map(([name, id]) => `${name} ${runs.filter(({ worker }) => worker.includes(id)).length}`).join(', ');
}

function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(2)} s`;
}
