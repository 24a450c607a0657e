/**
 * One node's clock: it runs at its own rate, stands still while the machine is paused (and shows nothing of it), and
 * counts time spent suspended apart.
 */
import type { Clock } from '../node/mesh/ports.ts';
import type { Engine } from './engine.ts';

export interface SimClock extends Clock {
  nowUs(): number;
  /** Virtual time at which this clock will show `atMs`, if nothing happens to it. */
  globalUs(atMs: number): number;
  setRate(perMillion: number): void;
  stop(): void;
  go(): void;
  addSuspended(durationUs: number): void;
  /** Power was cut: the clock begins again. */
  restart(): void;
}

export function createClock(engine: Engine, startMs: number): SimClock {
  let baseUs = startMs * 1_000;
  let sinceUs = 0;
  let rate = 1_000_000;
  let stopped = false;
  let suspendedUs = 0;

  function nowUs(): number {
    if (stopped) return baseUs;
    return baseUs + Math.trunc(((engine.nowUs() - sinceUs) * rate) / 1_000_000);
  }

  function rebase(): void {
    baseUs = nowUs();
    sinceUs = engine.nowUs();
  }

  return {
    nowUs,
    nowMs: () => Math.trunc(nowUs() / 1_000),
    suspendedMs: () => Math.trunc(suspendedUs / 1_000),
    globalUs: (atMs) => engine.nowUs() + Math.max(0, Math.ceil(((atMs * 1_000 - nowUs()) * 1_000_000) / rate)),
    setRate(perMillion) {
      rebase();
      rate = perMillion;
    },
    stop() {
      rebase();
      stopped = true;
    },
    go() {
      stopped = false;
      sinceUs = engine.nowUs();
    },
    addSuspended(durationUs) {
      suspendedUs += durationUs;
    },
    restart() {
      baseUs = startMs * 1_000;
      sinceUs = engine.nowUs();
      stopped = false;
      suspendedUs = 0;
    },
  };
}
