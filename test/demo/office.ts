/**
 * The office: three machines in one subnet and one at home share a cache and run each other's actions, and real Bazel
 * builds show it. In network namespaces where this machine lets us, on loopback addresses otherwise.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type BazelVersion, openBazel } from '../e2e/bazel.ts';
import { allMeet, createMachine, type Machine } from '../support/machine.ts';
import { lends } from '../support/mesh.ts';
import { labMissing, openNetworkLab } from '../support/network-lab.ts';
import { until } from '../support/until.ts';

const buildMaxMs = 240_000;
/** Slow enough that a machine can be switched off in the middle of what it sends. */
const slowLinkMegabits = 40;
/** Of each machine, and lent by each. */
const slots = 2;
/** Early in the build that the others help with. */
const killAfterActions = 5;
/** Well within the largest output of the project, which has 20 MB. */
const killAfterBytes = 4_000_000;

export interface BuildRow {
  readonly what: string;
  readonly seconds: number;
  /** Actions that were answered by a cache, and that ran. */
  readonly hits: number;
  readonly ran: number;
  /** Of those, on other machines. */
  readonly ranElsewhere: number;
  /** From other machines, in this build. */
  readonly receivedBytes: number;
  /** SHA-256 of every output by path. */
  readonly outputs: ReadonlyMap<string, string>;
}

export interface OfficeReport {
  /** Why it ran on loopback addresses; undefined when it ran in network namespaces. */
  readonly onLoopback: string | undefined;
  /** The machines that each one sees alive after all have new addresses and nobody was told of any. */
  readonly seenAfterMove: Readonly<Record<string, number>> | undefined;
  readonly builds: readonly BuildRow[];
}

/** Plays the whole story, building `targets`; `say` gets a sentence at each step. Throws when a build fails. */
export async function playOffice(
  bazel: BazelVersion,
  targets: readonly string[],
  say: (sentence: string) => void,
): Promise<OfficeReport> {
  const onLoopback = labMissing();
  await using parts = new AsyncDisposableStack();
  const lab =
    onLoopback === undefined
      ? parts.use(openNetworkLab({ office: ['anna', 'ben', 'cora'], home: ['dora'] }))
      : undefined;
  const root = await mkdtemp(join(tmpdir(), 'potluck-office-'));
  parts.defer(() => rm(root, { recursive: true, force: true }));

  const machines = ['anna', 'ben', 'cora', 'dora'].map((name, index) => {
    // On loopback each has an address of its own, and multicast does not work.
    const alone = ['--mesh-discovery', 'off', '--mesh-listen', `127.0.0.${index + 2}:0`];
    const args = ['--site', name === 'dora' ? 'home' : 'office', '--slots', String(slots), ...lends(slots)];
    if (!lab) args.push(...alone);
    return parts.use(createMachine({ name, dataDir: join(root, name), lab, args }));
  });
  const [anna, ben, cora, dora] = machines as [Machine, Machine, Machine, Machine];

  say(
    lab
      ? 'Four machines, each a network namespace: anna, ben and cora in the office, dora at home behind a router.'
      : `Four machines on loopback addresses, for want of network namespaces: ${onLoopback}.`,
  );
  for (const machine of machines) await machine.up();
  for (const machine of machines.slice(1)) await machine.join(anna);
  await allMeet(machines);
  say('Anna invited the others with a token each; every one sees the other three.');

  let seenAfterMove: Record<string, number> | undefined;
  if (lab) {
    for (const machine of machines) await machine.node().stop();
    for (const { name } of machines) lab.readdress(name);
    for (const machine of machines.slice(0, 3)) await machine.up();
    // Multicast does not pass the router: home is told one address.
    await dora.up('--mesh-peer', `${lab.host('anna').address}:8982`);
    await allMeet(machines);
    seenAfterMove = Object.fromEntries(
      await Promise.all(machines.map(async (one) => [one.name, await one.sees()] as const)),
    );
    say('All went home, came back with other addresses, and met again: the office by multicast, home by one address.');
  }

  const builds: BuildRow[] = [];
  async function build(
    machine: Machine,
    what: string,
    flags: readonly string[],
    during?: (isOver: () => boolean) => Promise<void>,
  ): Promise<void> {
    // Each build is of a fresh checkout, by a Bazel that has seen nothing.
    await using workspace = await openBazel(bazel, machine.prefix());
    const [before, elsewhereBefore] = [await machine.receivedBytes(), await machine.ranElsewhere()];
    const started = performance.now();
    const running = workspace.run(['build', ...targets, ...flags]);
    let isOver = false;
    void running.finally(() => (isOver = true));
    const [run] = await Promise.all([running, during?.(() => isOver)]);
    if (run.exitCode !== 0) throw new Error(`${what}: Bazel failed with exit status ${run.exitCode}:\n${run.output}`);
    const seconds = (performance.now() - started) / 1000;
    const receivedBytes = (await machine.receivedBytes()) - before;
    const { 'remote cache hit': hits = 0, internal: _, ...others } = run.processes;
    const ran = Object.values(others).reduce((sum, count) => sum + count, 0);
    const ranElsewhere = (await machine.ranElsewhere()) - elsewhereBefore;
    const outputs = await workspace.outputs();
    builds.push({ what, seconds, hits, ran, ranElsewhere, receivedBytes, outputs });
    const where = ranElsewhere > 0 ? ` (${ranElsewhere} of them on other machines)` : '';
    say(`${what}: ${hits} from the cache, ${ran} ran${where}, ${megabytes(receivedBytes)} from other machines.`);
  }

  const shares = (machine: Machine) => ['--spawn_strategy=local', `--remote_cache=grpc://${machine.node().grpc}`];
  await build(anna, 'anna builds, nobody has it', shares(anna));
  await build(ben, 'ben builds the same', shares(ben));
  await build(dora, 'dora builds the same, at home; anna fails', shares(dora), async (isOver) => {
    const arrived = async (): Promise<number> =>
      lab ? Number(lab.host('dora').run('cat', '/sys/class/net/eth0/statistics/rx_bytes')) : await dora.receivedBytes();
    lab?.limit('dora', slowLinkMegabits);
    const before = await arrived();
    await until(async () => isOver() || (await arrived()) - before > killAfterBytes, buildMaxMs);
    await anna.node().kill('SIGKILL');
    say(`Anna was switched off with kill -9 after ${megabytes((await arrived()) - before)} had reached dora.`);
  });
  lab?.unlimit('dora');

  // A flag of their own: nobody has these results yet.
  const offloads = [
    '--spawn_strategy=remote',
    `--remote_executor=grpc://${cora.node().grpc}`,
    '--copt=-DNEW',
    '--jobs=12',
  ];
  await build(cora, 'cora builds with another flag, the others help; ben fails', offloads, async (isOver) => {
    const before = await cora.ranElsewhere();
    await until(async () => isOver() || (await cora.ranElsewhere()) - before > killAfterActions, buildMaxMs);
    await ben.node().kill('SIGKILL');
    say(
      `Ben was switched off with kill -9 after ${(await cora.ranElsewhere()) - before} of cora's actions had run elsewhere.`,
    );
  });
  return { onLoopback, seenAfterMove, builds };
}

export function megabytes(bytes: number): string {
  return `${(bytes / 1e6).toFixed(1)} MB`;
}
