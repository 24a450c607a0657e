/** Which executors take no more of this node's actions for a while: they are drained, and probed before they are trusted. */
import type { NodeId } from '../ids.ts';
import * as limits from './limits.ts';

export interface Health {
  /** A run on the node ended well; true when that ends its drain. */
  well(node: NodeId): boolean;
  /** A fault of the executor, not of the action; returns for how long it is drained now, if it is. A wrong result is enough. */
  fault(node: NodeId, nowMs: number, isMismatch?: boolean): number | undefined;
  /** Drained by the operator, until undone; true when that changes anything. */
  byHand(node: NodeId, drained: boolean): boolean;
  /** May the node be given an action? After a drain, one at a time until one ended well. */
  accepts(node: NodeId, nowMs: number): boolean;
  /** The node was given an action, and has it no more without anything said about the node. */
  given(node: NodeId): void;
  over(node: NodeId): void;
  /** Nodes that are not to be given anything, of those that could be; never all of them. */
  avoided(candidates: readonly NodeId[], nowMs: number): NodeId[];
  /** Everybody who is drained now; `untilMs` is undefined for those that only a hand lets back. */
  drained(): readonly { readonly node: NodeId; readonly untilMs: number | undefined }[];
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
  // The longest known first: beyond the bound they are forgiven.
  const marks = new Map<NodeId, Mark>();
  const byHand = new Set<NodeId>();

  function accepts(node: NodeId, nowMs: number): boolean {
    if (byHand.has(node)) return false;
    const mark = marks.get(node);
    return mark === undefined || (nowMs >= mark.untilMs && !(mark.probation && mark.probing));
  }

  return {
    accepts,
    well(node) {
      const wasDrained = marks.get(node)?.probation === true;
      marks.delete(node);
      return wasDrained;
    },
    fault(node, nowMs, isMismatch = false) {
      const mark = marks.get(node) ?? { faults: 0, drains: 0, untilMs: 0, probation: false, probing: false };
      marks.set(node, mark);
      const [longest] = marks.keys();
      if (marks.size > limits.marksMax && longest !== undefined) marks.delete(longest);
      mark.faults += 1;
      mark.probing = false;
      // What was under way when it was drained says nothing new.
      if (nowMs < mark.untilMs) return undefined;
      if (mark.faults < limits.faultsToDrain && !mark.probation && !isMismatch) return undefined;
      const forMs = Math.min(limits.drainMsMax, limits.drainMs * 2 ** Math.min(mark.drains, 16));
      mark.drains += 1;
      mark.faults = 0;
      mark.untilMs = nowMs + forMs;
      mark.probation = true;
      return forMs;
    },
    byHand(node, drained) {
      if (byHand.has(node) === drained) return false;
      if (drained) byHand.add(node);
      else byHand.delete(node);
      return true;
    },
    given(node) {
      const mark = marks.get(node);
      if (mark?.probation === true) mark.probing = true;
    },
    over(node) {
      const mark = marks.get(node);
      if (mark) mark.probing = false;
    },
    avoided(candidates, nowMs) {
      const avoided = candidates.filter((node) => !accepts(node, nowMs));
      // A fault that hits everybody is ours, or the action's; the only executor is not starved for it.
      return avoided.length === candidates.length ? [] : avoided;
    },
    drained: () => [
      ...[...byHand].map((node) => ({ node, untilMs: undefined })),
      ...[...marks].flatMap(([node, { probation, untilMs }]) =>
        probation && !byHand.has(node) ? [{ node, untilMs }] : [],
      ),
    ],
  };
}
