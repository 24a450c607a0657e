/**
 * Gossip about work that waits: hints are gathered for a moment, and one message leaves for many actions. What was claimed
 * meanwhile is not said at all, since only waiting work is worth anybody's while.
 */
import type { LeaseHint } from './claims/messages.ts';
import type { ActionKey, NodeId } from './ids.ts';
import { peerLimits as limits } from './limits.ts';
import type { MeshMember } from './offload/types.ts';
import type { Rng } from './rng.ts';

export interface Hints {
  /** Returns when the next batch is due. */
  add(hint: LeaseHint, nowMs: number): number;
  /** What to say now and to whom; undefined when nothing waits any more. */
  take(
    members: readonly MeshMember[],
    nowMs: number,
  ): { readonly to: readonly NodeId[]; readonly hints: readonly LeaseHint[] } | undefined;
}

export function createHints(rng: Rng): Hints {
  let waiting = new Map<ActionKey, LeaseHint>();
  let saidAtMs = Number.NEGATIVE_INFINITY;
  let dueAtMs = Number.POSITIVE_INFINITY;
  return {
    add(hint, nowMs) {
      if (hint.state !== 'ready') waiting.delete(hint.key);
      else if (waiting.size < limits.hintsWaiting) waiting.set(hint.key, hint);
      if (waiting.size === 0) dueAtMs = Number.POSITIVE_INFINITY;
      else if (dueAtMs === Number.POSITIVE_INFINITY) {
        dueAtMs = Math.max(nowMs + limits.hintDelayMs, saidAtMs + limits.hintIntervalMs);
      }
      return dueAtMs;
    },
    take(members, nowMs) {
      dueAtMs = Number.POSITIVE_INFINITY;
      if (waiting.size === 0) return undefined;
      saidAtMs = nowMs;
      // One says all that a receiver acts on: that there is work at its leader. Which work, the pull finds out.
      const [hint] = waiting.values();
      const hints = hint ? [hint] : [];
      waiting = new Map();
      const to = members.filter(({ guestSlots }) => guestSlots > 0).map(({ node }) => node);
      while (to.length > limits.hintFanout) to.splice(rng.below(to.length), 1);
      return { to, hints };
    },
  };
}
