/** Runs rules against a target and gathers their verdicts. */
import { toStatusError } from '../../protos/status.ts';
import type { Context } from './context.ts';
import { NotApplicable, type Part, type PartReport, type Rule, type RuleReport, type Verdict } from './rule.ts';

/** Parts that run at once: enough to overlap waiting, few enough not to queue behind each other on a small server. */
const partsAtOnce = 4;
/** No part takes longer on a server that works. */
const partDeadlineMs = 120_000;

export interface RunOptions {
  /** Ids of the rules to run; all when absent. */
  readonly only?: ReadonlySet<string> | undefined;
  /** Leaves out the parts that wait long. */
  readonly quick?: boolean | undefined;
  readonly onRule?: (report: RuleReport) => void;
}

/** Reports come in the order of `rules`, whatever order the parts ran in. */
export async function runRules(
  rules: readonly Rule[],
  context: Context,
  options: RunOptions = {},
): Promise<RuleReport[]> {
  const chosen = rules
    .filter((rule) => !options.only || options.only.has(rule.id))
    .map((rule) => (options.quick ? { ...rule, parts: rule.parts.filter((part) => !part.slow) } : rule));
  const reports = new Map<Part, PartReport & { readonly elapsedMs: number }>();
  const run = async (rule: Rule, part: Part) => {
    const startMs = performance.now();
    const report = await runPart(part, context);
    reports.set(part, { ...report, elapsedMs: performance.now() - startMs });
    if (rule.parts.every((other) => reports.has(other))) options.onRule?.(ruleReport(rule, reports));
  };
  const all = chosen.flatMap((rule) => rule.parts.map((part) => ({ rule, part })));
  const together = all.filter(({ part }) => !part.alone);
  await Promise.all(
    Array.from({ length: partsAtOnce }, async () => {
      for (let next = together.shift(); next; next = together.shift()) await run(next.rule, next.part);
    }),
  );
  for (const { rule, part } of all) if (part.alone) await run(rule, part);
  return chosen.map((rule) => ruleReport(rule, reports));
}

function ruleReport(rule: Rule, reports: ReadonlyMap<Part, PartReport & { readonly elapsedMs: number }>): RuleReport {
  const parts = rule.parts.map((part) => reports.get(part)).filter((part) => part !== undefined);
  return {
    id: rule.id,
    title: rule.title,
    verdict: verdictOf(parts),
    parts,
    elapsedMs: parts.reduce((sum, part) => sum + part.elapsedMs, 0),
  };
}

async function runPart(part: Part, context: Context): Promise<PartReport> {
  const violations: string[] = [];
  const choices: string[] = [];
  const seen: string[] = [];
  const done = (verdict: Verdict, reason?: string): PartReport => ({
    name: part.name,
    verdict,
    violations,
    choices,
    seen,
    ...(reason === undefined ? {} : { reason }),
  });
  const lacking = context.lacks(part.needs ?? []);
  if (lacking !== undefined) return done('not applicable', lacking);
  let timer: NodeJS.Timeout | undefined;
  try {
    await Promise.race([
      part.run(context, {
        must: (holds, otherwise) => {
          if (!holds) violations.push(otherwise);
        },
        choice: (taken) => choices.push(taken),
        saw: (what) => seen.push(what),
      }),
      new Promise((_, reject) => {
        timer = setTimeout(() => reject(new Error(`no end after ${partDeadlineMs / 1000} s`)), partDeadlineMs);
      }),
    ]);
  } catch (error) {
    if (error instanceof NotApplicable) return done('not applicable', error.message);
    violations.push(toStatusError(error).message);
  } finally {
    clearTimeout(timer);
  }
  if (violations.length > 0) return done('fail');
  return done(choices.length > 0 ? 'choice' : 'pass');
}

function verdictOf(parts: readonly PartReport[]): Verdict {
  const verdicts = new Set(parts.map((part) => part.verdict));
  if (verdicts.has('fail')) return 'fail';
  if (verdicts.has('choice')) return 'choice';
  return verdicts.has('pass') ? 'pass' : 'not applicable';
}
