import fc from 'fast-check';
import { expect, test } from 'vitest';
import { regions } from '../../../../mesh/core/providers/limits.ts';
import { regionOf } from '../../../../mesh/core/providers/places.ts';
import { createRecords } from '../../../../mesh/core/providers/records.ts';
import { createRng } from '../../../../mesh/core/rng.ts';

test('behaves as a set of pairs', () => {
  const place = fc.integer({ min: 0, max: 5 }).map((i) => (i * 2 ** 52) / 6);
  const change = fc.record({ add: fc.boolean(), place: place.map(Math.floor), owner: fc.integer({ min: 0, max: 40 }) });
  fc.assert(
    fc.property(fc.array(change, { maxLength: 600 }), (changes) => {
      const records = createRecords();
      const model = new Set<string>();
      for (const { add, place: at, owner } of changes) {
        const name = `${at} ${owner}`;
        if (add) {
          expect(records.add(at, owner)).toBe(!model.has(name));
          model.add(name);
        } else expect(records.remove(at, owner)).toBe(model.delete(name));
      }
      expect(records.size()).toBe(model.size);
      const seen: string[] = [];
      for (let region = 0; region < regions; region++) {
        records.eachIn(region, (at, owner) => {
          expect(regionOf(at)).toBe(region);
          seen.push(`${at} ${owner}`);
        });
      }
      expect(seen.sort()).toEqual([...model].sort());
      for (const name of model) {
        const [at, owner] = name.split(' ').map(Number) as [number, number];
        expect(records.owners(at, 50)).toContain(owner);
        expect(records.has(at, owner)).toBe(true);
      }
    }),
    { numRuns: 100 },
  );
});

test('a record takes less than 30 bytes, growing included', () => {
  const records = createRecords();
  const rng = createRng(1);
  for (let i = 0; i < 100_000; i++) records.add(rng.next() * 2 ** 20 + rng.below(2 ** 20), i % 10);
  expect(records.size()).toBe(100_000);
  expect(records.allocatedBytes() / records.size()).toBeLessThan(30);
});

test('a place that everybody holds is named by the newest, and costs the same memory for each', () => {
  const records = createRecords();
  for (let owner = 0; owner < 10_000; owner++) records.add(7, owner);
  expect(records.owners(7, 3)).toEqual([9_999, 9_998, 9_997]);
  expect(records.allocatedBytes() / records.size()).toBeLessThan(64);
  for (let owner = 0; owner < 10_000; owner++) expect(records.remove(7, owner)).toBe(true);
  expect(records.size()).toBe(0);
  expect(records.owners(7, 3)).toEqual([]);
});
