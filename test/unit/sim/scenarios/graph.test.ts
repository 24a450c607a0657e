import { expect, test } from 'vitest';
import { createRng } from '../../../../mesh/core/rng.ts';
import { actionsOf, drawGraph } from '../../../../sim/scenarios/graph.ts';
import { drawTrace } from '../../../../sim/scenarios/plan.ts';

const model = {
  actions: 60,
  layers: 3,
  fanOut: 2,
  duration: { median: 800, p90: 4_000 },
  sources: { median: 20_000, p90: 200_000 },
  shared: 1_000_000,
  outputs: { median: 100_000, p90: 1_000_000 },
  cacheable: 0.5,
};
const graph = drawGraph(createRng(1), model);

test('a drawn graph has its layers, each needing the one before', () => {
  expect(graph.actions).toHaveLength(60);
  const layerOf = (name: string): number => Number(name.split('.')[0]);
  expect([1, 2, 3].map((layer) => graph.actions.filter(({ name }) => layerOf(name) === layer).length)).toEqual([
    30, 20, 10,
  ]);
  for (const { name, needs } of graph.actions) {
    expect(needs.length > 0).toBe(layerOf(name) > 1);
    for (const need of needs) expect(layerOf(graph.actions[need]?.name ?? '')).toBe(layerOf(name) - 1);
  }
  const durations = graph.actions.map(({ durationMs }) => durationMs).sort((a, b) => a - b);
  expect(durations[30]).toBeGreaterThan(400);
  expect(durations[30]).toBeLessThan(1_600);
  expect(durations.at(-1)).toBeLessThanOrEqual(8_000);
  const cacheable = graph.actions.filter((action) => action.cacheable).length;
  expect(cacheable).toBeGreaterThan(15);
  expect(cacheable).toBeLessThan(45);
});

test('a revision changes some actions and whatever needs them; the same revision changes the same', () => {
  const main = actionsOf('app', graph, { name: 'main', changed: 0 }, 1).map(({ sim }) => sim.key);
  const changed = actionsOf('app', graph, { name: 'a', changed: 0.1 }, 1).map(({ sim }) => sim.key);
  const different = changed.map((key, number) => key !== main[number]);
  expect(different.filter(Boolean).length).toBeGreaterThan(3);
  expect(different).toContain(false);
  for (const [number, { needs }] of graph.actions.entries()) {
    if (needs.some((need) => different[need])) expect(different[number]).toBe(true);
  }
  expect(actionsOf('app', graph, { name: 'a', changed: 0.1 }, 1).map(({ sim }) => sim.key)).toEqual(changed);
  expect(actionsOf('app', graph, { name: 'b', changed: 0.1 }, 1).map(({ sim }) => sim.key)).not.toEqual(changed);
});

test('a trace alternates from its first state on, is repeated, and lasts to the end', () => {
  const span = (ms: number) => ({ from: ms, to: ms });
  const rng = createRng(1);
  expect(drawTrace(rng, [[span(10), span(5)]], 30)).toEqual([10, 5, 10, 5]);
  expect(
    drawTrace(
      rng,
      [
        [undefined, span(5)],
        [span(20), undefined],
      ],
      25,
    ),
  ).toEqual([0, 5, 20]);
  expect(drawTrace(rng, [[span(10), undefined]], 25)).toEqual([30]);
  expect(drawTrace(rng, [], 25)).toEqual([25]);
});
