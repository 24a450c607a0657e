/** When a transfer is late: measured, not fixed. */
import * as limits from './limits.ts';

export interface Hedging {
  /** A transfer took so long where so much was expected. */
  sample(takenMs: number, expectedMs: number): void;
  /** How long a transfer may take before it is hedged. */
  patienceMs(expectedMs: number): number;
  started(): void;
  /** Takes one of the hedges that are allowed; false when there is none. */
  take(): boolean;
}

export function createHedging(): Hedging {
  const percents: number[] = [];
  let oldest = 0;
  let percentile = limits.hedgePercentUnknown;
  let transfers = 0;
  let hedges = 0;
  return {
    sample(takenMs, expectedMs) {
      percents[oldest] = Math.trunc((takenMs * 100) / Math.max(1, expectedMs));
      oldest = (oldest + 1) % limits.hedgeSamples;
      if (percents.length < limits.hedgeSamplesMin || oldest % limits.hedgeSamplesMin !== 0) return;
      const sorted = percents.toSorted((a, b) => a - b);
      const at = sorted[Math.trunc((sorted.length * limits.hedgePercentile) / 100)] as number;
      percentile = Math.min(limits.hedgePercentMax, Math.max(limits.hedgePercentMin, at));
    },
    patienceMs: (expectedMs) => Math.max(limits.hedgeMsMin, Math.trunc((expectedMs * percentile) / 100)),
    started() {
      transfers += 1;
    },
    take() {
      if (hedges >= limits.hedgesFree + Math.trunc((transfers * limits.hedgePercentOfTransfers) / 100)) return false;
      hedges += 1;
      return true;
    },
  };
}
