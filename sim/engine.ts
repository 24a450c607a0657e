/**
 * Virtual time: a heap of events in integer microseconds, ties broken by order of scheduling, and the running hash of
 * everything that happened. Two runs of one seed and one commit have the same hash.
 */

export interface Engine {
  nowUs(): number;
  /** Runs `act` at `atUs`, or now when that has passed. */
  at(atUs: number, act: () => void): void;
  after(delayUs: number, act: () => void): void;
  /** Runs events in order until there is none before `endUs`, or until `stop` was called; time then stands at `endUs`. */
  runUntil(endUs: number): void;
  /** Ends `runUntil` after the present event. */
  stop(): void;
  /** Mixes small integers into the trace hash. */
  note(a: number, b: number, c: number): void;
  /** The hash so far, 16 hex digits. */
  traceHash(): string;
  events(): number;
}

export function createEngine(): Engine {
  // One binary heap over three parallel arrays: no object per event beyond the closure itself.
  const times: number[] = [];
  const orders: number[] = [];
  const acts: (() => void)[] = [];
  let nowUs = 0;
  let order = 0;
  let events = 0;
  let stopped = false;
  let hashA = 0x811c9dc5;
  let hashB = 0x01234567;

  function before(i: number, timeUs: number, at: number): boolean {
    const other = times[i] as number;
    return other < timeUs || (other === timeUs && (orders[i] as number) < at);
  }

  function push(timeUs: number, act: () => void): void {
    const mine = order++;
    let i = times.length;
    times.push(timeUs);
    orders.push(mine);
    acts.push(act);
    while (i > 0) {
      const parent = (i - 1) >> 1;
      if (before(parent, timeUs, mine)) break;
      times[i] = times[parent] as number;
      orders[i] = orders[parent] as number;
      acts[i] = acts[parent] as () => void;
      i = parent;
    }
    times[i] = timeUs;
    orders[i] = mine;
    acts[i] = act;
  }

  function pop(): () => void {
    const top = acts[0] as () => void;
    const timeUs = times.pop() as number;
    const mine = orders.pop() as number;
    const act = acts.pop() as () => void;
    const size = times.length;
    if (size === 0) return top;
    let i = 0;
    for (;;) {
      let child = 2 * i + 1;
      if (child >= size) break;
      const right = child + 1;
      if (right < size && before(right, times[child] as number, orders[child] as number)) child = right;
      if (!before(child, timeUs, mine)) break;
      times[i] = times[child] as number;
      orders[i] = orders[child] as number;
      acts[i] = acts[child] as () => void;
      i = child;
    }
    times[i] = timeUs;
    orders[i] = mine;
    acts[i] = act;
    return top;
  }

  return {
    nowUs: () => nowUs,
    at: (atUs, act) => push(Math.max(nowUs, atUs), act),
    after: (delayUs, act) => push(nowUs + delayUs, act),
    runUntil(endUs) {
      stopped = false;
      while (!stopped && times.length > 0 && (times[0] as number) <= endUs) {
        nowUs = times[0] as number;
        events += 1;
        pop()();
      }
      if (!stopped) nowUs = endUs;
    },
    stop() {
      stopped = true;
    },
    note(a, b, c) {
      hashA = Math.imul(hashA ^ a, 0x01000193);
      hashA = Math.imul(hashA ^ b ^ (hashA >>> 15), 0x85ebca6b);
      hashB = Math.imul(hashB ^ c ^ (hashA >>> 13), 0xc2b2ae35);
      hashB ^= hashB >>> 16;
    },
    traceHash: () =>
      (hashA >>> 0).toString(16).padStart(8, '0') + ((hashB ^ (hashA >>> 7)) >>> 0).toString(16).padStart(8, '0'),
    events: () => events,
  };
}
