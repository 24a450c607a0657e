/** All planted faults, and what the suite says of a server with one of them. */
import { type Context, openContext, type Target } from '../context.ts';
import type { Control } from '../control.ts';
import { nodeControl } from '../node-control.ts';
import { executionFaults } from './execution.ts';
import { lastingFaults } from './lasting.ts';
import { type PlantedFault, storageFaults } from './storage.ts';
import { faults, type Fault, startProxy } from './proxy.ts';
import type { RuleReport } from '../rule.ts';
import { allRules } from '../rules/all.ts';
import { runRules } from '../run.ts';

export const plantedFaults: readonly PlantedFault[] = [...storageFaults, ...executionFaults, ...lastingFaults];

let nextSeed = Date.now() % 2 ** 31;

/**
 * What quick runs of the rules in `only` (default: all) say about `target` behind a proxy with `planted` (default: nothing).
 * Rules may start servers of their own where `afterRestart` says what is wrong with those.
 */
export async function throughProxy(
  target: Target,
  options: {
    readonly planted?: Fault;
    readonly afterRestart?: Fault | undefined;
    readonly only?: ReadonlySet<string> | undefined;
  } = {},
): Promise<RuleReport[]> {
  await using proxy = await startProxy({ grpc: target.grpc, http: target.http ?? '' }, options.planted ?? faults());
  const context: Context = await openContext(
    { ...proxy, instance: target.instance },
    {
      seed: nextSeed++,
      control: options.afterRestart && forgetfulControl(options.afterRestart),
    },
  );
  try {
    return await runRules(allRules, context, { only: options.only, quick: true });
  } finally {
    context.client.close();
  }
}

/** What the suite says of a server with the fault, beside what it says without it. */
export async function withFault(
  target: Target,
  { plant, afterRestart }: PlantedFault,
  sound: readonly RuleReport[],
  only?: ReadonlySet<string>,
): Promise<{ readonly before: readonly RuleReport[]; readonly after: readonly RuleReport[] }> {
  if (!afterRestart) return { before: sound, after: await throughProxy(target, { planted: plant(), only }) };
  // Only here do rules start servers of their own.
  const before = await throughProxy(target, { afterRestart: faults(), only });
  return { before, after: await throughProxy(target, { planted: plant(), afterRestart: afterRestart(), only }) };
}

/** Our node, behind a proxy with `fault` once it was killed. */
function forgetfulControl(fault: Fault): Control {
  return {
    async start(options) {
      const server = await nodeControl.start(options);
      let proxy = await startProxy({ grpc: server.target.grpc, http: server.target.http ?? '' }, faults());
      return {
        get target() {
          return { ...server.target, ...proxy };
        },
        get pid() {
          return server.pid;
        },
        dataDir: server.dataDir,
        async killAndRestart() {
          await proxy[Symbol.asyncDispose]();
          await server.killAndRestart();
          proxy = await startProxy({ grpc: server.target.grpc, http: server.target.http ?? '' }, fault);
        },
        async [Symbol.asyncDispose]() {
          await proxy[Symbol.asyncDispose]();
          await server[Symbol.asyncDispose]();
        },
      };
    },
  };
}

/** Rules whose verdict is not what it was, with both verdicts. */
export function changes(before: readonly RuleReport[], after: readonly RuleReport[]): string[] {
  return after.flatMap((rule) => {
    const was = before.find((other) => other.id === rule.id)?.verdict;
    return was === rule.verdict ? [] : [`${rule.id}: ${was} became ${rule.verdict}`];
  });
}
