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
  type Step = (event: Events[Part]) => void;
  // Arrays instead of maps: every event of every machine passes here.
  const parts = Object.keys(steps) as Part[];
  const stepOf = parts.map((part) => steps[part] as Step);
  const dueMs = parts.map(() => Number.POSITIVE_INFINITY);
  const to: Part[] = [];
  const events: Events[Part][] = [];
  const wake = { kind: 'wake' } as Events[Part];

  function firstDue(nowMs: number): number {
    for (let i = 0; i < dueMs.length; i++) if ((dueMs[i] as number) <= nowMs) return i;
    return -1;
  }

  return {
    add(part, event) {
      to.push(part);
      events.push(event);
    },
    wakeAt(part, atMs) {
      dueMs[parts.indexOf(part)] = atMs;
    },
    settle(nowMs, more) {
      for (let turns = 0; ; turns++) {
        assert(turns < limits.turnsMax, 'the machines of a node keep each other busy without time passing');
        for (let i = 0; i < to.length; i++) (steps[to[i] as Part] as Step)(events[i] as Events[Part]);
        to.length = 0;
        events.length = 0;
        if (more?.()) continue;
        const due = firstDue(nowMs);
        if (due < 0) return;
        dueMs[due] = Number.POSITIVE_INFINITY;
        (stepOf[due] as Step)(wake);
      }
    },
    nextMs() {
      let next = Number.POSITIVE_INFINITY;
      for (let i = 0; i < dueMs.length; i++) next = Math.min(next, dueMs[i] as number);
      return next;
    },
  };
}
