/** Compares what a run came to with what its scenario expects. */
import type { Expectations } from './load.ts';
import type { ScenarioResult } from './run.ts';

export type Unit = 'ms' | 'bytes' | 'share' | 'factor' | 'count';

export interface Expectation {
  readonly metric: string;
  readonly unit: Unit;
  readonly atLeast: number | undefined;
  readonly atMost: number | undefined;
  /** Undefined when there is no such figure: what should have ended did not. */
  readonly measured: number | undefined;
  readonly holds: boolean;
}

interface Bound {
  readonly atLeast: number | undefined;
  readonly atMost: number | undefined;
}

type Metric = Exclude<keyof Expectations, 'place' | 'linkBytes'>;

/** Every figure that can be expected, compared and swept, with its unit. */
export const metrics: {
  readonly [M in Metric]: { readonly unit: Unit; readonly of: (result: ScenarioResult) => number | undefined };
} = {
  makespan: { unit: 'ms', of: ({ mesh }) => mesh.makespanMs },
  buildTime: { unit: 'ms', of: ({ mesh }) => mesh.buildTimeMs },
  speedup: { unit: 'factor', of: ({ speedup }) => speedup },
  speedupOverCache: { unit: 'factor', of: ({ speedupOverCache }) => speedupOverCache },
  hitRate: { unit: 'share', of: ({ mesh }) => mesh.hitRate },
  elsewhere: { unit: 'share', of: ({ mesh }) => mesh.elsewhere },
  lostActions: { unit: 'count', of: ({ mesh }) => mesh.lostActions },
  duplicatedActions: { unit: 'count', of: ({ mesh }) => mesh.duplicatedActions },
  recovery: { unit: 'ms', of: ({ recoveryMs }) => recoveryMs },
};

/** One entry for each expectation of the scenario, in its order. */
export function judge(expect: Expectations, result: ScenarioResult): Expectation[] {
  const judged: Expectation[] = [];
  for (const metric of Object.keys(metrics) as Metric[]) {
    const bound = expect[metric];
    const { unit, of } = metrics[metric];
    if (bound) judged.push(check(metric, unit, bound, of(result)));
  }
  for (const [name, bound] of expect.linkBytes) {
    const link = result.links.find((one) => one.name === name);
    judged.push(check(`linkBytes of ${name}`, 'bytes', bound, link && link.upBytes + link.downBytes));
  }
  return judged;
}

function check(metric: string, unit: Unit, { atLeast, atMost }: Bound, measured: number | undefined): Expectation {
  const holds =
    measured !== undefined &&
    (atLeast === undefined || measured >= atLeast) &&
    (atMost === undefined || measured <= atMost);
  return { metric, unit, atLeast, atMost, measured, holds };
}
