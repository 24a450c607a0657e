import fc from 'fast-check';
import { expect, test } from 'vitest';
import { createEngine } from '../../../sim/engine.ts';

test('events run in order of time, and of scheduling where times are equal', () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 0, max: 20 }), { maxLength: 60 }), (times) => {
      const engine = createEngine();
      const ran: [number, number][] = [];
      for (const [order, atUs] of times.entries()) engine.at(atUs, () => ran.push([engine.nowUs(), order]));
      engine.runUntil(100);
      const sorted = times
        .map((atUs, order): [number, number] => [atUs, order])
        .sort((a, b) => a[0] - b[0] || a[1] - b[1]);
      expect(ran).toEqual(sorted);
      expect(engine.nowUs()).toBe(100);
    }),
  );
});

test('what an event schedules for now runs before time goes on', () => {
  const engine = createEngine();
  const ran: string[] = [];
  engine.at(10, () => {
    ran.push('first');
    engine.after(0, () => ran.push(`now ${engine.nowUs()}`));
  });
  engine.at(11, () => ran.push('later'));
  engine.runUntil(20);
  expect(ran).toEqual(['first', 'now 10', 'later']);
});

test('the trace hash depends on what was noted and on its order', () => {
  const hashOf = (notes: readonly [number, number, number][]): string => {
    const engine = createEngine();
    for (const note of notes) engine.note(...note);
    return engine.traceHash();
  };
  expect(hashOf([[1, 2, 3]])).toBe(hashOf([[1, 2, 3]]));
  const others = [
    hashOf([[1, 2, 3]]),
    hashOf([[1, 3, 2]]),
    hashOf([
      [1, 2, 3],
      [4, 5, 6],
    ]),
    hashOf([
      [4, 5, 6],
      [1, 2, 3],
    ]),
  ];
  expect(new Set(others).size).toBe(others.length);
});
