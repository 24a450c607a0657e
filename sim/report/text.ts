/** The report as lines of text for a terminal. */
import type { Expectation } from '../scenarios/expect.ts';
import type { Figures, ScenarioResult } from '../scenarios/run.ts';
import { show, showSpan } from './format.ts';

/** More builds than this are not listed one by one. */
const buildsShown = 12;

/** `formatTable` pads columns; the report knows nothing of terminals. */
export function textReport(
  result: ScenarioResult,
  expectations: readonly Expectation[],
  formatTable: (rows: readonly (readonly string[])[]) => string[],
): string[] {
  const { mesh, alone, central } = result;
  const ways: readonly (readonly [string, Figures])[] = [
    ['with the mesh', mesh],
    ['each machine alone', alone],
    ...(central ? [['with a central cache', central] as const] : []),
  ];
  const lines = [
    `${result.title}: ${result.nodes} nodes, seed ${result.seed}, ${show('ms', result.simulatedMs)} simulated`,
    '',
    ...formatTable([
      ['', 'makespan', 'a build', 'hit rate', 'runs', 'duplicated'],
      ...ways.map(([name, figures]) => [
        name,
        show('ms', figures.makespanMs),
        show('ms', figures.buildTimeMs),
        show('share', figures.hitRate),
        show('count', figures.runs),
        show('count', figures.duplicatedActions),
      ]),
    ]),
    '',
    `Builds take ${show('factor', result.speedup)} as long alone${central ? `, ${show('factor', result.speedupOverCache)} as long with a central cache` : ''}.`,
    `${show('share', mesh.elsewhere)} of the runs were on another machine; ${mesh.brokenRuns} were broken off; ${mesh.lostActions} actions were lost.`,
  ];
  if (result.builds.length <= buildsShown) {
    lines.push(
      '',
      ...formatTable([
        ['build', 'began', 'mesh', 'alone', ...(central ? ['central cache'] : []), 'hits'],
        ...result.builds.map((build) => [
          build.label,
          show('ms', build.atMs),
          build.abandoned ? 'machine went down' : show('ms', build.meshMs),
          show('ms', build.aloneMs),
          ...(central ? [show('ms', build.centralMs)] : []),
          `${build.hits} of ${build.actions}`,
        ]),
      ]),
    );
  }
  if (result.faults.length > 0) {
    lines.push(
      '',
      ...formatTable([
        ['fault', 'at', 'for', 'interrupted', 'recovered after'],
        ...result.faults.map((fault) => [
          fault.what,
          show('ms', fault.atMs),
          showSpan(fault),
          show('count', fault.interrupted),
          fault.recoveryMs === undefined ? 'never' : fault.interrupted === 0 ? '–' : show('ms', fault.recoveryMs),
        ]),
      ]),
    );
  }
  if (result.links.length > 0) {
    lines.push(
      '',
      ...formatTable([
        ['link', 'there', 'back', ...(central ? ['with a central cache'] : [])],
        ...result.links.map((link) => [
          `${link.name} (${link.from} to ${link.to})`,
          show('bytes', link.upBytes),
          show('bytes', link.downBytes),
          ...(central ? [show('bytes', link.centralBytes)] : []),
        ]),
      ]),
    );
  }
  lines.push('', ...expectations.map(showExpectation));
  if (result.violation) lines.push(`BROKEN an invariant of the mesh, a defect in Potluck: ${result.violation}`);
  return lines;
}

export function showExpectation(expectation: Expectation): string {
  return `${expectation.holds ? 'holds ' : 'BROKEN'} ${boundText(expectation)}: ${show(expectation.unit, expectation.measured)}`;
}

/** `speedup at least 2.00×`. */
export function boundText({ metric, unit, atLeast, atMost }: Expectation): string {
  const bounds = [
    ...(atLeast === undefined ? [] : [`at least ${show(unit, atLeast)}`]),
    ...(atMost === undefined ? [] : [`at most ${show(unit, atMost)}`]),
  ];
  return `${metric} ${bounds.join(' and ')}`;
}
