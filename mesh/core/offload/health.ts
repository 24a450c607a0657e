/** Which executors take no more of this node's actions for a while: they are drained, and probed before they are trusted. */
import type { NodeId } from '../ids.ts';
import * as limits from './limits.ts';

export interface Health {
  /** A run on the node ended well. */
  well(node: NodeId): void;
  /** A fault of the executor, not of the action; returns for how long it is drained now, if it is. */
  fault(node: NodeId, nowMs: number): number | undefined;
  /** May the node be given an action? After a drain, one at a time until one ended well. */
  accepts(node: NodeId, nowMs: number): boolean;
  /** The node was given an action. */
  given(node: NodeId): void;
  /** Nodes that are not to be given anything, of those that could be; never all of them. */
  avoided(candidates: readonly NodeId[], nowMs: number): NodeId[];
}

interface Mark {
  faults: number;
  drains: number;
  untilMs: number;
  /** Out of a drain, and not trusted yet. */
  probation: boolean;
  probing: boolean;
}

export function createHealth(): Health {
  const marks = new Map<NodeId, Mark>();

  function accepts(node: NodeId, nowMs: number): boolean {
    const mark = marks.get(node);
    return mark === undefined || (nowMs >= mark.untilMs && !(mark.probation && mark.probing));
  }

  return {
    accepts,
    well: (node) => void marks.delete(node),
    fault(node, nowMs) {
      const mark = marks.get(node) ?? { faults: 0, drains: 0, untilMs: 0, probation: false, probing: false };
      marks.set(node, mark);
      mark.faults += 1;
      mark.probing = false;
      if (mark.faults < limits.faultsToDrain && !mark.probation) return undefined;
      const forMs = Math.min(limits.drainMsMax, limits.drainMs * 2 ** Math.min(mark.drains, 16));
      mark.drains += 1;
      mark.faults = 0;
      mark.untilMs = nowMs + forMs;
      mark.probation = true;
      return forMs;
    },
    given(node) {
      const mark = marks.get(node);
      if (mark?.probation === true) mark.probing = true;
    },
    avoided(candidates, nowMs) {
      const avoided = candidates.filter((node) => !accepts(node, nowMs));
      // A fault that hits everybody is ours, or the action's; the only executor is not starved for it.
      return avoided.length === candidates.length ? [] : avoided;
    },
  };
}
