import { expect, test } from 'vitest';
import { createRng } from '../../../mesh/core/rng.ts';
import { createClock } from '../../../sim/clock.ts';
import { createEngine, type Engine } from '../../../sim/engine.ts';
import { createNetwork, type Network } from '../../../sim/network.ts';

function create(change: Partial<Parameters<typeof createNetwork>[3]> = {}): { engine: Engine; network: Network } {
  const engine = createEngine();
  const model = { lossPerMillion: 0, duplicatePerMillion: 0, stragglePerMillion: 0, classOf: () => 'wired' as const };
  return { engine, network: createNetwork(engine, createRng(1), 3, { ...model, ...change }) };
}

test('a partition loses what is under way, in its direction only', () => {
  const { engine, network } = create();
  const arrived: string[] = [];
  network.send(0, 1, () => arrived.push('0 to 1'));
  network.send(1, 0, () => arrived.push('1 to 0'));
  network.block(0, 1, true);
  engine.runUntil(1_000_000);
  expect(arrived).toEqual(['1 to 0']);
  network.block(0, 1, true);
  network.block(0, 1, false);
  expect(network.open(0, 1)).toBe(false);
  network.block(0, 1, false);
  expect(network.open(0, 1)).toBe(true);
});

test('what is held arrives after the release', () => {
  const { engine, network } = create();
  let arrived = 0;
  network.hold(0, 1, true);
  for (let i = 0; i < 5; i++) network.send(0, 1, () => arrived++);
  engine.runUntil(10_000_000);
  expect(arrived).toBe(0);
  network.hold(0, 1, false);
  engine.runUntil(20_000_000);
  expect(arrived).toBe(5);
});

test('a reset drops what is under way both ways, and nothing after it', () => {
  const { engine, network } = create();
  let arrived = 0;
  network.send(0, 1, () => arrived++);
  network.send(1, 0, () => arrived++);
  network.reset(0, 1);
  network.send(0, 1, () => arrived++);
  engine.runUntil(1_000_000);
  expect(arrived).toBe(1);
});

test('a node that moved is reached again by whom it wrote to, or once it was announced', () => {
  const { network } = create();
  network.moved(1);
  expect(network.open(0, 1)).toBe(false);
  network.heard(0, 1);
  expect(network.open(0, 1)).toBe(true);
  expect(network.open(2, 1)).toBe(false);
  network.announced(1);
  expect(network.open(2, 1)).toBe(true);
});

test('what flows at once shares the link, and stands still while there is no way', () => {
  const links = { up: [110_000, 110_000, 110_000], down: [110_000, 110_000, 110_000], site: [0, 0, 0], pipe: 4_000 };
  const { engine, network } = create({ links });
  const ends: number[] = [];
  for (let i = 0; i < 2; i++) network.flow(0, 1, 110_000_000, () => ends.push(engine.nowUs()));
  engine.runUntil(1_000_000);
  network.block(1, 0, true);
  engine.runUntil(2_000_000);
  network.block(1, 0, false);
  engine.runUntil(10_000_000);
  expect(ends).toEqual([3_000_000, 3_000_000]);
});

test('a pause does not show on the clock, a suspend does, and a rate changes what is still to come only', () => {
  const engine = createEngine();
  const clock = createClock(engine, 1_000);
  const after = (ms: number): number => {
    engine.runUntil(engine.nowUs() + ms * 1_000);
    return clock.nowMs();
  };
  expect(after(500)).toBe(1_500);
  clock.stop();
  expect(after(700)).toBe(1_500);
  clock.go();
  expect(after(100)).toBe(1_600);
  clock.setRate(2_000_000);
  expect(after(100)).toBe(1_800);
  expect(clock.globalUs(2_000)).toBe(engine.nowUs() + 100_000);
});
