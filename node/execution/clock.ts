/** The node's time; the simulator supplies its own. */
export interface Clock {
  /** Milliseconds since the epoch. */
  nowMs(): number;
  /** Calls back once, after `delayMs`; the returned function calls it off. Does not keep the process alive. */
  setTimer(delayMs: number, callback: () => void): () => void;
}

/** Longer delays are what `setTimeout` cannot hold. */
const timerMaxMs = 2 ** 31 - 1;

export const systemClock: Clock = {
  nowMs: () => Date.now(),
  setTimer(delayMs, callback) {
    const timer = setTimeout(callback, Math.min(Math.max(delayMs, 0), timerMaxMs));
    timer.unref();
    return () => clearTimeout(timer);
  },
};
