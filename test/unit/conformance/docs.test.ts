import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { plantedFaults } from '../../conformance/faults/all.ts';
import { allRules } from '../../conformance/rules/all.ts';

const text = readFileSync(new URL('../../../docs/conformance.md', import.meta.url), 'utf8');

it('the documentation tells every rule as the suite does', () => {
  const untold = allRules.filter((rule) => !text.includes(`| ${rule.id} | ${rule.title} | ${rule.says} |`));
  expect(untold.map((rule) => rule.id)).toEqual([]);
});

it('the documentation tells every planted fault', () => {
  const untold = plantedFaults.filter(
    (planted) => !text.includes(`| ${planted.does} | ${planted.breaks.join(', ')} |`),
  );
  expect(untold.map((planted) => planted.does)).toEqual([]);
});
