/**
 * The pins that a peer makes itself: of outputs that ran here, of what was handed over, of what its clients were answered
 * with, and of what they uploaded. Numbers of pins and reservations in the sharing machine are even when they are the
 * peer's own and odd when the outside gave them.
 */
import type { BlobKey, InvocationId } from './ids.ts';
import type { PeerNote } from './peer-types.ts';
import type { Purpose } from './promises/promises.ts';
import type { SharingEffect, SharingEvent } from './sharing-types.ts';

/** What a pin is for. */
export type PinFor =
  | { readonly kind: 'run'; readonly run: number }
  | { readonly kind: 'fetch'; readonly fetch: number }
  | { readonly kind: 'client'; readonly invocation: InvocationId }
  | { readonly kind: 'upload'; readonly write: number };

const purposes: { readonly [K in PinFor['kind']]: Purpose } = {
  run: 'replica',
  fetch: 'handOver',
  client: 'ownClient',
  upload: 'replica',
};

export const own = (id: number): number => 2 * id;
export const outside = (id: number): number => 2 * id + 1;
export const isOwn = (id: number): boolean => id % 2 === 0;
export const numberOf = (id: number): number => Math.trunc(id / 2);

type Pinned = Extract<SharingEffect, { readonly kind: 'pinned' | 'pinRefused' }>;

export interface OwnPins {
  pin(blob: BlobKey, forMs: number, pinFor: PinFor): void;
  /** Takes an answer to one of these pins. `forMs` is undefined when it was refused. */
  answered(
    effect: Pinned,
    nowMs: number,
  ): { readonly pinFor: PinFor; readonly forMs: number | undefined; readonly note: PeerNote };
  /** Nothing of that invocation is held for its client any more. */
  ended(invocation: InvocationId): void;
}

export function createOwnPins(toSharing: (event: SharingEvent) => void): OwnPins {
  const asked = new Map<number, PinFor>();
  const held = new Map<InvocationId, number[]>();
  let last = 0;
  return {
    pin(blob, forMs, pinFor) {
      last += 1;
      asked.set(last, pinFor);
      toSharing({ kind: 'pin', pin: own(last), blob, purpose: purposes[pinFor.kind], forMs });
    },
    answered(effect, nowMs) {
      const { kind, pin, blob } = effect;
      const pinFor = asked.get(numberOf(pin)) as PinFor;
      asked.delete(numberOf(pin));
      if (kind === 'pinRefused') {
        return { pinFor, forMs: undefined, note: { kind, blob, reason: effect.reason } };
      }
      const { untilMs } = effect;
      if (pinFor.kind === 'client') {
        const pins = held.get(pinFor.invocation);
        if (pins) pins.push(pin);
        else held.set(pinFor.invocation, [pin]);
      }
      return { pinFor, forMs: untilMs - nowMs, note: { kind, blob, purpose: purposes[pinFor.kind], untilMs } };
    },
    ended(invocation) {
      for (const pin of held.get(invocation) ?? []) toSharing({ kind: 'unpin', pin });
      held.delete(invocation);
    },
  };
}
