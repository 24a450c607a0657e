import { expect, test } from 'vitest';
import { refusalLogMs, refusalsTold } from '../../../../mesh/net/limits.ts';
import { tellRefusals } from '../../../../mesh/net/refusals.ts';

test('a stranger is told of once in a while, and a thousand of them no more than a few times', () => {
  let nowMs = 0;
  const lines: string[] = [];
  const refused = tellRefusals(
    () => nowMs,
    (who, reason) => lines.push(`${who}: ${reason}`),
  );
  for (let i = 0; i < 10; i++) refused('one', 'no hello');
  expect(lines).toEqual(['one: no hello']);
  for (let i = 0; i < 1_000; i++) refused(`key ${i}`, 'no hello');
  expect(lines).toHaveLength(refusalsTold);
  nowMs += refusalLogMs + 1;
  refused('one', 'again');
  expect(lines.at(-1)).toBe('one: again');
});
