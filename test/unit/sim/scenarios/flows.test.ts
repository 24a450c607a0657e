import { expect, test } from 'vitest';
import { createEngine, type Engine } from '../../../../sim/engine.ts';
import { type Channel, createChannel, createFlows, type Flows } from '../../../../sim/scenarios/flows.ts';

function world(): { engine: Engine; flows: Flows; ends: Record<string, number>; start: Start } {
  const engine = createEngine();
  const flows = createFlows(engine);
  const ends: Record<string, number> = {};
  const start: Start = (name, path, sizeBytes, limitBytesPerUs = Number.POSITIVE_INFINITY) =>
    flows.start({ path, sizeBytes, limitBytesPerUs, done: () => (ends[name] = engine.nowUs() / 1e6) });
  return { engine, flows, ends, start };
}
type Start = (name: string, path: readonly Channel[], sizeBytes: number, limit?: number) => { stop(): void };

test('two transfers share a link evenly, and the one that is left gets all of it', () => {
  const { engine, ends, start } = world();
  const link = createChannel('link', 10e6);
  start('small', [link], 10e6);
  start('large', [link], 30e6);
  engine.runUntil(10e6);
  expect(ends.small).toBeCloseTo(2, 3);
  expect(ends.large).toBeCloseTo(4, 3);
  expect(link.bytes).toBeCloseTo(40e6, 0);
  expect(link.perSecond.slice(0, 4).map((bytes) => Math.round(bytes / 1e6))).toEqual([10, 10, 10, 10]);
});

test('who is held back elsewhere leaves the rest to the others', () => {
  const { engine, ends, start } = world();
  const [shared, slow] = [createChannel('shared', 10e6), createChannel('slow', 2e6)];
  start('slow', [shared, slow], 4e6);
  start('lossy', [shared], 2e6, 1);
  start('fast', [shared], 14e6);
  engine.runUntil(10e6);
  expect(ends).toEqual({ slow: expect.closeTo(2, 3), lossy: expect.closeTo(2, 3), fast: expect.closeTo(2, 3) });
});

test('a transfer that stops frees its share, and was carried as far as it came', () => {
  const { engine, ends, start } = world();
  const link = createChannel('link', 10e6);
  const stopped = start('stopped', [link], 100e6);
  start('kept', [link], 15e6);
  engine.at(1e6, () => stopped.stop());
  engine.runUntil(10e6);
  expect(ends).toEqual({ kept: expect.closeTo(2, 3) });
  expect(link.bytes).toBeCloseTo(20e6, 0);
});

test('a link that becomes slower slows what is under way', () => {
  const { engine, flows, ends, start } = world();
  const link = createChannel('link', 10e6);
  start('one', [link], 20e6);
  engine.at(1e6, () => {
    flows.settle();
    link.bytesPerUs = 5;
    flows.changed();
  });
  engine.runUntil(10e6);
  expect(ends.one).toBeCloseTo(3, 3);
});
