/**
 * `node test/bench/scenario.ts FILE [--set KEY=VALUE]... [--alone]`: plays a scenario file with real nodes and puts the
 * figures beside what the simulator says of the same file.
 */
import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { parseScenario, type Scenario } from '../../sim/scenarios/load.ts';
import { runScenario } from '../../sim/scenarios/run.ts';
import { varyScenario } from '../../sim/scenarios/vary.ts';
import { playScenario } from '../support/real-scenario.ts';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { set: { type: 'string', multiple: true, default: [] }, alone: { type: 'boolean', default: false } },
});
const [path] = positionals;
if (path === undefined || positionals.length > 1) {
  console.error('usage: node test/bench/scenario.ts FILE [--set KEY=VALUE]... [--alone]');
  process.exit(2);
}
let text = readFileSync(path, 'utf8');
for (const change of values.set) text = varyScenario(path, text, change, 1).values[0]?.text ?? text;
const scenario: Scenario = parseScenario(path, text);

const { result } = runScenario(scenario);
const say = (sentence: string): void => console.log(`  ${sentence}`);
const real = await playScenario(scenario, undefined, say);
const runs = real.builds.flatMap((build) => build.runs.map((run) => ({ ...run, at: build.node })));
const ran = runs.filter(({ cached }) => !cached);
const elsewhere = ran.filter(({ at, worker }) => !worker.includes(real.peers.get(at) ?? at));
// Many clients get the answer of one run: what it left behind tells the runs apart.
const rows: [string, string, string][] = [
  ['makespan', seconds(result.mesh.makespanMs), seconds(real.makespanMs)],
  ['a build', seconds(result.mesh.buildTimeMs), seconds(mean(real.builds.map(({ tookMs }) => tookMs)))],
  ['actions asked', String(result.mesh.actions), String(runs.length)],
  ['answered from what was known', String(result.mesh.hits), String(runs.length - ran.length)],
  ['run on another machine', percent(result.mesh.elsewhere), percent(elsewhere.length / Math.max(1, ran.length))],
];
if (values.alone) {
  const name = real.builds[0]?.node ?? '';
  const alone = await playScenario(scenario, name, say);
  const simulated = result.builds.filter(({ node }) => node === name).map(({ aloneMs }) => aloneMs ?? NaN);
  rows.push([
    `${name} alone, a build`,
    seconds(mean(simulated)),
    seconds(mean(alone.builds.map(({ tookMs }) => tookMs))),
  ]);
}
console.log(`${scenario.title}: ${scenario.nodes.length} nodes`);
for (const row of [['', 'simulated', 'real'], ...rows]) {
  console.log(
    `${(row[0] as string).padEnd(30)}${row
      .slice(1)
      .map((cell) => cell.padStart(12))
      .join('')}`,
  );
}

function seconds(ms: number | undefined): string {
  return ms === undefined ? 'never' : `${(ms / 1000).toFixed(1)} s`;
}

function percent(share: number): string {
  return `${Math.round(share * 100)} %`;
}

function mean(all: readonly number[]): number {
  return all.reduce((sum, one) => sum + one, 0) / all.length;
}
