/**
 * Drives the fetch planner and the upload gate (mesh/core/fetch) by themselves: real time, and every live member as a
 * possible holder.
 */
import { createPlanner } from '../../mesh/core/fetch/planner.ts';
import { createUploads } from '../../mesh/core/fetch/uploads.ts';
import type { FetchEffect, FetchEvent, Locality, UploadEffect, UploadEvent } from '../../mesh/core/fetch/types.ts';
import type { NodeId } from '../../mesh/core/ids.ts';
import type { PlannedEffect } from '../../node/peers/sharing.ts';

export interface Planning {
  readonly deliver: (event: FetchEvent | UploadEvent) => void;
  /** A member came, or went. */
  setMember(node: NodeId, isAlive: boolean, locality: Locality): void;
  members(): readonly NodeId[];
  close(): void;
}

export interface PlanningOptions {
  readonly uploadBytesPerSecond?: number;
  /** Who has a blob, as an index would tell; by default everybody might. */
  readonly holdersOf?: (blob: string) => readonly NodeId[];
}

export function createPlanning(
  self: NodeId,
  perform: (effect: PlannedEffect | UploadEffect) => void,
  options: PlanningOptions = {},
): Planning {
  const bytesPerSecond = options.uploadBytesPerSecond ?? 1e9;
  const uploads = createUploads({ bytesPerSecond, uploadsMax: 64 }, Math.round(performance.now()));
  const planner = createPlanner({ self });
  const alive = new Set<NodeId>();
  const waiting: (FetchEvent | UploadEvent)[] = [];
  const holdersOf = options.holdersOf ?? (() => [...alive]);
  let isStepping = false;
  let timer: NodeJS.Timeout | undefined;

  /** Effects may bring events at once; they are taken one after the other. */
  function deliver(event: FetchEvent | UploadEvent): void {
    waiting.push(event);
    if (isStepping) return;
    isStepping = true;
    try {
      for (let next = waiting.shift(); next; next = waiting.shift()) {
        const nowMs = Math.round(performance.now());
        if (next.kind === 'asked' || next.kind === 'sent' || next.kind === 'gone' || next.kind === 'absent') {
          for (const effect of uploads.step(next, nowMs)) perform(effect);
        } else for (const effect of planner.step(next, nowMs)) act(effect);
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
        deliver({
          kind: 'located',
          found: effect.blobs.map((blob) => ({ blob, holders: holdersOf(blob), sure: 'budget' as const })),
        });
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
