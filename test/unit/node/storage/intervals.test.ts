import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import { createIntervals } from '../../../../node/storage/intervals.ts';

test('behaves like a set of positions', () => {
  const part = fc.tuple(fc.nat(60), fc.nat(20));
  fc.assert(
    fc.property(fc.array(part, { maxLength: 20 }), part, (parts, [from, length]) => {
      const intervals = createIntervals();
      const positions = new Set<number>();
      for (const [start, size] of parts) {
        intervals.add(start, start + size);
        for (let at = start; at < start + size; at++) positions.add(at);
      }
      let solidTo = 0;
      while (positions.has(solidTo)) solidTo += 1;
      expect(intervals.solidTo()).toBe(solidTo);
      const inGaps: number[] = [];
      for (const [start, end] of intervals.gaps(from, from + length)) {
        expect(start).toBeLessThan(end);
        for (let at = start; at < end; at++) inGaps.push(at);
      }
      const absent = Array.from({ length }, (_, at) => from + at).filter((at) => !positions.has(at));
      expect(inGaps).toEqual(absent);
    }),
  );
});
