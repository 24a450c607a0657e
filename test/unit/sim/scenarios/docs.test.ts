import { readFile } from 'node:fs/promises';
import { expect, test } from 'vitest';
import { faultKinds, schemaParts } from '../../../../sim/scenarios/schema.ts';

const docs = await readFile(new URL('../../../../docs/scenarios.md', import.meta.url), 'utf8');

/** Examples of values are for messages; the table leaves them out. */
function short(what: string): string {
  return what.replace(/ such as [^,;)]*(, [^,;)]* or [^,;)]*)?/g, '');
}

test.each(schemaParts.map(({ name, fields }) => [name, fields] as const))(
  'docs/scenarios.md has every key of %s',
  (_, fields) => {
    for (const [key, { reader, about, fallback, optional }] of Object.entries(fields)) {
      const standard = fallback !== undefined ? `\`${fallback}\`` : optional ? 'none' : 'needed';
      expect(docs).toContain(`| \`${key}\` | ${short(reader.what)} | ${standard} | ${about} |`);
    }
  },
);

test('docs/scenarios.md has no key that the schema has not, and every fault', () => {
  const known = new Set<string>([...schemaParts.flatMap(({ fields }) => Object.keys(fields)), ...faultKinds]);
  const rows = [...docs.matchAll(/^\| `([A-Za-z]+)` \|/gm)].map(([, key]) => key as string);
  expect(rows.filter((key) => !known.has(key))).toEqual([]);
  for (const kind of faultKinds) expect(rows).toContain(kind);
});
