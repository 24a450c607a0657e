/** A set of byte positions as few intervals, in order and apart from each other. */
export interface Intervals {
  /** Parts of `from` .. `to` that are not in the set, in order. */
  gaps(from: number, to: number): [from: number, to: number][];
  add(from: number, to: number): void;
  /** All positions below this one are in the set. */
  solidTo(): number;
}

export function createIntervals(): Intervals {
  let all: [from: number, to: number][] = [];
  return {
    gaps(from, to) {
      const gaps: [number, number][] = [];
      let at = from;
      for (const [start, end] of all) {
        if (end <= at) continue;
        if (start >= to) break;
        if (start > at) gaps.push([at, start]);
        at = end;
      }
      if (at < to) gaps.push([at, to]);
      return gaps;
    },
    add(from, to) {
      if (from >= to) return;
      const before = all.filter(([, end]) => end < from);
      const after = all.filter(([start]) => start > to);
      const touching = all.slice(before.length, all.length - after.length);
      const start = Math.min(from, touching[0]?.[0] ?? from);
      const end = Math.max(to, touching.at(-1)?.[1] ?? to);
      all = [...before, [start, end], ...after];
    },
    solidTo: () => (all[0]?.[0] === 0 ? all[0][1] : 0),
  };
}
