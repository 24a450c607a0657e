/**
 * A queue by priority (lower is sooner); within one priority, owners take turns; within one owner, first come first served.
 *
 * An item may stand in line for several owners at once; whoever takes it removes it everywhere with `remove`.
 */
export interface FairQueue<Item> {
  add(item: Item, priority: number, owner: string): void;
  remove(item: Item, priority: number, owner: string): void;
  /** The next item, which stays where it is; its owner has had its turn. */
  next(): Item | undefined;
}

export function createFairQueue<Item>(): FairQueue<Item> {
  /** Maps and sets keep the order of insertion: of an owner's turn, and of arrival. */
  const levels = new Map<number, Map<string, Set<Item>>>();
  let sorted: number[] = [];

  return {
    add(item, priority, owner) {
      let level = levels.get(priority);
      if (!level) {
        level = new Map();
        levels.set(priority, level);
        sorted = [...levels.keys()].sort((a, b) => a - b);
      }
      const line = level.get(owner);
      if (line) line.add(item);
      else level.set(owner, new Set([item]));
    },
    remove(item, priority, owner) {
      const level = levels.get(priority);
      const line = level?.get(owner);
      if (!level || !line?.delete(item)) return;
      if (line.size === 0) level.delete(owner);
      if (level.size === 0) {
        levels.delete(priority);
        sorted = sorted.filter((one) => one !== priority);
      }
    },
    next() {
      const level = sorted[0] === undefined ? undefined : levels.get(sorted[0]);
      const turn = level?.entries().next().value;
      if (!level || !turn) return undefined;
      const [owner, line] = turn;
      level.delete(owner);
      level.set(owner, line);
      return line.values().next().value;
    },
  };
}
