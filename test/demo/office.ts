/**
 * The office: three machines in one subnet and one at home share a cache, and real Bazel builds show it. In network
 * namespaces where this machine lets us, on loopback addresses otherwise.
 */
import { execFile } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { type BazelVersion, openBazel } from '../e2e/bazel.ts';
import { labMissing, openNetworkLab } from '../support/network-lab.ts';
import { entry, type NodeProcess, startNode } from '../support/node-process.ts';
import { until } from '../support/until.ts';

const meetingMaxMs = 60_000;
/** Slow enough that a machine can be switched off in the middle of what it sends. */
const slowLinkMegabits = 40;
/** Well within the largest output of the project, which has 20 MB. */
const killAfterBytes = 4_000_000;

export interface BuildRow {
  readonly what: string;
  readonly seconds: number;
  /** Actions that were answered by a cache, and that ran. */
  readonly hits: number;
  readonly ran: number;
  /** From other machines, in this build. */
  readonly receivedBytes: number;
  readonly exitCode: number | null;
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

interface Machine {
  readonly name: string;
  readonly dataDir: string;
  prefix(): readonly string[];
  readonly args: readonly string[];
  node?: NodeProcess;
}

interface SharedStatus {
  readonly mesh: { readonly members: { readonly alive: number } };
  readonly sharing: { readonly receivedBytes: number } | null;
}

/** Plays the whole story, building `targets`; `say` gets a sentence at each step. */
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

  const machines = ['anna', 'ben', 'cora', 'dora'].map((name, index): Machine => {
    // On loopback each has an address of its own, so that all can use the same ports.
    const alone = ['--mesh-discovery', 'off', '--mesh-listen', `127.0.0.${index + 2}:0`];
    return {
      name,
      dataDir: join(root, name),
      args: ['--site', name === 'dora' ? 'home' : 'office', ...(lab ? [] : alone)],
      prefix: () => (lab ? lab.host(name).command(process.execPath).slice(0, -1) : []),
    };
  });
  const [anna, ben, , dora] = machines as [Machine, Machine, Machine, Machine];

  async function up(machine: Machine, ...more: string[]): Promise<void> {
    const { dataDir, args } = machine;
    machine.node = parts.use(await startNode({ dataDir, args: [...args, ...more], prefix: machine.prefix() }));
  }
  async function potluck(machine: Machine, ...args: string[]): Promise<string> {
    const [program = '', ...rest] = [
      ...machine.prefix(),
      process.execPath,
      entry,
      ...args,
      '--data-dir',
      machine.dataDir,
    ];
    return (await promisify(execFile)(program, rest)).stdout;
  }
  const statusOf = async ({ node }: Machine): Promise<SharedStatus> =>
    (await node?.status()) as unknown as SharedStatus;
  const sees = async (machine: Machine): Promise<number> => (await statusOf(machine)).mesh.members.alive;
  async function allMet(): Promise<void> {
    await until(async () => (await Promise.all(machines.map(sees))).every((count) => count === 3), meetingMaxMs);
  }

  say(
    lab
      ? 'Four machines, each a network namespace: anna, ben and cora in the office, dora at home behind a router.'
      : `Four machines on loopback addresses, for want of network namespaces: ${onLoopback}.`,
  );
  for (const machine of machines) await up(machine);
  for (const machine of machines.slice(1)) {
    const { token } = JSON.parse(await potluck(anna, 'invite', '--json')) as { token: string };
    await potluck(machine, 'join', token, '--name', machine.name);
  }
  await allMet();
  say('Anna invited the others with a token each; every one sees the other three.');

  let seenAfterMove: Record<string, number> | undefined;
  if (lab) {
    for (const { node } of machines) await node?.stop();
    for (const { name } of machines) lab.readdress(name);
    for (const machine of machines.slice(0, 3)) await up(machine);
    // Multicast does not pass the router: home is told one address.
    await up(dora, '--mesh-peer', `${lab.host('anna').address}:8982`);
    await allMet();
    seenAfterMove = Object.fromEntries(
      await Promise.all(machines.map(async (one) => [one.name, await sees(one)] as const)),
    );
    say('All went home, came back with other addresses, and met again: the office by multicast, home by one address.');
  }

  const builds: BuildRow[] = [];
  async function build(machine: Machine, what: string, during?: () => Promise<void>): Promise<void> {
    // Each build is of a fresh checkout, by a Bazel that has seen nothing.
    await using workspace = await openBazel(bazel, machine.prefix());
    const before = (await statusOf(machine)).sharing?.receivedBytes ?? 0;
    const started = performance.now();
    const running = workspace.run([
      'build',
      ...targets,
      '--spawn_strategy=local',
      `--remote_cache=grpc://${machine.node?.grpc}`,
    ]);
    const [run] = await Promise.all([running, during?.()]);
    const seconds = (performance.now() - started) / 1000;
    const receivedBytes = ((await statusOf(machine)).sharing?.receivedBytes ?? 0) - before;
    const { 'remote cache hit': hits = 0, internal: _, ...others } = run.processes;
    const ran = Object.values(others).reduce((sum, count) => sum + count, 0);
    const outputs = await workspace.outputs();
    builds.push({ what, seconds, hits, ran, receivedBytes, exitCode: run.exitCode, outputs });
    say(
      `${what}: exit status ${run.exitCode}, ${hits} from the cache, ${ran} ran, ${megabytes(receivedBytes)} from other machines.`,
    );
  }

  await build(anna, 'anna builds, nobody has it');
  await build(ben, 'ben builds the same');
  await build(dora, 'dora builds the same, at home; anna fails', async () => {
    const arrived = async (): Promise<number> =>
      lab
        ? Number(lab.host('dora').run('cat', '/sys/class/net/eth0/statistics/rx_bytes'))
        : ((await statusOf(dora)).sharing?.receivedBytes ?? 0);
    lab?.limit('dora', slowLinkMegabits);
    const before = await arrived();
    await until(async () => (await arrived()) - before > killAfterBytes, meetingMaxMs);
    await anna.node?.kill('SIGKILL');
    say(`Anna was switched off with kill -9 after ${megabytes((await arrived()) - before)} had reached dora.`);
  });
  return { onLoopback, seenAfterMove, builds };
}

export function megabytes(bytes: number): string {
  return `${(bytes / 1e6).toFixed(1)} MB`;
}
