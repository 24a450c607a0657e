/** Claimed actions that take far longer than such actions do: a few of them are run here as well. */
import type { RequestId } from '../ids.ts';
import * as limits from './limits.ts';

export interface Stragglers {
  /** Another action was offered: hedges are a share of those. */
  offered(): void;
  claimed(request: RequestId, expectedMs: number, nowMs: number): void;
  frozen(request: RequestId, frozen: boolean, nowMs: number): void;
  /** Takes it off, and returns how long it took since it was claimed, without time spent frozen. */
  ended(request: RequestId, nowMs: number): number | undefined;
  forget(request: RequestId): void;
  /** Those that are to be run here as well now, at most `free`. */
  late(free: number, nowMs: number): readonly RequestId[];
  dueAtMs(): number;
}

interface Claimed {
  readonly sinceMs: number;
  readonly expectedMs: number;
  frozenSinceMs: number | undefined;
  frozenMs: number;
  hedged: boolean;
}

export function createStragglers(): Stragglers {
  const claimed = new Map<RequestId, Claimed>();
  const percents: number[] = [];
  let oldest = 0;
  let offers = 0;
  let hedges = 0;
  let percent: number = limits.stragglerPercentUnknown;

  function learn(tookMs: number, expectedMs: number): void {
    percents[oldest] = (tookMs * 100) / Math.max(1, expectedMs);
    oldest = (oldest + 1) % limits.stragglerSamples;
    if (percents.length < limits.stragglerSamplesMin) return;
    const sorted = percents.toSorted((a, b) => a - b);
    const high = sorted[Math.trunc((sorted.length * 95) / 100)] as number;
    percent = Math.min(limits.stragglerPercentMax, Math.max(limits.stragglerPercentMin, high));
  }

  /** When a run becomes a straggler; frozen time is not run time. */
  function lateAtMs(run: Claimed): number {
    if (run.hedged || run.frozenSinceMs !== undefined) return Number.POSITIVE_INFINITY;
    const patienceMs = Math.max(limits.stragglerMsMin, Math.ceil((run.expectedMs * percent) / 100));
    return run.sinceMs + run.frozenMs + patienceMs;
  }

  function mayHedge(): boolean {
    return hedges < limits.hedgesFree + Math.trunc((offers * limits.hedgePercent) / 100);
  }

  return {
    offered: () => void (offers += 1),
    claimed(request, expectedMs, nowMs) {
      const hedged = claimed.get(request)?.hedged ?? false;
      claimed.set(request, { sinceMs: nowMs, expectedMs, frozenSinceMs: undefined, frozenMs: 0, hedged });
    },
    frozen(request, frozen, nowMs) {
      const run = claimed.get(request);
      if (!run) return;
      if (frozen) run.frozenSinceMs ??= nowMs;
      else if (run.frozenSinceMs !== undefined) {
        run.frozenMs += nowMs - run.frozenSinceMs;
        run.frozenSinceMs = undefined;
      }
    },
    ended(request, nowMs) {
      const run = claimed.get(request);
      if (!run) return undefined;
      claimed.delete(request);
      const tookMs = nowMs - run.sinceMs - run.frozenMs;
      learn(tookMs, run.expectedMs);
      return tookMs;
    },
    forget: (request) => void claimed.delete(request),
    late(free, nowMs) {
      const late: RequestId[] = [];
      for (const [request, run] of claimed) {
        if (late.length >= free || !mayHedge()) break;
        if (nowMs < lateAtMs(run)) continue;
        run.hedged = true;
        hedges += 1;
        late.push(request);
      }
      return late;
    },
    dueAtMs() {
      let next = Number.POSITIVE_INFINITY;
      if (mayHedge()) for (const run of claimed.values()) next = Math.min(next, lateAtMs(run));
      return next;
    },
  };
}
