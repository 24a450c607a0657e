/**
 * What a superseded history holds goes to the one that survives it: every register and every tombstone, write-if-absent,
 * a batch at a time, until all of it was answered. Only then may the old replica's disk be given up.
 */
import type { ActionKey, Generation, NodeId, ShardId } from '../ids.ts';
import { registerLimits, shardLimits } from '../limits.ts';
import type { RegisterMessage } from '../registers/messages.ts';
import type { ApplyOutcome, OfferedRegister } from '../registers/types.ts';

export interface Heirloom {
  readonly shard: ShardId;
  readonly generation: Generation;
  readonly registers: readonly { readonly key: ActionKey; readonly register: OfferedRegister }[];
}

export interface MergingPort {
  leaderOf(shard: ShardId): NodeId | undefined;
  /** Whether the shard's surviving history, not the superseded one, is the one that is known. */
  survivorKnown(shard: ShardId, superseded: Generation): boolean;
  send(to: NodeId, message: RegisterMessage): void;
  done(heirloom: Heirloom, accepted: number): void;
}

export interface Merging {
  add(heirloom: Heirloom, nowMs: number): void;
  /** True when the answer was for an offer from here. */
  onWritten(id: number, shard: ShardId, outcomes: readonly ApplyOutcome[], nowMs: number): boolean;
  /** Sends what is due. */
  advance(nowMs: number): void;
  readonly dueAtMs: number;
}

interface Offer {
  readonly heirloom: Heirloom;
  id: number;
  /** Registers that were answered. */
  answered: number;
  accepted: number;
  retryAtMs: number;
}

export function createMerging(port: MergingPort, nextRequestId: () => number): Merging {
  let offers: Offer[] = [];

  function batchOf({ heirloom, answered }: Offer): Heirloom['registers'] {
    return heirloom.registers.slice(answered, answered + registerLimits.registersPerOffer);
  }

  function advance(nowMs: number): void {
    for (const offer of [...offers]) {
      const { shard, generation, registers } = offer.heirloom;
      if (!port.survivorKnown(shard, generation)) {
        // Nobody to offer to yet; looked at again in its time, or when a status is learned.
        if (offer.retryAtMs <= nowMs) offer.retryAtMs = nowMs + shardLimits.offerRetryMs;
        continue;
      }
      if (offer.answered >= registers.length) {
        offers = offers.filter((other) => other !== offer);
        port.done(offer.heirloom, offer.accepted);
        continue;
      }
      if (offer.retryAtMs > nowMs) continue;
      offer.retryAtMs = nowMs + shardLimits.offerRetryMs;
      const leader = port.leaderOf(shard);
      if (leader === undefined) continue;
      offer.id = nextRequestId();
      port.send(leader, { kind: 'offerRegisters', id: offer.id, shard, registers: batchOf(offer) });
    }
  }

  return {
    add(heirloom, nowMs) {
      offers.push({ heirloom, id: 0, answered: 0, accepted: 0, retryAtMs: nowMs });
    },
    onWritten(id, shard, outcomes, nowMs) {
      const offer = offers.find((candidate) => candidate.id === id && candidate.heirloom.shard === shard);
      if (!offer || outcomes.length !== batchOf(offer).length) return false;
      offer.answered += outcomes.length;
      offer.accepted += outcomes.filter((outcome) => outcome === 'accepted').length;
      offer.id = 0;
      offer.retryAtMs = nowMs;
      advance(nowMs);
      return true;
    },
    advance,
    get dueAtMs() {
      return offers.reduce((due, offer) => Math.min(due, offer.retryAtMs), Number.POSITIVE_INFINITY);
    },
  };
}
