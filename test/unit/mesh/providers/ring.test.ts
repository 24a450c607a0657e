import fc from 'fast-check';
import { expect, test } from 'vitest';
import { placeOf, pointOf, regionOf } from '../../../../mesh/core/providers/places.ts';
import { createRing } from '../../../../mesh/core/providers/ring.ts';
import { hashPair, hashText } from '../../../../mesh/core/hash.ts';
import { pointsPerNode } from '../../../../mesh/core/providers/limits.ts';
import { createRng } from '../../../../mesh/core/rng.ts';

const salt = 4_711;
const names = (count: number): string[] =>
  Array.from({ length: count }, (_, i) => `node-${String(i).padStart(5, '0')}`);

/** Nearest by looking at every point of every node. */
function nearestNaively(nodes: readonly string[], place: number, count: number): string[] {
  const target = pointOf(place);
  const distance = (node: string): number => {
    let least = Number.POSITIVE_INFINITY;
    for (let i = 0; i < pointsPerNode; i++) {
      const point = hashPair(hashPair(hashText(node, salt), i), hashText(node, ~salt));
      least = Math.min(least, (point ^ target) >>> 0);
    }
    return least;
  };
  return nodes
    .map((node) => [distance(node), node] as const)
    .sort((a, b) => a[0] - b[0])
    .slice(0, count)
    .map(([, node]) => node);
}

test('the nearest nodes are those of the least XOR distance, each named once', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 40 }),
      fc.array(fc.integer({ min: 0, max: 2 ** 52 - 1 }), { minLength: 5, maxLength: 20 }),
      (count, places) => {
        const nodes = names(count);
        const ring = createRing(nodes, salt);
        for (const place of places) {
          const found = ring.nearest(place, 3).map((index) => ring.nodes[index]);
          expect(found).toEqual(nearestNaively(nodes, place, 3));
        }
      },
    ),
    { numRuns: 60 },
  );
});

test('points spread load: of 100 nodes none keeps more than two and a half times its share, none less than a third', () => {
  const nodes = names(100);
  const ring = createRing(nodes, salt);
  const rng = createRng(7);
  const kept = new Array<number>(nodes.length).fill(0);
  const places = 30_000;
  for (let i = 0; i < places; i++) {
    const place = rng.next() * 2 ** 20 + rng.below(2 ** 20);
    for (const index of ring.nearest(place, 3)) kept[index] = (kept[index] as number) + 1;
  }
  const share = (places * 3) / nodes.length;
  expect(Math.max(...kept)).toBeLessThan(share * 2.5);
  expect(Math.min(...kept)).toBeGreaterThan(share / 3);
});

test('a node that joins takes over its own share and moves nothing else', () => {
  const nodes = names(50);
  const before = createRing(nodes, salt);
  const after = createRing([...nodes, 'node-99999'], salt);
  const rng = createRng(8);
  let moved = 0;
  for (let i = 0; i < 5_000; i++) {
    const place = rng.next() * 2 ** 20;
    const then = before.nearest(place, 3).map((index) => before.nodes[index] as string);
    const now = after.nearest(place, 3).map((index) => after.nodes[index] as string);
    const news = now.filter((node) => !then.includes(node));
    expect(news.every((node) => node === 'node-99999')).toBe(true);
    moved += news.length;
  }
  expect(moved).toBeLessThan(((5_000 * 3) / 51) * 3);
});

test('places depend on the salt of the mesh', () => {
  const nodes = names(30);
  const [one, other] = [createRing(nodes, 1), createRing(nodes, 2)];
  const places = Array.from({ length: 50 }, (_, i) => i * 2 ** 46);
  expect(places.map((place) => one.nearest(place, 1))).not.toEqual(places.map((place) => other.nearest(place, 1)));
});

test('a place is the first 52 bits of the digest itself, in order of its hexadecimal digits', () => {
  expect(placeOf(`sha256/${'f'.repeat(64)}/12`)).toBe(2 ** 52 - 1);
  expect(placeOf(`sha256/${'0'.repeat(12)}1${'f'.repeat(51)}/12`)).toBe(1);
  expect(regionOf(placeOf(`blake3/ab${'0'.repeat(62)}/1`))).toBe(0xab);
  expect(pointOf(placeOf(`sha1/89abcdef${'0'.repeat(32)}/1`))).toBe(0x89abcdef);
  const odd = placeOf('result/some action');
  expect(Number.isSafeInteger(odd) && odd >= 0 && odd < 2 ** 52).toBe(true);
});
