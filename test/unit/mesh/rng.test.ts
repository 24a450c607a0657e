// Goal: the seeded source is the same everywhere, even, and its forks are fixed by seed and label alone.
import { expect, test } from 'vitest';
import { hashPair, hashText } from '../../../mesh/core/hash.ts';
import { createRng } from '../../../mesh/core/rng.ts';

test('a seed gives these numbers on every engine', () => {
  const rng = createRng(42);
  expect([rng.next(), rng.next(), rng.next(), rng.next()]).toMatchInlineSnapshot(`
    [
      660444221,
      3652823732,
      77672526,
      910233633,
    ]
  `);
  expect([hashText('potluck'), hashPair(1, 2), hashPair(2, 1)]).toMatchInlineSnapshot(`
    [
      624277167,
      1155079965,
      163005474,
    ]
  `);
});

test('draws are even over a bound that divides nothing', () => {
  const rng = createRng(1);
  const counts = new Array<number>(7).fill(0);
  for (let i = 0; i < 70_000; i++) {
    const draw = rng.below(7);
    counts[draw] = (counts[draw] ?? 0) + 1;
  }
  for (const count of counts) expect(Math.abs(count - 10_000)).toBeLessThan(400);
  for (let i = 0; i < 100; i++) expect([3, 4, 5]).toContain(rng.between(3, 5));
});

test('a fork depends on seed and label, not on how much was drawn before', () => {
  const fresh = createRng(9);
  const used = createRng(9);
  for (let i = 0; i < 50; i++) used.next();
  expect(used.fork('disk').next()).toBe(fresh.fork('disk').next());
  expect(fresh.fork('disk').next()).not.toBe(fresh.fork('network').next());
  expect(createRng(10).fork('disk').next()).not.toBe(fresh.fork('disk').next());
});
