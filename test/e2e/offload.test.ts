/**
 * An office whose idle machines run each other's actions: real nodes, real sandboxes, a client of the API. What is
 * timed here is printed; the figures that count are those of test/bench/offload.ts on an idle machine.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { shell } from '../support/actions.ts';
import { processesBelow } from '../support/processes.ts';
import { until } from '../support/until.ts';
import { startBuild } from '../support/watched-build.ts';
import { expectAllRan, type LendingOffice, openLendingOffice, outputsOf, tellingSleepers } from './lending-office.ts';

const caseTimeoutMs = 120_000;
/** News of a claim made before the owner came back may arrive so much later on a busy machine. */
const claimedBeforeMs = 2_000;
const isLinux = process.platform === 'linux';

describe('an office that lends its idle machines', () => {
  let office: LendingOffice;
  beforeAll(async () => {
    office = await openLendingOffice(['ben', 'cora', 'dora']);
  }, caseTimeoutMs);
  afterAll(() => office?.[Symbol.asyncDispose]());

  test('most of a build runs on the others, every action once', { timeout: caseTimeoutMs }, async () => {
    const { anna, lenders, client, ranAt } = office;
    const specs = tellingSleepers('idle', 60, 500);
    const started = performance.now();
    const runs = await client.run(specs);
    const tookMs = performance.now() - started;
    expectAllRan(runs, specs);
    const elsewhere = lenders.reduce((sum, one) => sum + ranAt(runs, one), 0);
    console.info(
      `60 actions of 500 ms took ${tookMs.toFixed(0)} ms; ${ranAt(runs, anna)} ran at home, ${elsewhere} elsewhere`,
    );
    expect(ranAt(runs, anna) + elsewhere).toBe(60);
    expect(elsewhere).toBeGreaterThan(30);
    for (const { stages, name } of runs) expect(stages.at(-1), name).toBe('completed');
    await office.expectOneResultEach(specs);
  });

  test('what one has run is a hit for all', { timeout: caseTimeoutMs }, async () => {
    const specs = tellingSleepers('shared', 8, 100);
    const first = await office.client.run(specs);
    using other = office.mesh.machine('ben').client();
    const again = await other.run(specs);
    expectAllRan(again, specs);
    expect(outputsOf(again)).toEqual(outputsOf(first));
  });

  test('whoever asks for what runs already waits for that run', { timeout: caseTimeoutMs }, async () => {
    const specs = tellingSleepers('merged', 4, 2_000);
    using other = office.mesh.machine('ben').client();
    const first = await startBuild(office.client, specs);
    await until(() => first.sightings().length === specs.length);
    const second = await other.run(specs);
    const runs = await first.done;
    expectAllRan(second, specs);
    expect(outputsOf(second)).toEqual(outputsOf(runs));
  });

  test('while all owners are there, everything runs at home', { timeout: caseTimeoutMs }, async () => {
    const { anna, lenders, client, ranAt } = office;
    for (const one of lenders) await one.owner('back');
    try {
      const specs = tellingSleepers('busy', 8, 250);
      const runs = await client.run(specs);
      expectAllRan(runs, specs);
      expect(ranAt(runs, anna)).toBe(8);
    } finally {
      for (const one of lenders) await one.owner('away');
    }
  });

  test.skipIf(!isLinux)(
    'an owner who comes back has the machine to himself, and the build goes on elsewhere',
    {
      timeout: caseTimeoutMs,
    },
    async () => {
      const ben = office.mesh.machine('ben');
      const id = office.idOf(ben);
      const nodePid = Number((await ben.node().status()).pid);
      const marker = 'guest-of-ben';
      // A guest that goes on is one that starts further processes.
      const work = `: ${marker}; i=0; while [ $i -lt 50 ]; do i=$((i+1)); sleep 0.05; done; echo done > out`;
      const specs = Array.from({ length: 12 }, (_, index) => ({ name: `owner-${index}`, argv: shell(work) }));
      const build = await startBuild(office.client, specs);
      const guests = () => processesBelow(nodePid, marker);
      const steps = () => processesBelow(nodePid, 'sleep 0.05').map(({ pid }) => pid);
      await until(() => steps().length > 0);

      const backMs = performance.now();
      await ben.owner('back');
      let [lastStepMs, goneMs] = [backMs, backMs];
      const seen = new Set(steps());
      await until(() => {
        goneMs = performance.now();
        for (const pid of steps()) {
          if (!seen.has(pid)) lastStepMs = goneMs;
          seen.add(pid);
        }
        return guests().length === 0;
      });
      const late = build.sightings().filter(({ worker, atMs }) => worker.includes(id) && atMs > backMs);
      const runs = await build.done;
      await ben.owner('away');
      const after = (ms: number): string => `${(ms - backMs).toFixed(0)} ms`;
      console.info(
        `owner back: guests did nothing after ${after(lastStepMs)}, were gone after ${after(goneMs)}; said to run there ` +
          `later than the signal: ${late.map(({ name, atMs }) => `${name} after ${after(atMs)}`).join(', ') || 'none'}`,
      );
      expectAllRan(runs, specs);
      expect(late.filter(({ atMs }) => atMs > backMs + claimedBeforeMs)).toEqual([]);
      expect(lastStepMs).toBeLessThan(backMs + 5_000);
      expect(goneMs).toBeLessThan(backMs + 20_000);
    },
  );
});
