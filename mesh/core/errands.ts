/**
 * How a machine that is made of machines passes events between them: each machine's effects are dealt with before any
 * machine takes its next event, and whoever is due is woken, until nothing is left to do at this moment.
 */
import assert from 'node:assert';
import { peerLimits as limits } from './limits.ts';

/** `Events` maps the name of each part to the events that it takes. */
export interface Errands<Events> {
  add<Part extends keyof Events>(to: Part, event: Events[Part]): void;
  /** Replaces when the part wants to be woken. */
  wakeAt(part: keyof Events, atMs: number): void;
  /** Runs everything; `more` is called whenever the parts are quiet, and says whether it gave them something to do. */
  settle(nowMs: number, more?: () => boolean): void;
  /** When the first of the parts wants to be woken. */
  nextMs(): number;
}

/** `steps` are the parts in the order in which they are woken; each deals with the effects of its own machine. */
export function createErrands<Events>(
  steps: {
    readonly [Part in keyof Events]: (event: Events[Part]) => void;
  },
): Errands<Events> {
  type Part = keyof Events;
  const parts = Object.keys(steps) as Part[];
  const dueMs = new Map<Part, number>(parts.map((part) => [part, Number.POSITIVE_INFINITY]));
  const queue: { readonly to: Part; readonly event: Events[Part] }[] = [];
  const wake = { kind: 'wake' } as Events[Part];

  function firstDue(nowMs: number): Part | undefined {
    for (const [part, atMs] of dueMs) if (atMs <= nowMs) return part;
    return undefined;
  }

  return {
    add: (to, event) => void queue.push({ to, event }),
    wakeAt: (part, atMs) => void dueMs.set(part, atMs),
    settle(nowMs, more) {
      for (let turns = 0; ; turns++) {
        assert(turns < limits.turnsMax, 'the machines of a node keep each other busy without time passing');
        for (let i = 0; i < queue.length; i++) {
          const { to, event } = queue[i] as (typeof queue)[number];
          steps[to](event);
        }
        queue.length = 0;
        if (more?.()) continue;
        const due = firstDue(nowMs);
        if (due === undefined) return;
        dueMs.set(due, Number.POSITIVE_INFINITY);
        steps[due](wake);
      }
    },
    nextMs() {
      let next = Number.POSITIVE_INFINITY;
      for (const atMs of dueMs.values()) next = Math.min(next, atMs);
      return next;
    },
  };
}
