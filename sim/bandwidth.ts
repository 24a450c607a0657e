/**
 * Links that carry no more than they can: every flow gets the smallest of its equal shares of the sender's uplink, the
 * receiver's downlink and the pipe between their sites, worked out anew whenever a flow begins or ends.
 */
import type { Engine } from './engine.ts';

export interface Flow {
  readonly from: number;
  readonly to: number;
  receivedBytes(): number;
  /** Ends it; `done` is not called. */
  stop(): void;
}

export interface Links {
  /** Bytes in a millisecond, by node. */
  readonly up: readonly number[];
  readonly down: readonly number[];
  readonly site: readonly number[];
  /** Between two sites, in each direction. */
  readonly pipe: number;
  /** Whether bytes move between two nodes at the moment. */
  open(from: number, to: number): boolean;
}

export interface Bandwidth {
  readonly start: (from: number, to: number, bytes: number, done: () => void) => Flow;
  /** What is open changed. */
  refresh(): void;
  flows(): number;
}

interface Running extends Flow {
  readonly done: () => void;
  left: number;
  readonly bytes: number;
  rate: number;
}

export function createBandwidth(engine: Engine, links: Links): Bandwidth {
  const flows = new Set<Running>();
  let settledUs = 0;
  let turn = 0;

  function settle(): void {
    const passedMs = (engine.nowUs() - settledUs) / 1_000;
    settledUs = engine.nowUs();
    for (const flow of flows) flow.left = Math.max(0, flow.left - flow.rate * passedMs);
  }

  function pipeOf({ from, to }: Flow): number {
    const [a, b] = [links.site[from] as number, links.site[to] as number];
    return a === b ? -1 : a * 1_000 + b;
  }

  function share(): void {
    const up = new Map<number, number>();
    const down = new Map<number, number>();
    const pipes = new Map<number, number>();
    const moving: Running[] = [];
    for (const flow of flows) {
      flow.rate = 0;
      if (!links.open(flow.from, flow.to)) continue;
      moving.push(flow);
      up.set(flow.from, (up.get(flow.from) ?? 0) + 1);
      down.set(flow.to, (down.get(flow.to) ?? 0) + 1);
      const pipe = pipeOf(flow);
      pipes.set(pipe, (pipes.get(pipe) ?? 0) + 1);
    }
    let nextUs = Number.POSITIVE_INFINITY;
    for (const flow of moving) {
      const pipe = pipeOf(flow);
      flow.rate = Math.min(
        (links.up[flow.from] as number) / (up.get(flow.from) as number),
        (links.down[flow.to] as number) / (down.get(flow.to) as number),
        pipe < 0 ? Number.POSITIVE_INFINITY : links.pipe / (pipes.get(pipe) as number),
      );
      nextUs = Math.min(nextUs, Math.ceil((flow.left / flow.rate) * 1_000));
    }
    const mine = ++turn;
    if (nextUs === Number.POSITIVE_INFINITY) return;
    engine.after(Math.max(1, nextUs), () => {
      if (mine === turn) advance();
    });
  }

  function advance(): void {
    settle();
    const over = [...flows].filter(({ left }) => left < 1);
    for (const flow of over) flows.delete(flow);
    share();
    for (const flow of over) flow.done();
  }

  return {
    start(from, to, bytes, done) {
      settle();
      const flow: Running = {
        from,
        to,
        bytes,
        done,
        left: bytes,
        rate: 0,
        receivedBytes() {
          settle();
          return Math.trunc(flow.bytes - flow.left);
        },
        stop() {
          settle();
          if (flows.delete(flow)) share();
        },
      };
      flows.add(flow);
      share();
      return flow;
    },
    refresh() {
      settle();
      share();
    },
    flows: () => flows.size,
  };
}
