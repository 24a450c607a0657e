/** What happens to guests when the owner comes back, stage by stage: stop claiming, freeze, give back, kill. */
import type { Machine } from '../machine.ts';
import * as limits from './limits.ts';

export type YieldingEvent =
  | { readonly kind: 'wake' }
  | { readonly kind: 'owner'; readonly present: boolean }
  | { readonly kind: 'guestStarted'; readonly run: number }
  | { readonly kind: 'guestEnded'; readonly run: number };

export type YieldingEffect =
  | { readonly kind: 'claiming'; readonly allowed: boolean }
  | { readonly kind: 'freeze'; readonly run: number }
  | { readonly kind: 'thaw'; readonly run: number }
  | { readonly kind: 'giveBack'; readonly run: number }
  | { readonly kind: 'kill'; readonly run: number }
  | { readonly kind: 'wakeAt'; readonly atMs: number };

export function createYielding(): Machine<YieldingEvent, YieldingEffect> {
  const guests = new Set<number>();
  const givenBack = new Set<number>();
  let presentSinceMs: number | undefined;
  let wakeAtMs = Number.POSITIVE_INFINITY;

  return {
    step(event, nowMs) {
      const effects: YieldingEffect[] = [];
      switch (event.kind) {
        case 'wake':
          break;
        case 'owner':
          if (event.present === (presentSinceMs !== undefined)) break;
          presentSinceMs = event.present ? nowMs : undefined;
          effects.push({ kind: 'claiming', allowed: !event.present });
          for (const run of guests) {
            // What was given back is somebody else's by now: it is killed, whoever is here.
            if (event.present) effects.push({ kind: 'freeze', run });
            else if (!givenBack.has(run)) effects.push({ kind: 'thaw', run });
          }
          break;
        case 'guestStarted':
          guests.add(event.run);
          if (presentSinceMs !== undefined) effects.push({ kind: 'freeze', run: event.run });
          break;
        case 'guestEnded':
          guests.delete(event.run);
          givenBack.delete(event.run);
          break;
        default:
          event satisfies never;
      }
      const forMs = presentSinceMs === undefined ? 0 : nowMs - presentSinceMs;
      if (forMs >= limits.giveBackAfterMs) {
        for (const run of guests) {
          if (givenBack.has(run)) continue;
          givenBack.add(run);
          effects.push({ kind: 'giveBack', run });
        }
      }
      if (givenBack.size > 0 && (presentSinceMs === undefined || forMs >= limits.killAfterMs)) {
        for (const run of givenBack) {
          guests.delete(run);
          effects.push({ kind: 'kill', run });
        }
        givenBack.clear();
      }
      let next = Number.POSITIVE_INFINITY;
      if (presentSinceMs !== undefined && guests.size > 0) {
        const open = [...guests].some((run) => !givenBack.has(run));
        next = presentSinceMs + (open ? limits.giveBackAfterMs : limits.killAfterMs);
      }
      if (next !== wakeAtMs || event.kind === 'wake') effects.push({ kind: 'wakeAt', atMs: next });
      wakeAtMs = next;
      return effects;
    },
  };
}
