/**
 * What this node has promised to keep, and what it may therefore evict: pins with a budget, an end, and an order of
 * precedence; and space set aside for outputs that are yet to come.
 *
 * The machine keeps the index of what the store holds, so that evicting and pinning are decided in one place and one
 * order. A blob here is whatever is kept and dropped as a whole, such as an action's closure.
 */
import type { BlobKey } from '../ids.ts';
import type { Machine } from '../machine.ts';
import * as limits from './limits.ts';

/** Why a pin is asked for; in order of precedence. */
export type Purpose = keyof typeof limits.reachPercent;

/** What this machine keeps on disk: promises given to other nodes. What its own client needs ends with the process. */
export type PinRecord =
  | {
      readonly kind: 'pin';
      readonly id: number;
      readonly blob: BlobKey;
      readonly purpose: Purpose;
      readonly forMs: number;
      /** Left out when it is the blob's own size. */
      readonly closureBytes?: number;
    }
  | { readonly kind: 'unpin'; readonly id: number };

export type PromiseEvent =
  /** Every persist up to and including this id is durable. */
  | { readonly kind: 'persisted'; readonly id: number }
  /** The blob is durable in the store; evicting makes room for it when that is needed. */
  | {
      readonly kind: 'stored';
      readonly blob: BlobKey;
      readonly sizeBytes: number;
      readonly reservation?: number;
      /** What a pin of it keeps, the blob included: all that it names. Left out when it names nothing, or nothing known. */
      readonly closureBytes?: number;
    }
  /** The store lost the blob, or found it rotten. */
  | { readonly kind: 'gone'; readonly blob: BlobKey }
  | { readonly kind: 'used'; readonly blob: BlobKey }
  | {
      readonly kind: 'pin';
      readonly id: number;
      readonly blob: BlobKey;
      readonly purpose: Purpose;
      readonly forMs: number;
    }
  | { readonly kind: 'unpin'; readonly id: number }
  /** Sets space aside before a claim is made. */
  | { readonly kind: 'reserve'; readonly id: number; readonly sizeBytes: number }
  | { readonly kind: 'release'; readonly id: number };

export type PromiseEffect =
  | { readonly kind: 'persist'; readonly id: number; readonly record: PinRecord }
  /** Granted, and durable where somebody else relies on it. */
  | {
      readonly kind: 'pinned';
      readonly id: number;
      readonly blob: BlobKey;
      readonly purpose: Purpose;
      readonly untilMs: number;
    }
  /** `absent`: not held. `budget`: the pins of this purpose or of all have used what they may. */
  | { readonly kind: 'pinRefused'; readonly id: number; readonly blob: BlobKey; readonly reason: 'absent' | 'budget' }
  | { readonly kind: 'reserved'; readonly id: number }
  | { readonly kind: 'reserveRefused'; readonly id: number }
  | { readonly kind: 'evict'; readonly blob: BlobKey };

export interface PromisesConfig {
  readonly capacityBytes: number;
  /** Ids of persists, rising over all machines of the node. */
  readonly nextPersistId: () => number;
}

export interface Pin {
  readonly id: number;
  readonly blob: BlobKey;
  readonly purpose: Purpose;
  readonly untilMs: number;
}

export interface Promises extends Machine<PromiseEvent, PromiseEffect> {
  holds(blob: BlobKey): boolean;
  pinnedUntilMs(blob: BlobKey): number | undefined;
  pins(): IterableIterator<Pin>;
  blobs(): IterableIterator<BlobKey>;
  heldBytes(): number;
  pinnedBytes(): number;
  reservedBytes(): number;
  /** What a newcomer could still take: free, or held and not pinned. */
  freeBytes(): number;
  checkpoint(nowMs: number): readonly PinRecord[];
}

interface Blob {
  readonly sizeBytes: number;
  /** What counts towards the budget while it is pinned. */
  closureBytes: number;
  pins: number;
}

/**
 * Creates the machine; `held` is what the store found on its disk, least recently used first, and `restored` its own
 * records. A pin found on disk runs its whole time again, since nobody knows how long the machine was off.
 */
