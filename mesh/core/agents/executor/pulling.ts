/** Keeps one pull at every leader that may have work, for as many slots as are free. */
import type { ClaimMessage } from '../../claims/messages.ts';
import type { NodeId } from '../../ids.ts';
import { executorLimits as limits } from '../limits.ts';
import type { ExecutorConfig } from './types.ts';

export interface PullingPort {
  send(to: NodeId, message: ClaimMessage): void;
  freeSlots(): number;
  /** ...and those of them that guests may use. */
  guestSlots(): number;
  /** Reservations that are held already. */
  reservations(): number;
  welcome(): boolean;
  capabilities(): readonly string[];
}

export interface Pulling {
  /** This leader may have work. */
  workAt(leader: NodeId, nowMs: number): void;
  /** It answered with claims: what it knows of the slots here is out of date. */
  granted(leader: NodeId, nowMs: number): void;
  /** It offers what this node cannot take: it is asked again only after a while. */
  refused(leader: NodeId, nowMs: number): void;
  /** Own actions wait for a claim: guests are not asked for, unless slots stay free all the same. */
  ownWaiting(waiting: boolean): void;
  forget(leader: NodeId): void;
  /** Forgets all leaders; `tell` withdraws what they were asked for. */
  forgetAll(tell: boolean): void;
  pull(nowMs: number): void;
  dueAtMs(): number;
}

interface Pull {
  slots: number;
  ownOnly: boolean;
  notBeforeMs: number;
  sentAtMs: number;
  workAtMs: number;
}

export function createPulling(config: ExecutorConfig, port: PullingPort): Pulling {
  const pulls = new Map<NodeId, Pull>();
  let nextPull = 0;
  let isOwnWaiting = false;
  // Free slots that own actions could have had since then.
  let idleSinceMs: number | undefined;
  let ownFirst = false;

  function pullFor(offered: number, ownOnly: boolean): ClaimMessage {
    nextPull += 1;
    const [freeBytes, holds] = [config.freeBytes(), config.holds()];
    const room = Math.max(0, limits.reservationsMax - port.reservations());
    return {
      kind: 'pull',
      id: nextPull,
      slots: offered,
      reservations: offered === 0 && port.welcome() ? room : 0,
      ownOnly,
      capabilities: port.capabilities(),
      freeBytes,
      holds,
    };
  }

  /** When this pull has to be looked at again, if nothing happens before. */
  function dueMs(pull: Pull): number {
    const forgottenMs = pull.workAtMs + limits.hintMs + 1;
    const refreshMs = pull.slots > 0 ? pull.sentAtMs + limits.pullRefreshMs : forgottenMs;
    return Math.max(pull.notBeforeMs, Math.min(forgottenMs, refreshMs));
  }

  return {
    workAt(leader, nowMs) {
      const pull = pulls.get(leader);
      if (pull) pull.workAtMs = nowMs;
      else if (pulls.size < limits.pullsMax) {
        pulls.set(leader, { slots: 0, ownOnly: false, notBeforeMs: nowMs, sentAtMs: nowMs, workAtMs: nowMs });
      }
    },
    granted(leader, nowMs) {
      const pull = pulls.get(leader);
      if (!pull) return;
      pull.slots = -1;
      pull.workAtMs = nowMs;
    },
    refused(leader, nowMs) {
      const pull = pulls.get(leader);
      if (pull) pull.notBeforeMs = nowMs + limits.refusedPullMs;
    },
    ownWaiting: (waiting) => void (isOwnWaiting = waiting),
    forget: (leader) => void pulls.delete(leader),
    forgetAll(tell) {
      if (tell) for (const leader of pulls.keys()) port.send(leader, pullFor(0, true));
      pulls.clear();
    },
    pull(nowMs) {
      // When guests may not use all that is free, what is left is for own actions, once theirs is taken.
      const free = port.freeSlots();
      if (!isOwnWaiting || free === 0) idleSinceMs = undefined;
      else idleSinceMs ??= nowMs;
      ownFirst = isOwnWaiting && (idleSinceMs === undefined || nowMs - idleSinceMs < limits.ownFirstMs);
      const lent = ownFirst ? 0 : port.guestSlots();
      const offered = lent > 0 ? lent : free;
      const ownOnly = lent === 0 && (offered > 0 || ownFirst || !port.welcome());
      for (const [leader, pull] of pulls) {
        const stale = nowMs - pull.sentAtMs >= limits.pullRefreshMs;
        if (nowMs - pull.workAtMs > limits.hintMs) {
          if (pull.slots > 0) port.send(leader, pullFor(0, true));
          pulls.delete(leader);
          continue;
        }
        // A leader that must not grant to guests any more hears so at once, whatever it offered before.
        if (nowMs < pull.notBeforeMs && pull.ownOnly === ownOnly) continue;
        if (pull.slots !== offered || pull.ownOnly !== ownOnly || (stale && offered > 0)) {
          Object.assign(pull, { slots: offered, ownOnly, sentAtMs: nowMs });
          port.send(leader, pullFor(offered, ownOnly));
        }
      }
    },
    dueAtMs() {
      let next = Number.POSITIVE_INFINITY;
      if (ownFirst && idleSinceMs !== undefined) next = idleSinceMs + limits.ownFirstMs;
      for (const pull of pulls.values()) next = Math.min(next, dueMs(pull));
      return next;
    },
  };
}
