import { expect, it } from 'vitest';
import type { Context } from '../../conformance/context.ts';
import { table } from '../../conformance/report.ts';
import { alone, NotApplicable, part, type Rule, slow } from '../../conformance/rule.ts';
import { runRules } from '../../conformance/run.ts';

const context = { lacks: (needs: readonly string[]) => (needs.includes('http') ? 'no HTTP' : undefined) } as Context;

function rule(id: string, ...parts: Rule['parts']): Rule {
  return { id, title: `title of ${id}`, says: 'says', source: 'source', parts };
}

const rules = [
  rule(
    'P1',
    part('fine', async (_context, check) => check.saw('something')),
  ),
  rule(
    'P2',
    part('fine', async () => {}),
    part('wrong', async (_context, check) => check.must(false, 'not so')),
  ),
  rule(
    'P3',
    part('thrown', () => Promise.reject(new Error('broken'))),
  ),
  rule(
    'P4',
    part('open', async (_context, check) => check.choice('left')),
  ),
  rule(
    'P5',
    part('needs', ['http'], async () => {}),
    part('finds out', () => Promise.reject(new NotApplicable('not here'))),
  ),
];

it('a rule fails by a violation or an error, and tells choices and reasons', async () => {
  const reports = await runRules(rules, context);
  expect(reports.map((report) => report.verdict)).toEqual(['pass', 'fail', 'fail', 'choice', 'not applicable']);
  expect(reports[1]?.parts[1]?.violations).toEqual(['not so']);
  expect(reports[2]?.parts[0]?.violations[0]).toContain('broken');
  expect(reports[4]?.parts.map((each) => each.reason)).toEqual(['no HTTP', 'not here']);
  expect(table(reports)).toContain('wrong: VIOLATED not so');
  expect(table(reports)).toContain('needs: not applicable: no HTTP');
});

it('only the chosen rules run, quick runs leave slow parts out, and a part that wants it runs alone', async () => {
  let running = 0;
  let beside = 0;
  const busy = async () => {
    running += 1;
    beside = Math.max(beside, running);
    await new Promise((resolve) => setImmediate(resolve));
    running -= 1;
  };
  let atOnce = 0;
  const lonely = alone(
    part('alone', async () => {
      atOnce = running;
    }),
  );
  const reports = await runRules(
    [rule('P1', part('a', busy), lonely, part('b', busy), slow(part('slow', busy))), rule('P2', part('c', busy))],
    context,
    { only: new Set(['P1']), quick: true },
  );
  expect(reports.map((report) => report.parts.map((each) => each.name))).toEqual([['a', 'alone', 'b']]);
  expect(beside).toBe(2);
  expect(atOnce).toBe(0);
});
