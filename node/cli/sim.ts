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
import { compareScenarios, runScenarioFile, sweepScenario, sweepSteps } from './scenario.ts';
import { print, printError } from './terminal.ts';

const sizeFlags: Flags = {
  nodes: { value: 'N', about: 'machines in the mesh', fallback: '20' },
  minutes: {
    value: 'M',
    about: 'simulated minutes: seven tenths of chaos, then healing, which short runs prolong',
    fallback: '10',
  },
};
const seedFlag: Flags = { seed: { value: 'N', about: 'what the whole run is drawn from', fallback: '1' } };

/** A sweep this long must have seen everything that should happen now and then. */
const sometimesSeedsMin = 100;

const simRun: Command = {
  name: 'sim run',
  summary: 'simulate one mesh under faults',
  description:
    'Draws machines, network, workload and faults from the seed, runs the real decision machines on virtual time and checks every invariant. Exit status 1 says that one broke.\nWith --scenario all of that comes from a file that you wrote (docs/scenarios.md), and the report says what happens to its builds, beside each machine alone and a central cache. Exit status 1 says that an expectation of the file is broken, 2 that the file has a mistake.',
  flags: {
    scenario: { value: 'FILE', about: 'a scenario to run instead' },
    html: { value: 'FILE', about: 'also write the report of the scenario as a page' },
    ...seedFlag,
    ...sizeFlags,
    ...jsonFlag,
  },
  examples: [
    { about: 'seed 7 with five machines', line: 'potluck sim run --seed 7 --nodes 5' },
    {
      about: 'what lids do to the builds of an office',
      line: 'potluck sim run --scenario sim/scenarios/office-with-lids.yaml --html report.html',
    },
  ],
  async run(args) {
    const scenario = scenarioOf(args, ['nodes', 'minutes'], ['html']);
    if (scenario !== undefined) return runScenarioFile(args, scenario);
    const { simulate } = await import('../../sim/simulate.ts');
    const report = simulate(planOptions(args, readInteger(args, 'seed', 1, 0)));
    return showRun(args, report);
  },
};

const simSweep: Command = {
  name: 'sim sweep',
  summary: 'simulate a range of seeds',
  description:
    'Runs every seed of the range, several at once, and adds up what the checkers saw.\nWith --scenario and --vary one scenario is run once for each value of one of its keys instead: a list, or a range whose ends may lie far apart. Exit status 1 says that an expectation was broken for some value.',
  flags: {
    scenario: { value: 'FILE', about: 'a scenario to run with several values' },
    vary: { value: 'KEY=VALUES', about: 'what to vary, such as link.bandwidth=10..1000 or node.laptop.count=2,4,8' },
    steps: { value: 'N', about: 'values of a range', fallback: String(sweepSteps) },
    seed: { value: 'N', about: 'of the scenario, instead of its own' },
    seeds: { value: 'A..B', about: 'first and last seed', fallback: '1..100' },
    ...sizeFlags,
    jobs: { value: 'N', about: 'seeds at once', fallback: 'number of processors' },
    ...jsonFlag,
  },
  examples: [
    { about: 'the range that a release must hold', line: 'potluck sim sweep --seeds 1..2000' },
    {
      about: 'how much a faster link would help',
      line: 'potluck sim sweep --scenario sim/scenarios/two-offices.yaml --vary link.bandwidth=10..1000',
    },
  ],
  async run(args) {
    const scenario = scenarioOf(args, ['seeds', 'nodes', 'minutes', 'jobs'], ['vary', 'steps', 'seed']);
    if (scenario !== undefined) {
      const vary = valueOf(args, 'vary');
      if (vary === undefined) throw new CliError('sim sweep --scenario needs --vary KEY=VALUES', exitCodes.usage);
      return sweepScenario(args, scenario, vary, readInteger(args, 'steps', sweepSteps, 2));
    }
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
  summary: 'run one seed or one saved fault schedule again',
  operands: 'SEED|FILE',
  operandsMax: 1,
  description: 'With --trace every noteworthy event is printed with its time and machine.',
  flags: { ...sizeFlags, trace: { about: 'print the timeline' }, ...jsonFlag },
  examples: [{ about: 'what happened under seed 42', line: 'potluck sim replay 42 --trace' }],
  async run(args) {
    const [what] = args.positionals;
    if (what === undefined)
      throw new CliError('sim replay needs a seed or a file that sim shrink saved', exitCodes.usage);
    const { simulate } = await import('../../sim/simulate.ts');
    const { readSchedule } = await import('../../sim/schedule.ts');
    const options = /^\d+$/.test(what) ? planOptions(args, Number(what)) : readScheduleFile(readSchedule, what);
    const report = simulate({ ...options, ...(args.switches.has('trace') ? { trace: print } : {}) });
    return showRun(args, report);
  },
};

const simShrink: Command = {
  name: 'sim shrink',
  summary: 'find the fewest faults that still break a seed',
  operands: 'SEED',
  operandsMax: 1,
  description: 'Saves what is left as a file that sim replay runs; those in test/schedules are run by the test suite.',
  flags: {
    ...sizeFlags,
    out: { value: 'FILE', about: 'where to save it', fallback: 'test/schedules/seed-SEED.json' },
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
    const path = valueOf(args, 'out') ?? `test/schedules/seed-${what}.json`;
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, `${JSON.stringify(shrunk.schedule, undefined, 2)}\n`);
    if (args.switches.has('json')) print(JSON.stringify({ ...shrunk, path }));
    else {
      print(
        `${shrunk.violation.checker} still breaks with ${shrunk.schedule.faults.length} of ${count(shrunk.drawn, 'fault')}:`,
      );
      print(`  ${shrunk.violation.reason}`);
      print(`Saved as ${path}.`);
    }
    return exitCodes.failed;
  },
};

