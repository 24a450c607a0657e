/**
 * Once faults have ended, every node sees every other one alive, and the same of it, within O(log n) protocol periods; what
 * changed only just now (owners come and go) may still be on its way. And at no time does anybody believe in a member that does not exist, or in an incarnation that its subject never made.
 */
import { convergeMs, spreadMs } from '../plan.ts';
import type { CheckerFactory } from './checker.ts';

export const viewsConverge: CheckerFactory = (world, fail) => {
  const issued = new Map<string, number>();
  /** The newest incarnation of each, and since when; and the one that everybody must know by now. */
  const changes = new Map<string, { readonly incarnation: number; readonly atMs: number }[]>();
  let observed = 0;
  let agreedAtMs: number | undefined;

  /** What everybody must know of a node by now. */
  function settled(id: string): number {
    const known = changes.get(id) ?? [];
    const sinceMs = world.nowMs() - spreadMs(world.nodes.length);
    while (known[1] && known[1].atMs <= sinceMs) known.shift();
    return known[0] && known[0].atMs <= sinceMs ? known[0].incarnation : 0;
  }

  function agree(): boolean {
    const must = world.nodes.map(({ id }) => settled(id));
    return world.nodes.every((node) => {
      const membership = node.peer()?.membership;
      if (!membership) return false;
      return world.nodes.every(({ id }, i) => {
        const member = membership.get(id);
        return member?.status === 'alive' && member.record.incarnation >= (must[i] as number);
      });
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
        // On a blank disk it begins anew, below what it said last before and nobody may have heard.
        const known = changes.get(id);
        if (known) known.push({ incarnation, atMs: world.nowMs() });
        else changes.set(id, [{ incarnation, atMs: world.nowMs() }]);
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
