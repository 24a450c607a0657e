/** Our node keeps every rule, and the suite notices servers that do not. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openContext } from './context.ts';
import type { ControlledServer } from './control.ts';
import { changes, plantedFaults, throughProxy, withFault } from './faults/all.ts';
import { nodeControl } from './node-control.ts';
import { table } from './report.ts';
import type { RuleReport } from './rule.ts';
import { allRules } from './rules/all.ts';
import { runRules } from './run.ts';

/** Rules beside the broken one that are looked at for each fault; `prove.ts` looks at all. */
const bystandersPerFault = 2;
/** Rules whose parts are quick enough to be looked at again and again. */
const bystanders = [
  'P2',
  'P4',
  'P6',
  'P8',
  'P13',
  'P16',
  'P18',
  'P22',
  'P24',
  'P26',
  'P27',
  'P30',
  'P32',
  'P43',
  'P45',
  'P47',
  'P59',
];

/**
 * What our node does where the specification leaves a choice, as docs/conformance.md tells it. Another choice is a change
 * of behaviour that clients may notice, so it must be made on purpose.
 */
const ourChoices = [
  /^P5 the segment of an old function: a segment "sha256" is tolerated$/,
  /^P9 by tool: no tool: the compressed count; bazel: the compressed count; siso: the size of the blob; reclient: the size of the blob$/,
  /^P17 a large request: 60000 digests: RESOURCE_EXHAUSTED$/,
  /^P19 an unknown instance: any instance name is served$/,
  /^P24 without .*: refused when it is stored: FAILED_PRECONDITION$/,
  /^P26 an action that is not there: stored without looking for the Action$/,
  /^P28 an AC body that is no result: bodies are validated$/,
  /^P28 ranges and zstd: (ranges are served|zstd uploads are taken)$/,
  /^P31 a silent command: says within 20 s that it is alive$/,
  /^P41 what does not exist: .*: exit code 127$/,
  // The mark is how the plain runner finds descendants that left their process group.
  /^P42 nothing leaks: added by the worker: (HOME=\/tmp|POTLUCK_ACTION=\S+| )+$/,
  /^P47 output_paths: the older lists are filled too$/,
  /^P48 as advertised: allowed$/,
  /^P49 topologically sorted: claimed$/,
  /^P51 a FIFO: .*: FAILED_PRECONDITION$/,
  /^P53 nothing printed: no digest for empty output$/,
  /^P56 a blob larger than the store: Write: INVALID_ARGUMENT$/,
  /^P61 what is old: what was fetched is remembered$/,
  /^P61 what was pushed and is gone: pushing a blob that is not stored: FAILED_PRECONDITION$/,
];

describe('conformance', () => {
  let server: ControlledServer;
  let sound: RuleReport[];

  beforeAll(async () => {
    server = await nodeControl.start();
  });
  afterAll(() => server[Symbol.asyncDispose]());

  it('is kept by our node in every rule', { timeout: 240_000 }, async () => {
    const context = await openContext(server.target, { seed: Date.now() % 2 ** 32, control: nodeControl });
    const reports = await runRules(allRules, context);
    context.client.close();
    console.log(table(reports));
    expect(reports.map((rule) => rule.id)).toEqual(Array.from({ length: 62 }, (_, index) => `P${index + 1}`));
    expect(reports.filter((rule) => rule.verdict === 'fail').map((rule) => rule.id)).toEqual([]);
    const silent = reports
      .flatMap((rule) => rule.parts)
      .filter((part) => part.verdict === 'not applicable' && !part.reason);
    expect(silent).toEqual([]);
    const taken = reports.flatMap((rule) =>
      rule.parts.flatMap((part) => part.choices.map((choice) => `${rule.id} ${part.name}: ${choice}`)),
    );
    expect(taken.filter((choice) => !ourChoices.some((known) => known.test(choice)))).toEqual([]);
  });

  describe('notices a server that', () => {
    beforeAll(async () => {
      const rules = new Set([...bystanders, ...plantedFaults.flatMap((planted) => planted.breaks)]);
      sound = await throughProxy(server.target, { only: rules });
    }, 120_000);

    it.for(plantedFaults.map((planted, index) => ({ ...planted, index, rules: planted.breaks.join() })))(
      '$does ($rules)',
      async ({ index, ...planted }, test) => {
        const { breaks } = planted;
        const beside = Array.from(
          { length: bystandersPerFault },
          (_, offset) => bystanders[(index + offset * 7) % bystanders.length],
        );
        const only = new Set([...breaks, ...(beside as string[])]);
        const { before, after } = await withFault(server.target, planted, sound, only);
        const idle = before.filter((rule) => breaks.includes(rule.id) && rule.verdict === 'not applicable');
        if (idle.length > 0)
          test.skip(`${idle.map((rule) => rule.id).join()} does not apply: ${idle[0]?.parts[0]?.reason}`);
        const expected = breaks.map((id) => `${id}: ${before.find((rule) => rule.id === id)?.verdict} became fail`);
        expect(changes(before, after)).toEqual(expected);
      },
    );
  });
});
