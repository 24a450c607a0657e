/** `potluck sim …`: runs the mesh's own machines in a simulated world. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { dirname } from 'node:path';
import type { PlanOptions } from '../../sim/plan.ts';
import type { SweepReport } from '../../sim/sweep.ts';
import type { RunReport } from '../../sim/universe.ts';
import { valueOf } from './args.ts';
import { type Command, type Flags, jsonFlag, type ParsedArgs } from './command.ts';
import { CliError, exitCodes } from './exit-codes.ts';
import { count, formatTable } from './format.ts';
import { print, printError } from './terminal.ts';

const sizeFlags: Flags = {
  nodes: { value: 'N', about: 'machines in the mesh', fallback: '20' },
  minutes: { value: 'M', about: 'simulated minutes: seven tenths of chaos, then healing', fallback: '10' },
};
const seedFlag: Flags = { seed: { value: 'N', about: 'what the whole run is drawn from', fallback: '1' } };

/** A sweep this long must have seen everything that should happen now and then. */
const sometimesSeedsMin = 100;

const simRun: Command = {
  name: 'sim run',
  summary: 'simulate one mesh under faults',
  description:
    'Draws machines, network, workload and faults from the seed, runs the real decision machines on virtual time and checks every invariant. Exit status 1 says that one broke.',
  flags: { ...seedFlag, ...sizeFlags, ...jsonFlag },
  examples: [{ about: 'seed 7 with five machines', line: 'potluck sim run --seed 7 --nodes 5' }],
  async run(args) {
    const { simulate } = await import('../../sim/simulate.ts');
    const report = simulate(planOptions(args, readInteger(args, 'seed', 1, 0)));
    return showRun(args, report);
  },
};

const simSweep: Command = {
  name: 'sim sweep',
  summary: 'simulate a range of seeds',
  description: 'Runs every seed of the range, several at once, and adds up what the checkers saw.',
  flags: {
    seeds: { value: 'A..B', about: 'first and last seed', fallback: '1..100' },
    ...sizeFlags,
    jobs: { value: 'N', about: 'seeds at once', fallback: 'number of processors' },
    ...jsonFlag,
  },
  examples: [{ about: 'the range that a release must hold', line: 'potluck sim sweep --seeds 1..2000' }],
  async run(args) {
    const [from, to] = readRange(valueOf(args, 'seeds') ?? '1..100');
    const { nodes, minutes } = planOptions(args, from);
    const jobs = readInteger(args, 'jobs', availableParallelism(), 1);
    const { sweep } = await import('../../sim/sweep.ts');
    let shownAtMs = 0;
    const report = await sweep({
      from,
      to,
      nodes,
      minutes,
      jobs,
      progress(done, broken, { seed, violation }) {
        if (violation) printError(`seed ${seed} broke ${violation.checker}: ${firstLine(violation.reason)}`);
        if (Date.now() - shownAtMs < 5_000 && done < to - from + 1) return;
        shownAtMs = Date.now();
        printError(`${done} of ${count(to - from + 1, 'seed')}, ${broken} broken`);
      },
    });
    return showSweep(args, report);
  },
};

const simReplay: Command = {
  name: 'sim replay',
  summary: 'run one seed or one scenario file again',
  operands: 'SEED|FILE',
  operandsMax: 1,
  description: 'With --trace every noteworthy event is printed with its time and machine.',
  flags: { ...sizeFlags, trace: { about: 'print the timeline' }, ...jsonFlag },
  examples: [{ about: 'what happened under seed 42', line: 'potluck sim replay 42 --trace' }],
  async run(args) {
    const [what] = args.positionals;
    if (what === undefined) throw new CliError('sim replay needs a seed or a scenario file', exitCodes.usage);
    const { simulate } = await import('../../sim/simulate.ts');
    const { readScenario } = await import('../../sim/scenario.ts');
    const options = /^\d+$/.test(what) ? planOptions(args, Number(what)) : readScenarioFile(readScenario, what);
    const report = simulate({ ...options, ...(args.switches.has('trace') ? { trace: print } : {}) });
    return showRun(args, report);
  },
};

const simShrink: Command = {
  name: 'sim shrink',
  summary: 'find the fewest faults that still break a seed',
  operands: 'SEED',
  operandsMax: 1,
  description: 'Saves what is left as a scenario file; those in test/scenarios are run by the test suite.',
  flags: {
    ...sizeFlags,
    out: { value: 'FILE', about: 'where to save it', fallback: 'test/scenarios/seed-SEED.json' },
    ...jsonFlag,
  },
  examples: [{ about: 'a seed that a sweep found broken', line: 'potluck sim shrink 1234' }],
  async run(args) {
    const [what] = args.positionals;
    if (what === undefined || !/^\d+$/.test(what)) throw new CliError('sim shrink needs a seed', exitCodes.usage);
    const { shrink } = await import('../../sim/shrink.ts');
    const shrunk = shrink(planOptions(args, Number(what)), (left) =>
      printError(`still broken with ${count(left, 'fault')}`),
    );
    if (!shrunk) {
      print(args.switches.has('json') ? JSON.stringify({ seed: Number(what), holds: true }) : `Seed ${what} holds.`);
      return exitCodes.ok;
    }
    const path = valueOf(args, 'out') ?? `test/scenarios/seed-${what}.json`;
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, `${JSON.stringify(shrunk.scenario, undefined, 2)}\n`);
    if (args.switches.has('json')) print(JSON.stringify({ ...shrunk, path }));
    else {
      print(
        `${shrunk.violation.checker} still breaks with ${shrunk.scenario.faults.length} of ${count(shrunk.drawn, 'fault')}:`,
      );
      print(`  ${shrunk.violation.reason}`);
      print(`Saved as ${path}.`);
    }
    return exitCodes.failed;
  },
};

