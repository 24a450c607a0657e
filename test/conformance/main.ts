/**
 * `npm run conformance -- --target HOST:PORT`: holds any REAPI server against the rules, over the wire only.
 *
 * Exit codes: 0 no rule is violated, 1 a rule is, 2 wrong usage or nothing answers at the target.
 */
import { writeFile } from 'node:fs/promises';
import { parseArgs } from 'node:util';
import { toStatusError } from '../../protos/status.ts';
import { openContext } from './context.ts';
import { summarize, table } from './report.ts';
import { allRules } from './rules/all.ts';
import { runRules } from './run.ts';

const usage = `Usage: npm run conformance -- --target HOST:PORT [options]

Holds a Remote Execution API server against 62 rules of the protocol.

  --target HOST:PORT   the gRPC address
  --instance NAME      instance name (default: empty)
  --http HOST:PORT     address of the HTTP cache; its rule does not apply without
  --only P7,P13        these rules only
  --json FILE          also write the report as JSON
  --seed N             content to send (default: new each time); a seed used twice finds its blobs already stored
  --help               this text`;

function usageError(problem: string): never {
  console.error(`${problem}\n\n${usage}`);
  process.exit(2);
}

function options() {
  try {
    const { values } = parseArgs({
      options: {
        target: { type: 'string' },
        instance: { type: 'string', default: '' },
        http: { type: 'string' },
        only: { type: 'string' },
        json: { type: 'string' },
        seed: { type: 'string' },
        help: { type: 'boolean', default: false },
      },
    });
    return values;
  } catch (error) {
    return usageError((error as Error).message);
  }
}

const { target, instance, http, only, json, help, ...rest } = options();
if (help) {
  console.log(usage);
  process.exit(0);
}
if (!target) usageError('--target is missing');
const seed = rest.seed === undefined ? Math.floor(Math.random() * 2 ** 32) : Number(rest.seed);
if (!Number.isSafeInteger(seed)) usageError(`--seed ${rest.seed} is not a number`);
const chosen = only === undefined ? undefined : new Set(only.toUpperCase().split(','));
const unknown = [...(chosen ?? [])].filter((id) => !allRules.some((rule) => rule.id === id));
if (unknown.length > 0) usageError(`--only: no rule ${unknown.join(', ')}; there are P1 to P62`);

const context = await openContext({ grpc: target, http, instance }, { seed }).catch((error: unknown) => {
  console.error(toStatusError(error).reason);
  process.exit(2);
});
const progress = process.stderr.isTTY;
let finished = 0;
const rules = await runRules(allRules, context, {
  only: chosen,
  onRule: (rule) => {
    finished += 1;
    if (progress) process.stderr.write(`\r${finished}/${chosen?.size ?? allRules.length} ${rule.id.padEnd(4)}`);
  },
});
if (progress) process.stderr.write('\r\x1b[K');
context.client.close();

const summary = summarize(context, seed, rules);
console.log(table(rules));
const { pass, choice, fail, 'not applicable': notApplicable } = summary.counts;
console.log(
  `\n${pass} pass, ${choice} with a choice taken, ${notApplicable} not applicable, ${fail} violated (seed ${seed})`,
);
if (json) await writeFile(json, `${JSON.stringify(summary, undefined, 2)}\n`);
process.exitCode = fail > 0 ? 1 : 0;
