/** Who is not asked for a while, because it did not deliver what it had announced. */
import type { NodeId } from '../ids.ts';
import * as limits from './limits.ts';
import type { BenchReason } from './types.ts';

export interface Bench {
  /** Counts a failure; returns for how long the node is benched now, or undefined when this one is let pass. */
  add(node: NodeId, reason: BenchReason, nowMs: number): number | undefined;
  has(node: NodeId, nowMs: number): boolean;
}

interface Mark {
  untilMs: number;
  times: number;
  absences: number;
  sinceMs: number;
}

export function createBench(): Bench {
  const marks = new Map<NodeId, Mark>();
  return {
    add(node, reason, nowMs) {
      const mark = marks.get(node) ?? { untilMs: 0, times: 0, absences: 0, sinceMs: nowMs };
      marks.set(node, mark);
      if (nowMs < mark.untilMs && reason !== 'wrong') return undefined;
      if (reason === 'absent') {
        if (nowMs - mark.sinceMs > limits.strikesMs) {
          mark.sinceMs = nowMs;
          mark.absences = 0;
        }
        mark.absences += 1;
        if (mark.absences < limits.strikes) return undefined;
        mark.absences = 0;
      }
      // A node that behaved for as long as the longest bench begins anew.
      if (nowMs - mark.untilMs > limits.benchMsMax[reason]) mark.times = 0;
      const forMs = Math.min(limits.benchMsMax[reason], limits.benchMs[reason] * 2 ** mark.times);
      mark.times = Math.min(mark.times + 1, 16);
      mark.untilMs = nowMs + forMs;
      return forMs;
    },
    has: (node, nowMs) => nowMs < (marks.get(node)?.untilMs ?? 0),
  };
}
