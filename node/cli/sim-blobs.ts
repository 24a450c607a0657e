/** `potluck sim blobs`: only what shares blobs, over links that carry no more than they can. */
import { availableParallelism } from 'node:os';
import type { BlobRunReport } from '../../sim/blobs/world.ts';
import { valueOf } from './args.ts';
import { type Command, jsonFlag } from './command.ts';
import { exitCodes } from './exit-codes.ts';
import { count, formatTable } from './format.ts';
import { readInteger, readRange } from './sim.ts';
import { print, printError } from './terminal.ts';

/** A sweep this long must have seen everything that should happen now and then. */
const sometimesSeedsMin = 50;

export const simBlobs: Command = {
  name: 'sim blobs',
  summary: 'simulate finding and moving blobs under faults',
  description:
    'Draws machines, links, blobs, readers and faults (bit rot, liars, stampedes, evictions, sleeping index nodes) from each seed, runs membership, provider index, fetch planner and upload gate on virtual time, and checks that no wrong byte is read, that budgets hold, and that everything is found after healing. Exit status 1 says that an invariant broke, or that a long sweep never saw something that it should.',
  flags: {
    seeds: { value: 'A..B', about: 'first and last seed', fallback: '1..100' },
    nodes: { value: 'N', about: 'machines in the mesh', fallback: '10' },
    minutes: { value: 'M', about: 'simulated minutes of chaos; four more heal', fallback: '3' },
    jobs: { value: 'N', about: 'seeds at once', fallback: 'number of processors' },
    trace: { about: 'run the first seed only, and print its timeline' },
    ...jsonFlag,
  },
  examples: [{ about: 'a hundred seeds', line: 'potluck sim blobs --seeds 1..100' }],
  async run(args) {
    const [from, to] = readRange(valueOf(args, 'seeds') ?? '1..100');
    const nodes = readInteger(args, 'nodes', 10, 2);
    const minutes = readInteger(args, 'minutes', 3, 1);
    if (args.switches.has('trace')) {
      const { runBlobs } = await import('../../sim/blobs/world.ts');
      const { violation } = runBlobs({ seed: from, nodes, minutes, trace: print });
      if (violation) printBroken({ seed: from, violation });
      return violation ? exitCodes.failed : exitCodes.ok;
    }
    const jobs = readInteger(args, 'jobs', availableParallelism(), 1);
    const { sweepBlobs } = await import('../../sim/blobs/sweep.ts');
    const report = await sweepBlobs({
      from,
      to,
      nodes,
      minutes,
      jobs,
      progress(_done, _broken, run) {
        if (run.violation) printError(`seed ${run.seed} broke ${run.violation.checker}`);
      },
    });
    const missed = Object.entries(report.sometimes).flatMap(([name, seen]) => (seen === 0 ? [name] : []));
    const tooLittle = report.seeds >= sometimesSeedsMin && missed.length > 0;
    const exitCode = report.broken.length > 0 || tooLittle ? exitCodes.failed : exitCodes.ok;
    if (args.switches.has('json')) {
      print(JSON.stringify({ ...report, missed }));
      return exitCode;
    }
    const rate = Math.round(report.simulatedSeconds / report.seconds).toLocaleString('en');
    const rows = [
      ['Seeds', `${report.seeds}, ${report.broken.length} broken; ${count(report.faults, 'fault')}`],
      [
        'Time',
        `${Math.round(report.simulatedSeconds)} simulated seconds in ${report.seconds.toFixed(1)} s: ${rate} times real time`,
      ],
      ['Events', `${report.events}, ${report.messages} messages, ${Math.round(report.bytes / 1e6)} MB moved`],
      ['Blobs', `${report.blobs} made; wanted: ${listCounts(report.answers)}`],
      ['Saw', listCounts(report.observed)],
      ['Sometimes', listCounts(report.sometimes)],
      ['Trace', report.traceHash],
    ];
    for (const line of formatTable(rows)) print(line);
    for (const broken of report.broken) printBroken(broken);
    if (tooLittle) for (const name of missed) print(`NEVER SEEN: ${name}`);
    print(exitCode === exitCodes.ok ? 'Every invariant held.' : 'This sweep did not hold.');
    return exitCode;
  },
};

function printBroken({ seed, violation }: Pick<BlobRunReport, 'seed' | 'violation'>): void {
  print(`BROKEN seed ${seed} after ${violation?.atMs} ms: ${violation?.checker}: ${violation?.reason}`);
}

function listCounts(counts: { readonly [name: string]: number }): string {
  return (
    Object.entries(counts)
      .map(([name, seen]) => `${name} ${seen}`)
      .join(', ') || 'none'
  );
}
