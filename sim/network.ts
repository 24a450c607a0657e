/**
 * The simulated network: every directed link has its own latency table, loss, duplication and partition state; bulk
 * transfers share what their links carry. Messages are passed by reference, since machines never change one once sent.
 */
import assert from 'node:assert';
import type { Rng } from '../mesh/core/rng.ts';
import { createBandwidth, type Flow, type Links } from './bandwidth.ts';
import type { Engine } from './engine.ts';

/** Latencies in microseconds, drawn with equal chance: a distribution by table, exact on every machine. */
export const latencyTablesUs = {
  wired: [180, 200, 220, 250, 280, 320, 400, 900],
  wifi: [1_400, 1_700, 2_000, 2_500, 3_200, 4_500, 8_000, 35_000],
  vpn: [9_000, 11_000, 13_000, 16_000, 20_000, 26_000, 40_000, 120_000],
} as const;
export type LinkClass = keyof typeof latencyTablesUs;

/** How long a connection attempt to a dead address takes to fail, and a reset one to come up again. */
export const connectTimeoutUs = 250_000;

export interface NetworkModel {
  readonly lossPerMillion: number;
  readonly duplicatePerMillion: number;
  /** Messages that are held up by many times their latency, and so overtaken. */
  readonly stragglePerMillion: number;
  readonly classOf: (from: number, to: number) => LinkClass;
  /** What carries bulk bytes; undefined where somebody else does. */
  readonly links?: Omit<Links, 'open'>;
  /** Latencies of one way, drawn with equal chance, instead of those of its class. */
  readonly latenciesUs?: (from: number, to: number) => readonly number[];
}

export interface Network {
  /** Sends one control message; `arrive` is called for every copy that gets there. */
  send(from: number, to: number, arrive: () => void): void;
  /** Moves bytes on the data plane; while there is no way between the two, none move. */
  readonly flow: (from: number, to: number, bytes: number, done: () => void) => Flow;
  /** What a message would take now, one way. */
  readonly latencyUs: (from: number, to: number) => number;
  /** Whether a message sent now could get there at all. */
  readonly open: (from: number, to: number) => boolean;
  block(from: number, to: number, blocked: boolean): void;
  /** While held, what is sent waits and then arrives all at once. */
  hold(from: number, to: number, held: boolean): void;
  /** Drops everything under way between two nodes. */
  reset(a: number, b: number): void;
  /** The node has a new address: others reach it once they heard from it. */
  moved(node: number): void;
  heard(by: number, from: number): void;
  /** Discovery announced the node: everybody has its address. */
  announced(node: number): void;
  setLoss(lossPerMillion: number): void;
  /** Ends every partition, hold and loss. */
  heal(): void;
  readonly counts: { sent: number; delivered: number; lost: number; bytes: number };
}

export function createNetwork(engine: Engine, rng: Rng, nodes: number, model: NetworkModel): Network {
  const links = nodes * nodes;
  const blocked = new Uint8Array(links);
  const held = new Uint8Array(links);
  const epochs = new Uint32Array(links);
  const waiting = new Map<number, (() => void)[]>();
  const addresses = new Uint32Array(nodes);
  const known = new Uint32Array(links);
  const counts = { sent: 0, delivered: 0, lost: 0, bytes: 0 };
  let { lossPerMillion } = model;
  let healed = false;

  function latencyUs(from: number, to: number): number {
    const table = model.latenciesUs?.(from, to) ?? latencyTablesUs[model.classOf(from, to)];
    const baseUs = table[rng.below(table.length)] as number;
    return !healed && rng.chance(model.stragglePerMillion) ? baseUs * rng.between(5, 60) : baseUs;
  }

  function launch(from: number, to: number, arrive: () => void): void {
    const link = from * nodes + to;
    const epoch = epochs[link];
    engine.after(latencyUs(from, to), () => {
      // A partition also stops what was already under way.
      if (epochs[link] !== epoch || blocked[link]) {
        counts.lost += 1;
        return;
      }
      counts.delivered += 1;
      arrive();
    });
  }

  function open(from: number, to: number): boolean {
    const link = from * nodes + to;
    return blocked[link] === 0 && known[link] === addresses[to];
  }

  const bandwidth =
    model.links && createBandwidth(engine, { ...model.links, open: (from, to) => open(from, to) && open(to, from) });

  return {
    open,
    counts,
    send(from, to, arrive) {
      counts.sent += 1;
      const link = from * nodes + to;
      if (held[link]) {
        const queue = waiting.get(link);
        if (queue) queue.push(arrive);
        else waiting.set(link, [arrive]);
        return;
      }
      if (!open(from, to) || (lossPerMillion > 0 && rng.chance(lossPerMillion))) {
        counts.lost += 1;
        return;
      }
      launch(from, to, arrive);
      if (!healed && model.duplicatePerMillion > 0 && rng.chance(model.duplicatePerMillion)) launch(from, to, arrive);
    },
    latencyUs,
    flow(from, to, bytes, done) {
      assert(bandwidth, 'this network carries no bulk bytes');
      return bandwidth.start(from, to, bytes, () => {
        counts.bytes += bytes;
        done();
      });
    },
    block(from, to, now) {
      // Partitions overlap: a link is open again when the last of them ended.
      const link = from * nodes + to;
      if (now) blocked[link] = (blocked[link] as number) + 1;
      else if ((blocked[link] as number) > 0) blocked[link] = (blocked[link] as number) - 1;
      bandwidth?.refresh();
    },
    hold(from, to, now) {
      const link = from * nodes + to;
      held[link] = now ? 1 : 0;
      if (now) return;
      const queue = waiting.get(link) ?? [];
      waiting.delete(link);
      for (const arrive of queue) launch(from, to, arrive);
    },
    reset(a, b) {
      for (const link of [a * nodes + b, b * nodes + a]) epochs[link] = (epochs[link] as number) + 1;
    },
    moved(node) {
      addresses[node] = (addresses[node] as number) + 1;
      for (let other = 0; other < nodes; other++) {
        epochs[other * nodes + node] = (epochs[other * nodes + node] as number) + 1;
        epochs[node * nodes + other] = (epochs[node * nodes + other] as number) + 1;
      }
    },
    heard(by, from) {
      known[by * nodes + from] = addresses[from] as number;
    },
    announced(node) {
      for (let other = 0; other < nodes; other++) known[other * nodes + node] = addresses[node] as number;
    },
    setLoss(now) {
      lossPerMillion = now;
    },
    heal() {
      healed = true;
      lossPerMillion = 0;
      blocked.fill(0);
      for (let link = 0; link < links; link++) {
        if (held[link]) this.hold(Math.trunc(link / nodes), link % nodes, false);
      }
      bandwidth?.refresh();
    },
  };
}
