/** The table for people, and the same as data. */
import type { Context } from './context.ts';
import type { RuleReport, Verdict } from './rule.ts';

const seenWidth = 110;

export interface Summary {
  readonly target: string;
  readonly instance: string;
  readonly seed: number;
  readonly counts: Readonly<Record<Verdict, number>>;
  readonly rules: readonly RuleReport[];
}

export function summarize(context: Context, seed: number, rules: readonly RuleReport[]): Summary {
  const count = (verdict: Verdict) => rules.filter((rule) => rule.verdict === verdict).length;
  return {
    target: context.grpc,
    instance: context.instance,
    seed,
    counts: {
      pass: count('pass'),
      choice: count('choice'),
      fail: count('fail'),
      'not applicable': count('not applicable'),
    },
    rules,
  };
}

/** One row a rule, then one a thing seen. */
export function table(rules: readonly RuleReport[]): string {
  const titleWidth = Math.max(...rules.map((rule) => rule.title.length), 4);
  const rows = rules.flatMap((rule) => {
    const head = `${rule.id.padEnd(4)} ${rule.title.padEnd(titleWidth)} ${rule.verdict.padEnd(14)}`;
    const [first = '', ...rest] = lines(rule);
    return [`${head} ${first}`.trimEnd(), ...rest.map((line) => `${' '.repeat(head.length)} ${line}`)];
  });
  return [`${'rule'.padEnd(5 + titleWidth)} ${'verdict'.padEnd(14)} seen`, ...rows].join('\n');
}

function lines(rule: RuleReport): string[] {
  const told = rule.parts.flatMap((part) => {
    const texts = [
      ...part.violations.map((text) => `VIOLATED ${text}`),
      ...part.choices,
      ...part.seen,
      ...(part.reason === undefined ? [] : [`not applicable: ${part.reason}`]),
    ];
    return texts.map((text) => `${part.name}: ${text}`);
  });
  const shown = merged(rule).concat(told.filter((line) => !line.includes(': not applicable: ')));
  return shown.map((line) => (line.length > seenWidth ? `${line.slice(0, seenWidth - 1)}…` : line));
}

/** Parts that did not apply for one reason are told in one line. */
function merged(rule: RuleReport): string[] {
  const byReason = Map.groupBy(
    rule.parts.filter((part) => part.reason !== undefined),
    (part) => part.reason,
  );
  return [...byReason].map(
    ([reason, parts]) => `${parts.map((part) => part.name).join(', ')}: not applicable: ${reason}`,
  );
}
