/** Members and where they were last reached, kept on disk so that a restart finds the mesh again without any address given. */
import { join } from 'node:path';
import type { NodeId } from '../../core/ids.ts';
import { readIfThere, replaceDurably } from '../identity/durable-file.ts';
import { identityPaths } from '../identity/state.ts';
import { parseHostPort } from './addresses.ts';
import * as limits from './limits.ts';

export interface Remembered {
  /** host:port, the newest first. */
  readonly addresses: readonly string[];
  readonly seenMs: number;
}

export interface AddressBook {
  get(peer: NodeId): Remembered | undefined;
  peers(): IterableIterator<[NodeId, Remembered]>;
  /** A member was reached at these addresses, or gave them of itself. */
  remember(peer: NodeId, addresses: readonly string[], seenMs: number): void;
  forget(peer: NodeId): void;
  /** Writes what changed since the last time. */
  save(): void;
}

/** A damaged file counts as an empty one: all in it is heard again. */
export function openAddressBook(dataDir: string): AddressBook {
  const path = join(identityPaths(dataDir).dir, 'peers.json');
  const entries = new Map<NodeId, Remembered>(read(path));
  let changed = false;

  /** Somebody who was only heard of if there is one, so that made-up members push out no real ones; else the oldest. */
  function forgetOne(): void {
    const [oldest] = entries.keys();
    const hearsay = [...entries].find(([, { seenMs }]) => seenMs === 0)?.[0];
    const victim = hearsay ?? oldest;
    if (victim !== undefined) entries.delete(victim);
  }

  return {
    get: (peer) => entries.get(peer),
    peers: () => entries.entries(),
    remember(peer, addresses, seenMs) {
      const before = entries.get(peer);
      const wellFormed = addresses.filter((address) => parseHostPort(address));
      const all = [...new Set([...wellFormed, ...(before?.addresses ?? [])])].slice(0, limits.addressesPerPeer);
      if (all.length === 0) return;
      const same = before?.addresses.length === all.length && all.every((one, at) => one === before.addresses[at]);
      changed ||= !same || seenMs - before.seenMs > limits.seenStepMs;
      entries.delete(peer);
      entries.set(peer, { addresses: all, seenMs: Math.max(seenMs, before?.seenMs ?? 0) });
      if (entries.size > limits.rememberedMax) forgetOne();
    },
    forget(peer) {
      changed = entries.delete(peer) || changed;
    },
    save() {
      if (!changed) return;
      replaceDurably(path, Buffer.from(JSON.stringify(Object.fromEntries(entries))));
      changed = false;
    },
  };
}

function read(path: string): [NodeId, Remembered][] {
  try {
    const entries = JSON.parse(Buffer.from(readIfThere(path) ?? '{}').toString()) as Record<NodeId, Remembered>;
    return Object.entries(entries).filter(
      ([, entry]) => Array.isArray(entry.addresses) && typeof entry.seenMs === 'number',
    );
  } catch {
    return [];
  }
}
