/**
 * Keeps a node in touch: dials remembered members, bootstrap addresses and whoever is heard of on the local network, again
 * and again with growing pauses, and forgets nobody for being away.
 */
import type { NodeId } from '../../core/ids.ts';
import type { AddressBook } from './address-book.ts';
import type { Host } from './host.ts';
import * as limits from './limits.ts';

export interface ReconnectOptions {
  readonly host: Pick<Host, 'connect' | 'connectTo' | 'isConnected' | 'connected' | 'learn'>;
  readonly book: Pick<AddressBook, 'peers'>;
  readonly self: NodeId;
  /** host:port. */
  readonly bootstrap: readonly string[];
  readonly isRevoked: (peer: NodeId) => boolean;
  readonly nowMs: () => number;
  /** From 0 up to 1, for pauses that do not beat together. */
  readonly random: () => number;
}

export interface Reconnect {
  /** A peer is said to be at these addresses now: they are dialled, unless that failed a moment ago. */
  heardOf(peer: NodeId, addresses: readonly string[]): void;
  /** The network may be another one now: every pause is over. */
  hurry(): void;
  close(): Promise<void>;
}

interface Pause {
  readonly failures: number;
  readonly sinceMs: number;
  readonly untilMs: number;
}

export function createReconnect(options: ReconnectOptions): Reconnect {
  const { host, book, nowMs } = options;
  const pauses = new Map<string, Pause>();
  const running = new Map<string, Promise<void>>();
  /** Who answered at a bootstrap address. */
  const behind = new Map<string, NodeId>();
  const closing = new AbortController();
  let timer: NodeJS.Timeout | undefined;
  round();

  /** A node with everybody in sight wakes seldom; who comes into sight meanwhile is dialled at once. */
  function round(): void {
    look();
    let waitMs: number = running.size > 0 ? limits.reconnectRoundMs : limits.reconnectRoundMsMax;
    for (const { untilMs } of pauses.values()) {
      // One that is over already is of somebody who is not looked for any more.
      if (untilMs > nowMs()) waitMs = Math.min(waitMs, Math.max(limits.reconnectRoundMs, untilMs - nowMs()));
    }
    clearTimeout(timer);
    timer = setTimeout(round, waitMs).unref();
  }

  function look(): void {
    for (const address of options.bootstrap) {
      const peer = behind.get(address);
      if (peer !== undefined && (peer === options.self || host.isConnected(peer))) continue;
      attempt(address, async (signal) => void behind.set(address, await host.connectTo(address, { signal })));
    }
    if (host.connected().length >= limits.connectedEnough) return;
    for (const [peer, { addresses }] of book.peers()) dial(peer, addresses);
  }

  function dial(peer: NodeId, addresses: readonly string[]): void {
    if (peer === options.self || host.isConnected(peer) || options.isRevoked(peer)) return;
    attempt(peer, async (signal) => {
      await host.learn(peer, addresses);
      await host.connect(peer, { signal });
    });
  }

  /**
   * Each address by itself: libp2p tries those of one peer one after another, and joins what is dialled for a peer to what
   * already runs, so that a machine that moved would be looked for at all its old addresses first.
   */
  function heardOf(peer: NodeId, addresses: readonly string[]): void {
    if (peer === options.self || host.isConnected(peer) || options.isRevoked(peer)) return;
    for (const address of addresses.slice(0, limits.heardAddresses)) {
      // It was said just now, so what failed before that counts for little.
      if (nowMs() - (pauses.get(address)?.sinceMs ?? Number.NEGATIVE_INFINITY) >= limits.pauseMsMin) {
        pauses.delete(address);
      }
      attempt(address, async (signal) => void (await host.connectTo(address, { signal })), limits.heardDialsAtOnce);
    }
  }

  function attempt(
    target: string,
    work: (signal: AbortSignal) => Promise<void>,
    atOnce: number = limits.dialsAtOnce,
  ): void {
    if (closing.signal.aborted || running.has(target) || running.size >= atOnce) return;
    if ((pauses.get(target)?.untilMs ?? 0) > nowMs()) return;
    const timeout = AbortSignal.timeout(limits.dialMs);
    const done = work(AbortSignal.any([closing.signal, timeout])).then(
      () => void pauses.delete(target),
      () => {
        const failures = (pauses.get(target)?.failures ?? 0) + 1;
        const longest = Math.min(limits.pauseMsMax, limits.pauseMsMin * 2 ** (failures - 1));
        pauses.delete(target);
        const sinceMs = nowMs();
        pauses.set(target, { failures, sinceMs, untilMs: sinceMs + longest * (0.5 + options.random() / 2) });
        for (const oldest of pauses.keys()) {
          if (pauses.size <= limits.pausesMax) break;
          pauses.delete(oldest);
        }
      },
    );
    running.set(
      target,
      done.finally(() => running.delete(target)),
    );
  }

  return {
    heardOf,
    hurry() {
      pauses.clear();
      round();
    },
    async close() {
      clearTimeout(timer);
      closing.abort();
      await Promise.all(running.values());
    },
  };
}