export function createPromises(
  config: PromisesConfig,
  nowMs = 0,
  held: readonly (readonly [BlobKey, number])[] = [],
  restored: readonly PinRecord[] = [],
): Promises {
  const { capacityBytes } = config;
  const budgetBytes = Math.trunc((capacityBytes / 100) * limits.pinBudgetPercent);
  // In order of last use: a use moves a blob to the end.
  const blobs = new Map<BlobKey, Blob>(
    held.map(([blob, sizeBytes]) => [blob, { sizeBytes, closureBytes: sizeBytes, pins: 0 }]),
  );
  const pins = new Map<number, Pin>();
  const reservations = new Map<number, number>();
  let heldBytes = held.reduce((sum, [, sizeBytes]) => sum + sizeBytes, 0);
  let pinnedBytes = 0;
  let reservedBytes = 0;
  let earliestEndMs = Number.POSITIVE_INFINITY;
  // Granted to others and not yet durable, in order of their persist ids.
  const unsynced: { readonly persistId: number; readonly pin: Pin }[] = [];
  let effects: PromiseEffect[] = [];

  for (const record of restored) {
    if (record.kind === 'unpin') {
      const pin = pins.get(record.id);
      if (pin) unpin(pin);
      continue;
    }
    const blob = blobs.get(record.blob);
    if (!blob) continue;
    weigh(blob, record.closureBytes);
    hold(blob, { id: record.id, blob: record.blob, purpose: record.purpose, untilMs: nowMs + record.forMs });
  }

  /** What is pinned already goes on counting as it did. */
  function weigh(blob: Blob, closureBytes: number | undefined): void {
    if (closureBytes !== undefined && blob.pins === 0) blob.closureBytes = Math.max(blob.sizeBytes, closureBytes);
  }

  function hold(blob: Blob, pin: Pin): void {
    if (blob.pins === 0) pinnedBytes += blob.closureBytes;
    blob.pins += 1;
    pins.set(pin.id, pin);
    earliestEndMs = Math.min(earliestEndMs, pin.untilMs);
  }

  function touch(key: BlobKey, blob: Blob): void {
    blobs.delete(key);
    blobs.set(key, blob);
  }

  function drop(key: BlobKey, blob: Blob): void {
    blobs.delete(key);
    heldBytes -= blob.sizeBytes;
    if (blob.pins > 0) pinnedBytes -= blob.closureBytes;
  }

  function unpin(pin: Pin): void {
    pins.delete(pin.id);
    const blob = blobs.get(pin.blob);
    if (!blob || blob.pins === 0) return;
    blob.pins -= 1;
    if (blob.pins === 0) pinnedBytes -= blob.closureBytes;
  }

  function expire(nowMs: number): void {
    if (nowMs < earliestEndMs) return;
    earliestEndMs = Number.POSITIVE_INFINITY;
    for (const pin of pins.values()) {
      if (nowMs >= pin.untilMs) unpin(pin);
      else earliestEndMs = Math.min(earliestEndMs, pin.untilMs);
    }
  }

  /** Evicts, least recently used first, until at most `targetBytes` are held or everything left is pinned. */
  function evictTo(targetBytes: number): void {
    if (heldBytes <= targetBytes) return;
    for (const [key, blob] of blobs) {
      if (blob.pins > 0) continue;
      drop(key, blob);
      effects.push({ kind: 'evict', blob: key });
      if (heldBytes <= targetBytes) return;
    }
  }

  function pin(event: Extract<PromiseEvent, { kind: 'pin' }>, nowMs: number): void {
    const { id, blob: key, purpose } = event;
    const blob = blobs.get(key);
    if (!blob) {
      effects.push({ kind: 'pinRefused', id, blob: key, reason: 'absent' });
      return;
    }
    const addedBytes = blob.pins > 0 ? 0 : blob.closureBytes;
    const reachBytes = Math.trunc((budgetBytes / 100) * limits.reachPercent[purpose]);
    const tooMuch = pinnedBytes + addedBytes > reachBytes || pinnedBytes + addedBytes + reservedBytes > capacityBytes;
    if (tooMuch || pins.size >= limits.pinsMax) {
      effects.push({ kind: 'pinRefused', id, blob: key, reason: 'budget' });
      return;
    }
    const forMs = Math.min(event.forMs, limits.pinMsMax);
    const granted: Pin = { id, blob: key, purpose, untilMs: nowMs + forMs };
    hold(blob, granted);
    touch(key, blob);
    if (purpose === 'ownClient') {
      effects.push(pinned(granted));
      return;
    }
    const persistId = config.nextPersistId();
    unsynced.push({ persistId, pin: granted });
    effects.push({ kind: 'persist', id: persistId, record: recordOf(granted, blob, forMs) });
  }

  function synced(id: number): void {
    while (unsynced[0] && unsynced[0].persistId <= id) {
      const { pin: granted } = unsynced.shift() as { pin: Pin };
      // It may have been taken back while the disk worked.
      if (pins.get(granted.id) === granted) effects.push(pinned(granted));
    }
  }

  /** The blob is lost. Whoever waits for a pin of it is told; what was granted is granted, and will be missed. */
  function gone(key: BlobKey): void {
    const blob = blobs.get(key);
    if (blob) drop(key, blob);
    for (const held of [...pins.values()]) {
      if (held.blob !== key) continue;
      pins.delete(held.id);
      if (unsynced.some(({ pin: waiting }) => waiting === held)) {
        effects.push({ kind: 'pinRefused', id: held.id, blob: key, reason: 'absent' });
      }
    }
  }

  function release(id: number): void {
    reservedBytes -= reservations.get(id) ?? 0;
    reservations.delete(id);
  }

  function reserve(id: number, sizeBytes: number): void {
    const possible = pinnedBytes + reservedBytes + sizeBytes <= capacityBytes;
    if (!possible || reservations.has(id) || reservations.size >= limits.reservationsMax) {
      effects.push({ kind: 'reserveRefused', id });
      return;
    }
    reservations.set(id, sizeBytes);
    reservedBytes += sizeBytes;
    evictTo(capacityBytes - reservedBytes);
    effects.push({ kind: 'reserved', id });
  }

  function stored(event: Extract<PromiseEvent, { kind: 'stored' }>): void {
    if (event.reservation !== undefined) release(event.reservation);
    const known = blobs.get(event.blob);
    if (known) {
      weigh(known, event.closureBytes);
      touch(event.blob, known);
      return;
    }
    const { sizeBytes } = event;
    evictTo(capacityBytes - reservedBytes - sizeBytes);
    const blob: Blob = { sizeBytes, closureBytes: sizeBytes, pins: 0 };
    weigh(blob, event.closureBytes);
    blobs.set(event.blob, blob);
    heldBytes += sizeBytes;
  }

  return {
    step(event, nowMs) {
      effects = [];
      expire(nowMs);
      switch (event.kind) {
        case 'stored':
          stored(event);
          break;
        case 'gone':
          gone(event.blob);
          break;
        case 'used': {
          const blob = blobs.get(event.blob);
          if (blob) touch(event.blob, blob);
          break;
        }
        case 'persisted':
          synced(event.id);
          break;
        case 'pin':
          pin(event, nowMs);
          break;
        case 'unpin': {
          const held = pins.get(event.id);
          if (!held) break;
          unpin(held);
          if (held.purpose !== 'ownClient') {
            effects.push({ kind: 'persist', id: config.nextPersistId(), record: { kind: 'unpin', id: held.id } });
          }
          break;
        }
        case 'reserve':
          reserve(event.id, event.sizeBytes);
          break;
        case 'release':
          release(event.id);
          break;
        default:
          event satisfies never;
      }
      return effects;
    },
    holds: (blob) => blobs.has(blob),
    pinnedUntilMs(blob) {
      let latest: number | undefined;
      for (const pin of pins.values()) {
        if (pin.blob === blob && (latest === undefined || pin.untilMs > latest)) latest = pin.untilMs;
      }
      return latest;
    },
    pins: () => pins.values(),
    blobs: () => blobs.keys(),
    heldBytes: () => heldBytes,
    pinnedBytes: () => pinnedBytes,
    reservedBytes: () => reservedBytes,
    freeBytes: () => capacityBytes - pinnedBytes - reservedBytes,
    checkpoint: (now) =>
      [...pins.values()]
        .filter((pin) => pin.purpose !== 'ownClient' && pin.untilMs > now)
        .map((pin) => recordOf(pin, blobs.get(pin.blob) as Blob, pin.untilMs - now)),
  };
}

function recordOf({ id, blob, purpose }: Pin, { sizeBytes, closureBytes }: Blob, forMs: number): PinRecord {
  const record = { kind: 'pin', id, blob, purpose, forMs } as const;
  return closureBytes === sizeBytes ? record : { ...record, closureBytes };
}

function pinned({ id, blob, purpose, untilMs }: Pin): PromiseEffect {
  return { kind: 'pinned', id, blob, purpose, untilMs };
}
