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
  readonly onRule?: (report: RuleReport) => void;
}

/** Reports come in the order of `rules`, whatever order the parts ran in. */
export async function runRules(
  rules: readonly Rule[],
  context: Context,
  options: RunOptions = {},
): Promise<RuleReport[]> {
  const chosen = rules.filter((rule) => !options.only || options.only.has(rule.id));
  const limit = limiter(partsAtOnce);
  return Promise.all(
    chosen.map(async (rule) => {
      let elapsedMs = 0;
      const parts = await Promise.all(
        rule.parts.map((part) =>
          limit(async () => {
            const startMs = performance.now();
            const report = await runPart(part, context);
            elapsedMs += performance.now() - startMs;
            return report;
          }),
        ),
      );
      const report = { id: rule.id, title: rule.title, verdict: verdictOf(parts), parts, elapsedMs };
      options.onRule?.(report);
      return report;
    }),
  );
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

function limiter(most: number): <T>(task: () => Promise<T>) => Promise<T> {
  let running = 0;
  const waiting: (() => void)[] = [];
  return async (task) => {
    if (running >= most) await new Promise<void>((resolve) => waiting.push(resolve));
    else running += 1;
    try {
      return await task();
    } finally {
      const next = waiting.shift();
      if (next) next();
      else running -= 1;
    }
  };
}
