/** The page about a scenario, in a real browser: it stands alone, fits, and is read with the keyboard. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { expect, test } from 'vitest';
import { htmlReport } from '../../sim/report/page.ts';
import { judge } from '../../sim/scenarios/expect.ts';
import { parseScenario } from '../../sim/scenarios/load.ts';
import { runScenario } from '../../sim/scenarios/run.ts';
import { until } from '../support/until.ts';
import { chromiumMissing, openChromium } from './chromium.ts';

const text = `title: a <lid> & two desks
sites: { office: {}, ci: {} }
links: { vpn: { between: [office, ci] } }
nodes:
  desk: { site: office, count: 2, slots: 2 }
  laptop: { site: ci, class: laptop }
workload:
  graphs: { app: { actions: 40, duration: 1s } }
  builds: [{ node: desk, graph: app }]
faults:
  - { at: 4s, fault: lidClosed, nodes: laptop, for: 10s }
expect: { lostActions: { atMost: 0 } }
`;
const said = 'document.getElementById("said").textContent';
const painted = `new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() =>
  done(document.getElementById("timeline").toDataURL()))))`;

if (chromiumMissing) console.warn(`not checked: the page about a scenario in a browser: ${chromiumMissing}`);

test.skipIf(chromiumMissing !== undefined)(
  'the page stands alone, fits any width, and tells by keyboard what its timeline shows',
  async () => {
    const dir = await mkdtemp(join(tmpdir(), 'potluck-page-'));
    try {
      const scenario = parseScenario('page.yaml', text);
      const run = runScenario(scenario);
      const file = join(dir, 'page.html');
      await writeFile(file, htmlReport(scenario, run, judge(scenario.expect, run.result)));
      await using page = await openChromium();
      await page.size(1_300, 900);
      await page.open(pathToFileURL(file).href);
      expect(await page.evaluate('document.querySelector("h1").textContent')).toBe(scenario.title);

      for (let tabs = 0; tabs < 12 && (await page.evaluate('document.activeElement.id')) !== 'timeline'; tabs++) {
        await page.press('Tab');
      }
      expect(await page.evaluate(said)).toMatch(
        /^desk-1 · desktop, 2 slots, office · ran \d+ actions, \d+ of them for others$/,
      );
      const whole = await page.evaluate(painted);
      await page.press('+', '+');
      expect(await page.evaluate(painted)).not.toBe(whole);
      await page.press('0');
      expect(await page.evaluate(painted)).toBe(whole);
      await page.press('ArrowDown', 'ArrowDown', 'n');
      expect(await page.evaluate(said)).toMatch(/^app: \d\.\d+ · laptop, for desk-[12] · from .* to .* \(.*\): /);

      await page.evaluate('document.querySelector("button[data-fault]").click()');
      expect(await page.evaluate(said)).toMatch(/^Fault 1: lidClosed on laptop at 4 s for 10\.0 s · /);

      const light = await page.evaluate(painted);
      await page.dark();
      await until(async () => (await page.evaluate(painted)) !== light);
      for (const width of [1_300, 400]) {
        await page.size(width, 900);
        expect(await page.evaluate('document.documentElement.scrollWidth <= innerWidth')).toBe(true);
      }
      expect(page.exceptions).toEqual([]);
      expect(page.requests).toEqual([pathToFileURL(file).href]);
    } finally {
      await rm(dir, { recursive: true, force: true });
    }
  },
);
