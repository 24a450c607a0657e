/**
 * Bytes under way: transfers share every link that they cross max-min fairly, as TCP does about, and one that begins or
 * ends changes the rate of the others. Time stands in microseconds, rates in bytes a microsecond.
 *
 * @see D. Bertsekas, R. Gallager: Data Networks (1992), 6.5.2, max-min fair flow control
 */
import type { Engine } from '../engine.ts';

/** One direction of something that carries bytes. */
export interface Channel {
  readonly name: string;
  bytesPerUs: number;
  /** Bytes carried so far, those of transfers that failed included. */
  bytes: number;
  /** Bytes carried in each second of virtual time. */
  readonly perSecond: number[];
}

export interface Flow {
  readonly path: readonly Channel[];
  readonly sizeBytes: number;
  /** No faster than this, whatever the channels have left: what loss and round trips allow one connection. */
  readonly limitBytesPerUs: number;
  readonly done: () => void;
}

export interface Flows {
  start(flow: Flow): { stop(): void; readonly receivedBytes: () => number };
  /** A channel has another bandwidth now. */
  changed(): void;
  /** Counts what is under way so far. */
  settle(): void;
}

interface Active {
  readonly flow: Flow;
  leftBytes: number;
  rate: number;
}

export function createChannel(name: string, bytesPerSecond: number): Channel {
  return { name, bytesPerUs: bytesPerSecond / 1e6, bytes: 0, perSecond: [] };
}

/** Smaller transfers are delayed by their own time and take part in no sharing: they would only cost events. */
const alwaysAloneBytes = 2_000;

export function createFlows(engine: Engine): Flows {
  const active = new Set<Active>();
  let countedUs = 0;
  let turn = 0;
  let due = false;

  function carry(channel: Channel, bytes: number, fromUs: number, toUs: number): void {
    channel.bytes += bytes;
    const first = Math.trunc(fromUs / 1e6);
    const last = Math.trunc(toUs / 1e6);
    for (let second = first; second <= last; second++) {
      const partUs = Math.min(toUs, (second + 1) * 1e6) - Math.max(fromUs, second * 1e6);
      const part = toUs > fromUs ? (bytes * partUs) / (toUs - fromUs) : bytes;
      channel.perSecond[second] = (channel.perSecond[second] ?? 0) + part;
    }
  }

  /** Moves everything on to the present moment. */
  function settle(): void {
    const nowUs = engine.nowUs();
    if (nowUs > countedUs) {
      for (const one of active) {
        const bytes = Math.min(one.leftBytes, one.rate * (nowUs - countedUs));
        one.leftBytes -= bytes;
        for (const channel of one.flow.path) carry(channel, bytes, countedUs, nowUs);
      }
    }
    countedUs = nowUs;
  }

  /** Water-filling: the channel that offers least to each of its transfers fixes their rate; then the next one. */
  function share(): void {
    const free = new Map<Channel, { left: number; users: number }>();
    for (const { flow } of active) {
      for (const channel of flow.path) {
        const entry = free.get(channel);
        if (entry) entry.users += 1;
        else free.set(channel, { left: channel.bytesPerUs, users: 1 });
      }
    }
    const open = new Set(active);
    while (open.size > 0) {
      let least = Number.POSITIVE_INFINITY;
      for (const { left, users } of free.values()) if (users > 0) least = Math.min(least, left / users);
      for (const { flow } of open) least = Math.min(least, flow.limitBytesPerUs);
      const nearly = least * (1 + 1e-9);
      let fixed = 0;
      for (const one of open) {
        const bound =
          one.flow.limitBytesPerUs <= nearly || one.flow.path.some((channel) => tight(free, channel, nearly));
        if (!bound) continue;
        fixed += 1;
        one.rate = least;
        open.delete(one);
        for (const channel of one.flow.path) {
          const entry = free.get(channel) as { left: number; users: number };
          entry.left = Math.max(0, entry.left - least);
          entry.users -= 1;
        }
      }
      if (fixed === 0) return;
    }
  }

  function tight(
    free: ReadonlyMap<Channel, { left: number; users: number }>,
    channel: Channel,
    nearly: number,
  ): boolean {
    const { left, users } = free.get(channel) as { left: number; users: number };
    return left / users <= nearly;
  }

  /** Rates anew, once for all that begins and ends at this moment. */
  function later(): void {
    if (due) return;
    due = true;
    engine.after(0, () => {
      due = false;
      settle();
      share();
      next();
    });
  }

  function next(): void {
    const mine = ++turn;
    let soonestUs = Number.POSITIVE_INFINITY;
    for (const { leftBytes, rate } of active) soonestUs = Math.min(soonestUs, leftBytes / rate);
    if (soonestUs === Number.POSITIVE_INFINITY) return;
    engine.after(Math.max(1, Math.ceil(soonestUs)), () => {
      if (mine !== turn) return;
      settle();
      const ended = [...active].filter(({ leftBytes }) => leftBytes < 0.5);
      for (const one of ended) active.delete(one);
      later();
      for (const { flow } of ended) flow.done();
    });
  }

  return {
    start(flow) {
      if (flow.sizeBytes <= alwaysAloneBytes) {
        let stopped = false;
        const slowest = Math.min(flow.limitBytesPerUs, ...flow.path.map(({ bytesPerUs }) => bytesPerUs));
        const durationUs = Math.ceil(flow.sizeBytes / slowest);
        for (const channel of flow.path) carry(channel, flow.sizeBytes, engine.nowUs(), engine.nowUs());
        engine.after(durationUs, () => !stopped && flow.done());
        return { stop: () => void (stopped = true), receivedBytes: () => flow.sizeBytes };
      }
      settle();
      const one: Active = { flow, leftBytes: flow.sizeBytes, rate: 0 };
      active.add(one);
      later();
      return {
        receivedBytes() {
          settle();
          return Math.trunc(flow.sizeBytes - one.leftBytes);
        },
        stop() {
          settle();
          if (active.delete(one)) later();
        },
      };
    },
    changed: later,
    settle,
  };
}
