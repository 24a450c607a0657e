/** Drives the fetch planner (mesh/core/fetch) by itself: real time, and every live member as a possible holder. */
import { createPlanner } from '../../mesh/core/fetch/planner.ts';
import type { FetchEffect, FetchEvent, Locality } from '../../mesh/core/fetch/types.ts';
import type { NodeId } from '../../mesh/core/ids.ts';
import type { PlannedEffect } from '../../node/peers/sharing.ts';

export interface Planning {
  readonly deliver: (event: FetchEvent) => void;
  /** A member came, or went. */
  setMember(node: NodeId, isAlive: boolean, locality: Locality): void;
  members(): readonly NodeId[];
  close(): void;
}

export function createPlanning(self: NodeId, perform: (effect: PlannedEffect) => void): Planning {
  const planner = createPlanner({ self });
  const alive = new Set<NodeId>();
  const waiting: FetchEvent[] = [];
  let isStepping = false;
  let timer: NodeJS.Timeout | undefined;

  /** Effects may bring events at once; they are taken one after the other. */
  function deliver(event: FetchEvent): void {
    waiting.push(event);
    if (isStepping) return;
    isStepping = true;
    try {
      for (let next = waiting.shift(); next; next = waiting.shift()) {
        for (const effect of planner.step(next, Math.round(performance.now()))) act(effect);
      }
    } finally {
      isStepping = false;
    }
  }

  function act(effect: FetchEffect): void {
    switch (effect.kind) {
      case 'wakeAt':
        clearTimeout(timer);
        if (effect.atMs < Number.POSITIVE_INFINITY)
          timer = setTimeout(() => deliver({ kind: 'wake' }), Math.max(0, effect.atMs - performance.now()));
        return;
      case 'locate': {
        const holders = [...alive];
        deliver({ kind: 'located', found: effect.blobs.map((blob) => ({ blob, holders, sure: 'budget' as const })) });
        return;
      }
      case 'blame':
        if (effect.reason === 'wrong') alive.delete(effect.node);
        return;
      case 'note':
        return;
      default:
        perform(effect);
    }
  }

  return {
    deliver,
    setMember(node, isAlive, locality) {
      if (isAlive) alive.add(node);
      else alive.delete(node);
      deliver({ kind: 'peer', node, status: isAlive ? 'alive' : 'dead', locality });
    },
    members: () => [...alive],
    close: () => clearTimeout(timer),
  };
}
