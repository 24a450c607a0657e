/**
 * Once faults have ended, every node sees every other one alive, and the same of it, within O(log n) protocol periods;
 * and at no time does anybody believe in a member that does not exist, or in an incarnation that its subject never made.
 */
import { convergeMs } from '../plan.ts';
import type { CheckerFactory } from './checker.ts';

export const viewsConverge: CheckerFactory = (world, fail) => {
  const issued = new Map<string, number>();
  let observed = 0;
  let agreedAtMs: number | undefined;

  function agree(): boolean {
    const [first] = world.nodes;
    const summary = first?.peer()?.membership.summary();
    return world.nodes.every((node) => {
      const membership = node.peer()?.membership;
      if (!membership || membership.summary() !== summary) return false;
      return world.nodes.every(({ id }) => membership.status(id) === 'alive');
    });
  }

  return {
    name: 'views-converge',
    observed: () => observed,
    onNote(node, note) {
      if (note.kind !== 'member') return;
      const { id, incarnation } = note.member.record;
      if (id === node.id) {
        issued.set(id, Math.max(issued.get(id) ?? 0, incarnation));
        return;
      }
      observed += 1;
      if (!world.nodes.some((other) => other.id === id)) fail(`${node.id} took ${id} for a member`);
      if (incarnation > (issued.get(id) ?? 0)) fail(`${node.id} believes in incarnation ${incarnation} of ${id}`);
    },
    onSecond() {
      const healedAtMs = world.healedAtMs();
      if (healedAtMs === undefined || agreedAtMs !== undefined) return;
      if (agree()) {
        observed += 1;
        agreedAtMs = world.nowMs();
        return;
      }
      if (world.nowMs() - healedAtMs > convergeMs(world.nodes.length)) {
        fail(`views still differ ${world.nowMs() - healedAtMs} ms after healing`);
      }
    },
    onEnd() {
      if (agreedAtMs === undefined) fail('views never agreed');
    },
  };
};
