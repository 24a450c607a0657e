/** What is known of other nodes as holders: where they are, how fast they were, how much they are doing for us now. */
import { hashPair, hashText } from '../hash.ts';
import type { NodeId } from '../ids.ts';
import type { MemberStatus } from '../membership/records.ts';
import * as limits from './limits.ts';
import type { Locality } from './types.ts';

export interface Holder {
  readonly node: NodeId;
  /** Fixed by this node and the holder: spreads askers that know nothing over equal holders. */
  readonly lot: number;
  status: MemberStatus;
  locality: Locality;
  roundTripMs: number | undefined;
  /** Measured while it sent to us; undefined until then. */
  bytesPerMs: number | undefined;
  transfers: number;
  /** Asked for and not here yet. */
  owedBytes: number;
  /** It said that it is busy until then, so many times in a row; until it serves, it is asked for one thing at a time. */
  busyUntilMs: number;
  refusals: number;
}

export interface Holders {
  get(node: NodeId): Holder;
  peer(node: NodeId, status: MemberStatus, locality: Locality): void;
  roundTrip(node: NodeId, roundTripMs: number): void;
  /** A transfer from the holder ended after `takenMs`. */
  measured(holder: Holder, bytes: number, takenMs: number): void;
  /** Time until `bytes` more would be here. */
  expectedMs(holder: Holder, bytes: number): number;
  /** Lower is better; near holders win over somewhat faster ones far away. */
  cost(holder: Holder, bytes: number, lot: number): number;
}

export function createHolders(self: NodeId): Holders {
  const holders = new Map<NodeId, Holder>();

  function get(node: NodeId): Holder {
    let holder = holders.get(node);
    if (!holder) {
      holder = {
        node,
        lot: hashPair(hashText(self), hashText(node)),
        status: 'dead',
        locality: 'other',
        roundTripMs: undefined,
        bytesPerMs: undefined,
        transfers: 0,
        owedBytes: 0,
        busyUntilMs: 0,
        refusals: 0,
      };
      holders.set(node, holder);
    }
    return holder;
  }

  function expectedMs(holder: Holder, bytes: number): number {
    const { locality } = holder;
    const roundTripMs = holder.roundTripMs ?? limits.assumedRoundTripMs[locality];
    const bytesPerMs = holder.bytesPerMs ?? limits.assumedBytesPerMs[locality];
    return roundTripMs + Math.ceil((holder.owedBytes + bytes) / bytesPerMs);
  }

  return {
    get,
    expectedMs,
    peer(node, status, locality) {
      const holder = get(node);
      holder.status = status;
      holder.locality = locality;
    },
    roundTrip(node, roundTripMs) {
      const holder = get(node);
      const before = holder.roundTripMs ?? roundTripMs;
      holder.roundTripMs = Math.max(1, Math.round((before * 7 + roundTripMs) / 8));
    },
    measured(holder, bytes, takenMs) {
      if (bytes < limits.measuredBytesMin) return;
      // Transfers at the same time share the link: together they had so much of it.
      const together = (bytes * Math.max(1, holder.transfers)) / Math.max(1, takenMs);
      holder.bytesPerMs = Math.max(1, Math.round(((holder.bytesPerMs ?? together) * 3 + together) / 4));
    },
    cost(holder, bytes, lot) {
      const spread = hashPair(holder.lot, lot) % 1_024;
      const doubt = holder.status === 'suspect' ? limits.suspectFactor : 1;
      return expectedMs(holder, bytes) * limits.distanceFactor[holder.locality] * doubt * 1_024 + spread;
    },
  };
}
