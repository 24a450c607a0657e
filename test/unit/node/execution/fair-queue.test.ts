import fc from 'fast-check';
import { expect, test } from 'vitest';
import { createFairQueue } from '../../../../node/execution/fair-queue.ts';

test('an item in line for two owners comes once when it is removed for both', () => {
  const queue = createFairQueue<string>();
  queue.add('shared', 0, 'a');
  queue.add('shared', 0, 'b');
  queue.add('own', 0, 'b');
  expect(queue.next()).toBe('shared');
  queue.remove('shared', 0, 'a');
  queue.remove('shared', 0, 'b');
  expect(queue.next()).toBe('own');
  queue.remove('own', 0, 'b');
  expect(queue.next()).toBeUndefined();
});

test('items of one owner and priority keep their order, lower priorities go first, nothing is lost', () => {
  const owners = fc.constantFrom<string>('a', 'b', 'c');
  const entry = fc.record({ priority: fc.integer({ min: -2, max: 2 }), owner: owners });
  fc.assert(
    fc.property(fc.array(entry), (entries) => {
      const queue = createFairQueue<{ priority: number; owner: string; serial: number }>();
      const items = entries.map((one, serial) => ({ ...one, serial }));
      for (const item of items) queue.add(item, item.priority, item.owner);
      const taken: typeof items = [];
      for (let item = queue.next(); item; item = queue.next()) {
        taken.push(item);
        queue.remove(item, item.priority, item.owner);
      }
      expect(taken).toHaveLength(items.length);
      expect(taken.map(({ priority }) => priority)).toEqual(
        items.map(({ priority }) => priority).sort((a, b) => a - b),
      );
      for (const priority of [-2, -1, 0, 1, 2]) {
        const level = taken.filter((one) => one.priority === priority);
        for (const owner of ['a', 'b', 'c']) {
          const serials = level.filter((one) => one.owner === owner).map(({ serial }) => serial);
          expect(serials).toEqual([...serials].sort((a, b) => a - b));
        }
        // Nobody gets a second turn while another who has something waits for the first.
        const owners = new Set(level.map(({ owner }) => owner));
        expect(new Set(level.slice(0, owners.size).map(({ owner }) => owner))).toEqual(owners);
      }
    }),
  );
});
