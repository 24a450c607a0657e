/**
 * What a store knows about blobs beyond its index, in memory: who is in use, who is being stored, who is being evicted.
 * All checks and changes are synchronous, so a blob cannot be pinned and evicted at the same time.
 */
import type { EntryName } from './entry-key.ts';
import type { StoreIndex } from './store-index.ts';

export interface Residency {
  /** Held and not on its way out. */
  has(name: EntryName): boolean;
  pin(text: string): void;
  unpin(text: string): void;
  isPinned(text: string): boolean;
  pinnedCount(): number;
  /**
   * Runs `store` unless another stores or has stored the same blob by then; waits for an eviction of it to end first.
   * Resolves when the blob is held.
   */
  land(name: EntryName, store: () => Promise<void>): Promise<void>;
  /** Changes how a held blob is kept, while nobody stores or evicts it: `canLeave` was true just now. */
  change(text: string, work: () => Promise<void>): Promise<void>;
  /** Resolves when nobody has it pinned, or `close` was called. */
  unpinned(text: string): Promise<void>;
  /** Resolves when no removal of the entry is under way. */
  settle(text: string): Promise<void>;
  /** True while nobody else stores, evicts or holds the blob open; then `leave` has it to itself. */
  canLeave(text: string): boolean;
  /** The blob counts as not held, and cannot be stored, until `removal` is over. */
  leave(text: string, removal: Promise<void>): void;
  /** Resolves when nothing is being stored or removed; who waits for pins to go waits no more. */
  close(): Promise<void>;
  /** Calls `onLanded` when the blob becomes held; returns how to stop waiting. */
  onLanded(text: string, onLanded: () => void): () => void;
  /** Calls `listener` for each entry that becomes held through `land`, or begins to leave; returns how to stop that. */
  watch(listener: (text: string, isHeld: boolean) => void): () => void;
}

export function createResidency(index: StoreIndex): Residency {
  const pins = new Map<string, number>();
  const landing = new Map<string, Promise<void>>();
  const leaving = new Map<string, Promise<void>>();
  const listeners = new Map<string, Set<() => void>>();
  const watchers = new Set<(text: string, isHeld: boolean) => void>();
  const unpinning = new Map<string, PromiseWithResolvers<void>>();
  let isClosing = false;

  const has = ({ key, text }: EntryName): boolean => !leaving.has(text) && index.has(key);

  return {
    has,
    pin: (text) => void pins.set(text, (pins.get(text) ?? 0) + 1),
    unpin(text) {
      const count = (pins.get(text) ?? 1) - 1;
      if (count > 0) return void pins.set(text, count);
      pins.delete(text);
      unpinning.get(text)?.resolve();
      unpinning.delete(text);
    },
    isPinned: (text) => pins.has(text),
    pinnedCount: () => pins.size,
    async land({ key, text }, store) {
      for (;;) {
        const busy = leaving.get(text) ?? landing.get(text);
        if (busy) await busy.catch(() => {});
        else if (index.has(key)) return;
        else break;
      }
      const landed = store();
      landing.set(text, landed);
      try {
        await landed;
      } finally {
        landing.delete(text);
      }
      for (const listener of listeners.get(text) ?? []) listener();
      for (const watcher of watchers) watcher(text, true);
    },
    async change(text, work) {
      const changed = work();
      landing.set(text, changed);
      await changed.finally(() => landing.delete(text));
    },
    async unpinned(text) {
      while (pins.has(text) && !isClosing) {
        const waiting = unpinning.get(text) ?? Promise.withResolvers<void>();
        unpinning.set(text, waiting);
        await waiting.promise;
      }
    },
    async settle(text) {
      for (let removal = leaving.get(text); removal; removal = leaving.get(text)) await removal.catch(() => {});
    },
    canLeave: (text) => !pins.has(text) && !landing.has(text) && !leaving.has(text),
    leave(text, removal) {
      const gone = removal.finally(() => leaving.delete(text));
      gone.catch(() => {});
      leaving.set(text, gone);
      for (const watcher of watchers) watcher(text, false);
    },
    watch(listener) {
      watchers.add(listener);
      return () => void watchers.delete(listener);
    },
    async close() {
      isClosing = true;
      for (const { resolve } of unpinning.values()) resolve();
      while (landing.size + leaving.size > 0) await Promise.allSettled([...landing.values(), ...leaving.values()]);
    },
    onLanded(text, onLanded) {
      const set = listeners.get(text) ?? new Set();
      listeners.set(text, set.add(onLanded));
      return () => {
        set.delete(onLanded);
        if (set.size === 0) listeners.delete(text);
      };
    },
  };
}