export const simCommands: readonly Command[] = [simRun, simSweep, simReplay, simShrink];

function planOptions(args: ParsedArgs, seed: number): PlanOptions {
  return { seed, nodes: readInteger(args, 'nodes', 20, 1), minutes: readInteger(args, 'minutes', 10, 1) };
}

function readScenarioFile(read: (path: string) => PlanOptions, path: string): PlanOptions {
  try {
    return read(path);
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new CliError(`${path} is neither a seed nor a scenario file: ${why}`, exitCodes.usage, { cause });
  }
}

function readInteger(args: ParsedArgs, name: string, fallback: number, least: number): number {
  const text = valueOf(args, name);
  if (text === undefined) return fallback;
  const value = Number(text);
  if (Number.isSafeInteger(value) && value >= least) return value;
  throw new CliError(`--${name}: "${text}" is not a whole number from ${least} up`, exitCodes.usage);
}

function readRange(text: string): [from: number, to: number] {
  const [, from, to] = /^(\d+)\.\.(\d+)$/.exec(text) ?? [];
  if (from === undefined || to === undefined || Number(from) > Number(to)) {
    throw new CliError(`--seeds: "${text}" is not a range such as 1..2000`, exitCodes.usage);
  }
  return [Number(from), Number(to)];
}

function showRun(args: ParsedArgs, report: RunReport): number {
  const exitCode = report.violation ? exitCodes.failed : exitCodes.ok;
  if (args.switches.has('json')) {
    print(JSON.stringify(report));
    return exitCode;
  }
  const rows = [
    ['Seed', `${report.seed}, ${count(report.nodes, 'node')}, ${report.simulatedMs / 1_000} simulated seconds`],
    ['Faults', `${report.faults}: ${listCounts(report.faultKinds)}`],
    ['Actions', `${report.actions} asked for, ${report.executions} runs; answered: ${listCounts(report.answers)}`],
    ['Messages', `${report.messages} sent, ${report.delivered} delivered`],
    ['Trace', report.traceHash],
    ['Saw', listCounts(report.observed)],
    ['Sometimes', listCounts(report.sometimes)],
  ];
  for (const line of formatTable(rows)) print(line);
  const blind = Object.entries(report.observed).filter(([, seen]) => seen === 0);
  for (const [name] of blind) print(`The checker ${name} saw nothing: it proved nothing here.`);
  if (report.violation) {
    print(`BROKEN after ${report.violation.atMs} ms: ${report.violation.checker}: ${report.violation.reason}`);
  } else print('Every invariant held.');
  return exitCode;
}

function showSweep(args: ParsedArgs, report: SweepReport): number {
  const missed = Object.entries(report.sometimes).flatMap(([name, seen]) => (seen === 0 ? [name] : []));
  const tooLittle = report.seeds >= sometimesSeedsMin && missed.length > 0;
  const exitCode = report.broken.length > 0 || tooLittle ? exitCodes.failed : exitCodes.ok;
  if (args.switches.has('json')) {
    print(JSON.stringify({ ...report, missed }));
    return exitCode;
  }
  const perSecond = (value: number): string => Math.round(value / report.seconds).toLocaleString('en');
  const rows = [
    ['Seeds', `${report.seeds}, ${report.broken.length} broken`],
    [
      'Time',
      `${Math.round(report.simulatedSeconds)} simulated seconds in ${report.seconds.toFixed(1)} s: ${perSecond(report.simulatedSeconds)} times real time`,
    ],
    ['Events', `${report.events}, ${perSecond(report.events)} a second`],
    ['Messages', `${report.messages}, ${perSecond(report.messages)} a second`],
    [
      'Actions',
      `${report.actions} (at least ${report.actionsMin} a seed), ${report.executions} runs; answered: ${listCounts(report.answers)}`,
    ],
    ['Faults', `${report.faults} (at least ${report.faultsMin} a seed): ${listCounts(report.faultKinds)}`],
    ['Saw', listCounts(report.observed)],
    ['Saw nothing in', listCounts(Object.fromEntries(Object.entries(report.blind).filter(([, runs]) => runs > 0)))],
    ['Sometimes', listCounts(report.sometimes)],
    ['Trace', report.traceHash],
  ];
  for (const line of formatTable(rows)) print(line);
  for (const { seed, violation } of report.broken) {
    print(
      `BROKEN seed ${seed} after ${violation?.atMs} ms: ${violation?.checker}: ${firstLine(violation?.reason ?? '')}`,
    );
  }
  if (tooLittle) for (const name of missed) print(`NEVER SEEN: ${name}`);
  print(exitCode === exitCodes.ok ? 'Every invariant held.' : 'This sweep did not hold.');
  return exitCode;
}

function firstLine(text: string): string {
  return text.split('\n', 1)[0] ?? '';
}

function listCounts(counts: { readonly [name: string]: number }): string {
  return (
    Object.entries(counts)
      .map(([name, seen]) => `${name} ${seen}`)
      .join(', ') || 'none'
  );
}
