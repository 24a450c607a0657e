/**
 * `node test/bench/no-help.ts [--rounds N]`: what a mesh that cannot help costs a build. The same uncached Bazel build, by
 * turns through a node whose only fellow member has nothing, and through one with `--mesh off`.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { bazelVersions, openBazel } from '../e2e/bazel.ts';
import { allMeet, createMachine } from '../support/machine.ts';

const { values } = parseArgs({ options: { rounds: { type: 'string', default: '4' } } });
const rounds = Number(values.rounds);
const version = bazelVersions.find(({ missing }) => missing === undefined);
if (!(rounds >= 1) || !version) {
  console.error(version ? 'usage: node test/bench/no-help.ts [--rounds N]' : `no Bazel: ${bazelVersions[0]?.missing}`);
  process.exit(2);
}

await using parts = new AsyncDisposableStack();
const root = await mkdtemp(join(tmpdir(), 'potluck-no-help-'));
parts.defer(() => rm(root, { recursive: true, force: true }));
const sharing = ['--mesh-discovery', 'off', '--mesh-listen', '127.0.0.1:0', '--mesh-data-listen', '127.0.0.1:0'];
const open = (name: string, args: readonly string[]) =>
  parts.use(createMachine({ name, dataDir: join(root, name), args }));
const member = open('member', sharing);
const fellow = open('fellow', sharing);
const alone = open('alone', ['--mesh', 'off']);
for (const one of [member, fellow, alone]) await one.up();
await fellow.join(member);
await allMeet([member, fellow]);

const bazel = parts.use(await openBazel(version));
let builds = 0;
/** Seconds of a build of which no result is cached anywhere: each has an instance name of its own. */
async function build(grpc: string): Promise<number> {
  await bazel.run(['clean']);
  builds += 1;
  const started = performance.now();
  const flags = ['--spawn_strategy=local', `--remote_cache=grpc://${grpc}`, `--remote_instance_name=round${builds}`];
  const run = await bazel.run(['build', '//...', ...flags]);
  if (run.exitCode !== 0 || run.processes['remote cache hit']) throw new Error(run.output);
  return (performance.now() - started) / 1_000;
}

// Bazel itself is slow the first time, and blobs are uploaded to each node once.
for (const machine of [alone, member]) await build(machine.node().grpc);
const seconds: { mesh: number[]; off: number[] } = { mesh: [], off: [] };
for (let round = 0; round < rounds; round++) {
  const turns = [
    ['mesh', member],
    ['off', alone],
  ] as const;
  for (const [kind, machine] of round % 2 === 0 ? turns : turns.toReversed()) {
    seconds[kind].push(await build(machine.node().grpc));
  }
}
const mean = (all: readonly number[]): number => all.reduce((sum, one) => sum + one, 0) / all.length;
const shown = (all: readonly number[]): string => all.map((one) => one.toFixed(1)).join(', ');
console.log(`a mesh without the blobs: ${mean(seconds.mesh).toFixed(2)} s (${shown(seconds.mesh)})`);
console.log(`no mesh: ${mean(seconds.off).toFixed(2)} s (${shown(seconds.off)})`);
console.log(`ratio ${(mean(seconds.mesh) / mean(seconds.off)).toFixed(3)}`);
