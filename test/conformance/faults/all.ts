/** All planted faults, and what the suite says of a server with one of them. */
import { type Context, openContext, type Target } from '../context.ts';
import { executionFaults } from './execution.ts';
import { type PlantedFault, storageFaults } from './storage.ts';
import { faults, type Fault, startProxy } from './proxy.ts';
import type { RuleReport } from '../rule.ts';
import { allRules } from '../rules/all.ts';
import { runRules } from '../run.ts';

export const plantedFaults: readonly PlantedFault[] = [...storageFaults, ...executionFaults];

let nextSeed = Date.now() % 2 ** 31;

/** What quick runs of the rules in `only` (default: all) say about `target` behind a proxy with `planted` (default: nothing). */
export async function throughProxy(
  target: Target,
  options: { readonly planted?: Fault; readonly only?: ReadonlySet<string> | undefined } = {},
): Promise<RuleReport[]> {
  await using proxy = await startProxy({ grpc: target.grpc, http: target.http ?? '' }, options.planted ?? faults());
  const context: Context = await openContext({ ...proxy, instance: target.instance }, { seed: nextSeed++ });
  try {
    return await runRules(allRules, context, { only: options.only, quick: true });
  } finally {
    context.client.close();
  }
}

/** Rules whose verdict is not what it was, with both verdicts. */
export function changes(before: readonly RuleReport[], after: readonly RuleReport[]): string[] {
  return after.flatMap((rule) => {
    const was = before.find((other) => other.id === rule.id)?.verdict;
    return was === rule.verdict ? [] : [`${rule.id}: ${was} became ${rule.verdict}`];
  });
}
