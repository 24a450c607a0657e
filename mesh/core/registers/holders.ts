/** Who holds a result's blobs, for how long. */
import { type NodeId, compareIds } from '../ids.ts';
import { registerLimits } from '../limits.ts';
import type { Holder, HolderPromise, OfferedRegister, Register } from './types.ts';

/**
 * Adds promises made at `shardMs` to what is known. A newer promise of a holder replaces its older one; of too many, those
 * that last longest stay. Sorted by holder.
 */
export function mergeHolders(
  known: readonly Holder[],
  promises: readonly HolderPromise[],
  shardMs: number,
): readonly Holder[] {
  const holders = new Map<NodeId, Holder>();
  for (const holder of known) if (holder.untilMs > shardMs) holders.set(holder.holder, holder);
  for (const { holder, storeGeneration, pinnedForMs } of promises) {
    const old = holders.get(holder);
    const untilMs = shardMs + pinnedForMs;
    if (old && old.storeGeneration === storeGeneration && old.untilMs >= untilMs) continue;
    holders.set(holder, { holder, storeGeneration, untilMs });
  }
  return [...holders.values()]
    .sort((a, b) => b.untilMs - a.untilMs || compareIds(a.holder, b.holder))
    .slice(0, registerLimits.holdersPerRegister)
    .sort((a, b) => compareIds(a.holder, b.holder));
}

/** Per holder, in order: what is left of its pin at `shardMs`. */
export function pinsLeftMs(register: Register, shardMs: number): readonly number[] {
  if (register.kind === 'tombstone') return [];
  return register.holders.map(({ untilMs }) => Math.max(0, untilMs - shardMs));
}

/** A register as another history can take it in: its points of time turned into durations. */
export function offerOf(register: Register, shardMs: number): OfferedRegister {
  if (register.kind === 'tombstone') {
    const { writtenAtMs: _, ...rest } = register;
    return rest;
  }
  const { holders, writtenAtMs: _, ...rest } = register;
  const promises = holders
    .filter(({ untilMs }) => untilMs > shardMs)
    .map(({ holder, storeGeneration, untilMs }) => ({ holder, storeGeneration, pinnedForMs: untilMs - shardMs }));
  return { ...rest, promises };
}
