/** The six scenarios in sim/scenarios hold, each expectation of theirs can fail, and the faults are what makes the difference. */
import { readdirSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { htmlReport } from '../../sim/report/page.ts';
import { textReport } from '../../sim/report/text.ts';
import { judge } from '../../sim/scenarios/expect.ts';
import { loadScenario, parseScenario, type Scenario } from '../../sim/scenarios/load.ts';
import { runScenario } from '../../sim/scenarios/run.ts';

const folder = new URL('../../sim/scenarios/', import.meta.url);
const files = readdirSync(folder).filter((file) => file.endsWith('.yaml'));
const load = (file: string): Scenario => loadScenario(fileURLToPath(new URL(file, folder)));

test('there are six', () => {
  expect(files).toHaveLength(6);
});

describe.each(files)('%s', (file) => {
  const scenario = load(file);
  const run = runScenario(scenario);
  const expectations = judge(scenario.expect, run.result);

  test('holds', () => {
    expect(run.result.violation).toBeUndefined();
    expect(expectations.filter(({ holds }) => !holds)).toEqual([]);
    expect(expectations.length).toBeGreaterThanOrEqual(3);
  });

  test('each expectation fails when it is flipped', () => {
    const none = parseScenario(
      'none.yaml',
      'title: none\nsites: { here: {} }\nnodes: { one: { site: here } }\nworkload: { graphs: { app: {} }, builds: [{ node: one, graph: app }] }',
    ).expect;
    for (const { metric, atLeast, atMost } of expectations) {
      if (metric.startsWith('linkBytes')) continue;
      // Just beyond what was measured, on the other side.
      const flipped = {
        place: scenario.expect.place,
        atLeast: atMost === undefined ? undefined : atMost + 1,
        atMost: atLeast,
      };
      const [judged] = judge({ ...none, [metric]: flipped }, run.result);
      expect({ metric, holds: judged?.holds }).toEqual({ metric, holds: false });
    }
  });

  test('its page needs nothing else, and its texts are complete', async () => {
    const page = htmlReport(scenario, run, expectations);
    expect(page).not.toMatch(/(src|href)=|url\(|@import|https?:/);
    for (const text of [scenario.title, 'All ', ...run.result.faults.map(({ what }) => what)])
      expect(page).toContain(text);
    const [, data = ''] = /<script type="application\/json" id="data">(.*?)<\/script>/s.exec(page) ?? [];
    const parsed = JSON.parse(data) as { spans: unknown[]; nodes: unknown[]; names: string[] };
    expect(parsed.spans).toHaveLength(run.recording.spans.length);
    expect(parsed.nodes).toHaveLength(scenario.nodes.length);
    const [, script = ''] = /<script>(.*)<\/script>/s.exec(page) ?? [];
    const { Script } = await import('node:vm');
    expect(() => new Script(script)).not.toThrow();
    const lines = textReport(run.result, expectations, (rows) => rows.map((row) => row.join(' '))).join('\n');
    expect(lines).not.toMatch(/undefined|NaN|Infinity/);
    expect(page.replace(script, '')).not.toMatch(/>undefined|NaN|Infinity/);
  });

  test('about it is told in the documentation', async () => {
    const docs = await readFile(new URL('../../docs/scenarios.md', import.meta.url), 'utf8');
    expect(docs).toContain(`| \`${file}\` |`);
  });
});

test.each(['link-cut.yaml', 'poisoned-laptop.yaml'])(
  'without its fault, %s expects in vain to have recovered',
  (file) => {
    const scenario = { ...load(file), faults: [] };
    const { result } = runScenario(scenario);
    const broken = judge(scenario.expect, result).filter(({ holds }) => !holds);
    expect(broken.map(({ metric }) => metric)).toEqual(['recovery']);
  },
);

test('a scenario gives one history, and another seed another', () => {
  const scenario = { ...load('ci-burst.yaml'), centralCache: undefined };
  const small = {
    ...scenario,
    nodes: scenario.nodes.slice(0, 3),
    builds: scenario.builds.map((build) => ({ ...build, nodes: [0, 1] })),
  };
  const first = runScenario(small).result;
  expect(runScenario(small).result).toEqual(first);
  expect(runScenario({ ...small, seed: 2 }).result.traceHash).not.toBe(first.traceHash);
});