const simCompare: Command = {
  name: 'sim compare',
  summary: 'run two scenarios and compare them',
  operands: 'A B',
  operandsMax: 2,
  description:
    'Each is a scenario file, or a report that "sim run --scenario FILE --json" printed into a file named .json. Exit status 1 says that an expectation of one of them is broken.',
  flags: { ...jsonFlag },
  examples: [{ about: 'with and without a second office', line: 'potluck sim compare one.yaml two.yaml' }],
  async run(args) {
    const [a, b] = args.positionals;
    if (a === undefined || b === undefined) throw new CliError('sim compare needs two files', exitCodes.usage);
    return compareScenarios(args, [a, b]);
  },
};

export const simCommands: readonly Command[] = [simRun, simSweep, simCompare, simReplay, simShrink];

/** The scenario file, if there is one. Flags of drawn meshes do not go with it, and its own flags not without it. */
function scenarioOf(
  args: ParsedArgs,
  drawnOnly: readonly string[],
  scenarioOnly: readonly string[],
): string | undefined {
  const path = valueOf(args, 'scenario');
  const wrong = (path === undefined ? scenarioOnly : drawnOnly).find((name) => args.values.has(name));
  if (wrong === undefined) return path;
  const why = path === undefined ? 'goes with --scenario FILE only' : 'does not go with --scenario, which has its own';
  throw new CliError(`--${wrong} ${why}`, exitCodes.usage);
}

function planOptions(args: ParsedArgs, seed: number): PlanOptions {
  return { seed, nodes: readInteger(args, 'nodes', 20, 1), minutes: readInteger(args, 'minutes', 10, 1) };
}

function readScheduleFile(read: (path: string) => PlanOptions, path: string): PlanOptions {
  try {
    return read(path);
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new CliError(
      `${path} is neither a seed nor a fault schedule (a scenario in YAML is run with sim run --scenario): ${why}`,
      exitCodes.usage,
      { cause },
    );
  }
}

export function readInteger(args: ParsedArgs, name: string, fallback: number, least: number): number {
  const text = valueOf(args, name);
  if (text === undefined) return fallback;
  const value = Number(text);
  if (Number.isSafeInteger(value) && value >= least) return value;
  throw new CliError(`--${name}: "${text}" is not a whole number from ${least} up`, exitCodes.usage);
}

export function readRange(text: string): [from: number, to: number] {
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
