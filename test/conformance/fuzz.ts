/**
 * `npm run fuzz -- [--target HOST:PORT] [--seed N] [--rounds N | --minutes N]`: requests that make little sense, beside a
 * client that must be served. Without a target our own node is started, and what it holds is compared before and after.
 */
import { parseArgs } from 'node:util';
import type { ControlledServer } from './control.ts';
import { type Collector, openCollector } from './fuzz/garbage.ts';
import { fuzzRound } from './fuzz/mix.ts';
import { calm, counts, settled, type Vitals, vitalsOf } from './fuzz/vitals.ts';
import { nodeControl } from './node-control.ts';

/** Runs of the cheapest property in a round. */
const runsPerRound = 40;
/** Rounds before the first sample: code is compiled, caches are filled, buffers are grown. */
const warmUpRounds = 3;
/** What a server that has nothing to do may take until it holds nothing. */
const settleMs = 90_000;

const { values } = parseArgs({
  options: {
    target: { type: 'string' },
    http: { type: 'string' },
    instance: { type: 'string', default: '' },
    seed: { type: 'string' },
    rounds: { type: 'string', default: '5' },
    minutes: { type: 'string' },
  },
});
let seed = values.seed === undefined ? Math.floor(Math.random() * 2 ** 31) : Number(values.seed);
console.log(`seed ${seed}`);

const own: ControlledServer | undefined = values.target ? undefined : await nodeControl.start({ inspected: true });
try {
  const target = own?.target ?? { grpc: values.target as string, http: values.http, instance: values.instance };
  using collector = own?.debuggerUrl === undefined ? undefined : await openCollector(own.debuggerUrl);
  const sample = own && process.platform === 'linux' ? () => collectedVitals(own, collector) : undefined;
  if (sample) for (let round = 0; round < warmUpRounds; round++) await fuzzRound(target, seed++, runsPerRound);
  const before = sample && (await calm(sample));
  if (before) print('before', before);

  const endMs = performance.now() + Number(values.minutes ?? 0) * 60_000;
  let rounds = 0;
  let cases = 0;
  let served = 0;
  const goesOn = () => (values.minutes === undefined ? rounds < Number(values.rounds) : performance.now() < endMs);
  for (; goesOn(); rounds++) {
    const round = await fuzzRound(target, seed++, runsPerRound);
    cases += round.cases;
    served += round.served;
    if (sample && rounds % 10 === 9) print(`round ${rounds + 1}`, await sample());
  }
  console.log(`${rounds} rounds, ${cases} cases, another client was served ${served} times`);
  if (sample && before) process.exitCode = verdict(before, await settled(sample, before, settleMs));
} finally {
  await own?.[Symbol.asyncDispose]();
}

/** Memory that is merely not collected yet says nothing. */
async function collectedVitals({ pid, dataDir }: ControlledServer, collector: Collector | undefined): Promise<Vitals> {
  const collected = await collector?.collect();
  return { ...(await vitalsOf(pid, dataDir)), ...collected };
}

function print(when: string, vitals: Vitals): void {
  const { rssBytes, liveBytes = Number.NaN, openFiles, sockets, children, tempFiles } = vitals;
  console.log(
    `${when.padEnd(10)} ${Math.round(rssBytes / 2 ** 20)} MiB resident, ${Math.round(liveBytes / 2 ** 20)} MiB alive, ${openFiles} files open, ${sockets} sockets, ` +
      `${children} child processes, ${tempFiles} temporary files`,
  );
}

function verdict(before: Vitals, after: Vitals): number {
  print('after', after);
  const growth = after.rssBytes / before.rssBytes - 1;
  const left = counts.filter((what) => after[what] > before[what]);
  console.log(
    `memory ${growth >= 0 ? '+' : ''}${(growth * 100).toFixed(1)} %; left behind: ${left.join(', ') || 'nothing'}`,
  );
  return growth <= 0.2 && left.length === 0 ? 0 : 1;
}
