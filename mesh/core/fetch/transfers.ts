/** The transfers under way, and what each is still to bring. */
import type { BlobKey } from '../ids.ts';
import type { Fetch, Piece } from './fetches.ts';
import type { Hedging } from './hedging.ts';
import type { Holder, Holders } from './holders.ts';
import * as limits from './limits.ts';
import type { FetchEffect, Part } from './types.ts';

/** One piece of one fetch. */
export interface Item {
  readonly fetch: Fetch;
  readonly piece: Piece;
}

export interface Transfer {
  readonly id: number;
  readonly holder: Holder;
  /** What is still to come. */
  readonly items: Map<BlobKey, Item>;
  readonly bytes: number;
  readonly startedAtMs: number;
  readonly expectedMs: number;
  hedgeAtMs: number;
  progressAtMs: number;
  receivedBytes: number;
  /** This one was started because another is late. */
  readonly hedge: boolean;
}

export interface Transfers {
  start(holder: Holder, items: readonly Item[], hedge: boolean, nowMs: number): Transfer;
  get(id: number): Transfer | undefined;
  /** A copy: transfers may be closed while it is gone through. */
  all(): Transfer[];
  size(): number;
  progressed(transfer: Transfer, receivedBytes: number, nowMs: number): void;
  /** The piece came, or will not come this way. */
  settle(transfer: Transfer, blob: BlobKey): void;
  /** The transfer need not bring this blob any more; it is cancelled when it brings nothing else. */
  forgo(transfer: Transfer, blob: BlobKey): void;
  cancel(transfer: Transfer): void;
  close(transfer: Transfer): void;
  /** When the first of them is late or stands still for too long. */
  nextMs(): number;
}

/** `closed` is called whenever one is over: what waits may go. */
export function createTransfers(
  holders: Holders,
  hedging: Hedging,
  emit: (effect: FetchEffect) => void,
  closed: () => void,
): Transfers {
  const transfers = new Map<number, Transfer>();
  let counter = 0;

  function settle(transfer: Transfer, blob: BlobKey): void {
    transfer.items.get(blob)?.piece.transfers.delete(transfer.id);
    transfer.items.delete(blob);
  }

  function close(transfer: Transfer): void {
    transfers.delete(transfer.id);
    transfer.holder.transfers -= 1;
    transfer.holder.owedBytes -= transfer.bytes - transfer.receivedBytes;
    for (const { piece } of transfer.items.values()) piece.transfers.delete(transfer.id);
    transfer.items.clear();
    closed();
  }

  function cancel(transfer: Transfer): void {
    emit({ kind: 'cancelTransfer', transfer: transfer.id });
    close(transfer);
  }

  return {
    settle,
    close,
    cancel,
    start(holder, items, hedge, nowMs) {
      counter += 1;
      const bytes = items.reduce((sum, { piece }) => sum + piece.lengthBytes, 0);
      const expectedMs = holders.expectedMs(holder, bytes);
      const transfer: Transfer = {
        id: counter,
        holder,
        items: new Map(items.map((item) => [item.fetch.blob, item])),
        bytes,
        startedAtMs: nowMs,
        expectedMs,
        hedgeAtMs: nowMs + hedging.patienceMs(expectedMs),
        progressAtMs: nowMs,
        receivedBytes: 0,
        hedge,
      };
      transfers.set(counter, transfer);
      hedging.started();
      holder.transfers += 1;
      holder.owedBytes += bytes;
      const parts: Part[] = items.map(({ fetch, piece: { offset, lengthBytes, transfers: bringing } }) => {
        bringing.add(transfer.id);
        return { blob: fetch.blob, offset, lengthBytes, whole: !fetch.striped };
      });
      emit({ kind: 'transfer', transfer: transfer.id, from: holder.node, parts });
      return transfer;
    },
    get: (id) => transfers.get(id),
    all: () => [...transfers.values()],
    size: () => transfers.size,
    progressed(transfer, receivedBytes, nowMs) {
      if (receivedBytes <= transfer.receivedBytes) return;
      const received = Math.min(receivedBytes, transfer.bytes);
      transfer.holder.owedBytes -= received - transfer.receivedBytes;
      transfer.receivedBytes = received;
      transfer.progressAtMs = nowMs;
    },
    forgo(transfer, blob) {
      if (!transfer.items.has(blob)) return;
      settle(transfer, blob);
      if (transfer.items.size === 0) cancel(transfer);
    },
    nextMs() {
      let next = Number.POSITIVE_INFINITY;
      for (const { hedgeAtMs, progressAtMs } of transfers.values()) {
        next = Math.min(next, hedgeAtMs, progressAtMs + limits.stallMs);
      }
      return next;
    },
  };
}
