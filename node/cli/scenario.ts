/** What `potluck sim` does with scenario files: run one, compare two, sweep one over a value. */
import { readFileSync, writeFileSync } from 'node:fs';
import type { Expectation } from '../../sim/scenarios/expect.ts';
import type { ScenarioResult, ScenarioRun } from '../../sim/scenarios/run.ts';
import type { Scenario } from '../../sim/scenarios/load.ts';
import { valueOf } from './args.ts';
import type { ParsedArgs } from './command.ts';
import { CliError, exitCodes } from './exit-codes.ts';
import { formatTable } from './format.ts';
import { print, printError } from './terminal.ts';

/** What `--json` prints, and what `sim compare` takes beside scenario files. */
interface SavedReport extends ScenarioResult {
  readonly expectations: readonly Expectation[];
  readonly holds: boolean;
}

interface Ran {
  readonly scenario: Scenario;
  readonly run: ScenarioRun;
  readonly report: SavedReport;
}

/** A number of values that one can still read as a table. */
export const sweepSteps = 7;

export async function runScenarioFile(args: ParsedArgs, path: string): Promise<number> {
  const { run, scenario, report } = await runText(path, readText(path), seedOf(args));
  const html = valueOf(args, 'html');
  if (html !== undefined) {
    const { htmlReport } = await import('../../sim/report/page.ts');
    writeFileSync(html, htmlReport(scenario, run, report.expectations));
  }
  if (args.switches.has('json')) print(JSON.stringify(report));
  else {
    const { textReport } = await import('../../sim/report/text.ts');
    for (const line of textReport(run.result, report.expectations, formatTable)) print(line);
    if (html !== undefined) print(`Wrote ${html}.`);
  }
  return report.holds ? exitCodes.ok : exitCodes.failed;
}

/** Two scenarios, or reports of runs before and after a change. */
export async function compareScenarios(args: ParsedArgs, paths: readonly [string, string]): Promise<number> {
  const [a, b] = [await reportOf(paths[0]), await reportOf(paths[1])];
  const { metrics } = await import('../../sim/scenarios/expect.ts');
  const { show } = await import('../../sim/report/format.ts');
  const links = [...new Set([...a.links, ...b.links].map(({ name }) => name))];
  const linkBytes = (report: SavedReport, name: string): number | undefined => {
    const link = report.links.find((one) => one.name === name);
    return link && link.upBytes + link.downBytes;
  };
  const rows = [
    ...Object.entries(metrics).map(([metric, { unit, of }]) => ({ metric, unit, a: of(a), b: of(b) })),
    ...links.map((name) => ({
      metric: `linkBytes of ${name}`,
      unit: 'bytes' as const,
      a: linkBytes(a, name),
      b: linkBytes(b, name),
    })),
  ];
  if (args.switches.has('json')) print(JSON.stringify({ a, b, metrics: rows }));
  else {
    const table = rows.map(({ metric, unit, a: one, b: other }) => [
      metric,
      show(unit, one),
      show(unit, other),
      change(one, other),
    ]);
    for (const line of formatTable([
      ['', `A: ${a.title}`, `B: ${b.title}`, 'change'],
      ...table,
      ['expectations', verdict(a), verdict(b), ''],
    ])) {
      print(line);
    }
  }
  return a.holds && b.holds ? exitCodes.ok : exitCodes.failed;
}

