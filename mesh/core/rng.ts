/**
 * A seeded source of integers: xoshiro128** in 32-bit integer arithmetic, the same on every engine.
 *
 * @see Blackman and Vigna, "Scrambled linear pseudorandom number generators", 2021; seeding by splitmix32
 */
export interface Rng {
  /** An integer in 0 .. 2^32 - 1. */
  next(): number;
  /** An integer in 0 .. bound - 1; `bound` is an integer in 1 .. 2^32. */
  below(bound: number): number;
  /** An integer in low .. high, both included. */
  between(low: number, high: number): number;
  /** True in `perMillion` of a million draws. */
  chance(perMillion: number): boolean;
  /** A source of its own, fixed by this one's seed and the label and not by how much either was used. */
  fork(label: string): Rng;
}

export function createRng(seed: number): Rng {
  let mixed = seed | 0;
  const splitMix = (): number => {
    mixed = (mixed + 0x9e3779b9) | 0;
    let z = mixed ^ (mixed >>> 16);
    z = Math.imul(z, 0x21f0aaad);
    z ^= z >>> 15;
    z = Math.imul(z, 0x735a2d97);
    return (z ^ (z >>> 15)) | 0;
  };
  let a = splitMix();
  let b = splitMix();
  let c = splitMix();
  let d = splitMix();
  // The all-zero state is the one fixed point of the generator.
  if ((a | b | c | d) === 0) a = 1;

  const next = (): number => {
    const scrambled = Math.imul(rotateLeft(Math.imul(b, 5), 7), 9);
    const shifted = b << 9;
    c ^= a;
    d ^= b;
    b ^= c;
    a ^= d;
    c ^= shifted;
    d = rotateLeft(d, 11);
    return scrambled >>> 0;
  };
  const below = (bound: number): number => {
    // Draws above the largest multiple of the bound are thrown away, so that every value is equally likely.
    const limit = 0x1_0000_0000 - (0x1_0000_0000 % bound);
    let draw = next();
    while (draw >= limit) draw = next();
    return draw % bound;
  };
  return {
    next,
    below,
    between: (low, high) => low + below(high - low + 1),
    chance: (perMillion) => below(1_000_000) < perMillion,
    fork: (label) => {
      let hash = seed | 0;
      for (let i = 0; i < label.length; i++) {
        hash = Math.imul(hash ^ label.charCodeAt(i), 0x01000193);
        hash ^= hash >>> 15;
      }
      return createRng(hash ^ 0x5bd1e995);
    },
  };
}

function rotateLeft(value: number, bits: number): number {
  return (value << bits) | (value >>> (32 - bits));
}