export async function sweepScenario(args: ParsedArgs, path: string, vary: string, steps: number): Promise<number> {
  const text = readText(path);
  const { varyScenario } = await import('../../sim/scenarios/vary.ts');
  const { show } = await import('../../sim/report/format.ts');
  const variation = await orUsage(async () => {
    await loadText(path, text);
    return varyScenario(path, text, vary, steps);
  });
  const reports: { readonly value: string; readonly report: SavedReport }[] = [];
  for (const { value, text: varied } of variation.values) {
    printError(`${variation.name} ${value}`);
    reports.push({
      value,
      report: (await runText(`${path} with ${variation.name}=${value}`, varied, seedOf(args))).report,
    });
  }
  if (args.switches.has('json')) print(JSON.stringify({ vary: variation.name, reports }));
  else {
    const central = reports.some(({ report }) => report.central);
    const links = reports[0]?.report.links.map(({ name }) => name) ?? [];
    const rows = reports.map(({ value, report }) => [
      value,
      show('ms', report.mesh.buildTimeMs),
      show('factor', report.speedup),
      ...(central ? [show('factor', report.speedupOverCache)] : []),
      show('share', report.mesh.hitRate),
      show('share', report.mesh.elsewhere),
      ...report.links.map(({ upBytes, downBytes }) => show('bytes', upBytes + downBytes)),
      verdict(report),
    ]);
    const head = [variation.name, 'a build', 'speedup', ...(central ? ['over a cache'] : []), 'hit rate', 'elsewhere'];
    for (const line of formatTable([[...head, ...links.map((name) => `over ${name}`), 'expectations'], ...rows]))
      print(line);
  }
  return reports.every(({ report }) => report.holds) ? exitCodes.ok : exitCodes.failed;
}

function verdict({ expectations, violation }: SavedReport): string {
  const broken = expectations.filter(({ holds }) => !holds).map(({ metric }) => metric);
  if (violation) broken.push('an invariant');
  return broken.length === 0 ? 'hold' : `broken: ${broken.join(', ')}`;
}

function change(a: number | undefined, b: number | undefined): string {
  if (a === undefined || b === undefined || a === 0 || a === b) return a === b ? 'same' : '';
  const percent = (b / a - 1) * 100;
  return `${percent > 0 ? '+' : ''}${percent.toFixed(Math.abs(percent) < 10 ? 1 : 0)}%`;
}

async function reportOf(path: string): Promise<SavedReport> {
  const text = readText(path);
  if (!path.endsWith('.json')) return (await runText(path, text)).report;
  const parsed = await orUsage(async () => JSON.parse(text) as Partial<SavedReport>).catch(() => undefined);
  if (parsed?.mesh && parsed.links && parsed.expectations) return parsed as SavedReport;
  throw new CliError(`${path} is no report of "potluck sim run --scenario FILE --json"`, exitCodes.usage);
}

function seedOf(args: ParsedArgs): number | undefined {
  const text = valueOf(args, 'seed');
  if (text === undefined) return undefined;
  if (/^\d+$/.test(text) && Number(text) <= 0xffff_ffff) return Number(text);
  throw new CliError(`--seed: "${text}" is not a whole number from 0 up`, exitCodes.usage);
}

function readText(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (cause) {
    throw new CliError(`${path} cannot be read (${(cause as NodeJS.ErrnoException).code})`, exitCodes.usage, { cause });
  }
}

async function loadText(path: string, text: string): Promise<Scenario> {
  const { parseScenario } = await import('../../sim/scenarios/load.ts');
  return parseScenario(path, text);
}

async function runText(path: string, text: string, seed?: number): Promise<Ran> {
  const read = await orUsage(() => loadText(path, text));
  const scenario = seed === undefined ? read : { ...read, seed };
  const { runScenario } = await import('../../sim/scenarios/run.ts');
  const { judge } = await import('../../sim/scenarios/expect.ts');
  const run = runScenario(scenario);
  const expectations = judge(scenario.expect, run.result);
  const holds = expectations.every((one) => one.holds) && run.result.violation === undefined;
  return { scenario, run, report: { ...run.result, expectations, holds } };
}

/** A mistake in a scenario is bad input, not a defect. */
async function orUsage<T>(act: () => Promise<T>): Promise<T> {
  const { ScenarioError } = await import('../../sim/scenarios/reader.ts');
  try {
    return await act();
  } catch (error) {
    if (!(error instanceof ScenarioError)) throw error;
    throw new CliError(error.message, exitCodes.usage, { cause: error });
  }
}
