/**
 * Plans all fetches of a node: one fetch per blob however many want it, small blobs many in one request, large ones in
 * ranges from several holders; the cheapest holder first, a second one when the first is late, none twice that lied.
 * Every want ends within its budget, and what nobody delivers is missing at once.
 *
 * @see docs/protocol.md, "Fetching"; docs/adr/0017-fetch-planner.md
 */
import type { BlobKey, NodeId } from '../ids.ts';
import type { Machine } from '../machine.ts';
import { addSource, createFetch, type Fetch, open, type Source } from './fetches.ts';
import { createHedging } from './hedging.ts';
import { createHolders, type Holder } from './holders.ts';
import * as limits from './limits.ts';
import { createTransfers, type Item, type Transfer } from './transfers.ts';
import type {
  FetchConfig,
  FetchEffect,
  FetchEvent,
  FetchFailure,
  PartOutcome,
  TransferOutcome,
  Want,
} from './types.ts';

export interface Planner extends Machine<FetchEvent, FetchEffect> {
  /** Blobs being fetched. */
  fetching(): number;
  /** Size of a blob that is being fetched. */
  sizeOf(blob: BlobKey): number | undefined;
  /** Whether some ranges of the blob are here already. */
  arriving(blob: BlobKey): boolean;
  transfers(): number;
  /** How fast a node sends to this one: measured, or assumed from where it is. */
  readonly bytesPerMs: (node: NodeId) => number;
}

/** What one holder is to bring in one request. */
interface Batch {
  bytes: number;
  readonly items: Item[];
}

export function createPlanner(config: FetchConfig): Planner {
  const { self } = config;
  const fetches = new Map<BlobKey, Fetch>();
  const blobOf = new Map<number, BlobKey>();
  const holders = createHolders(self);
  const hedging = createHedging();
  let nowInStepMs = 0;
  let wakeAtMs = Number.POSITIVE_INFINITY;
  let retryAtMs = Number.POSITIVE_INFINITY;
  /** No want ends before this. */
  let earliestEndMs = Number.POSITIVE_INFINITY;
  /** Something happened after which a waiting piece may find a holder. */
  let unsettled = false;
  let toLocate = new Map<BlobKey, boolean>();
  let effects: FetchEffect[] = [];
  const transfers = createTransfers(
    holders,
    hedging,
    (effect) => effects.push(effect),
    () => {
      unsettled = true;
    },
  );

  function onWant({ want, blob, sizeBytes, budgetMs, hints }: Want): void {
    let fetch = fetches.get(blob);
    if (blobOf.has(want)) return;
    if (blobOf.size >= limits.wantsMax || (!fetch && fetches.size >= limits.fetchesMax)) {
      effects.push({ kind: 'failed', want, blob, reason: 'budget' });
      return;
    }
    if (!fetch) fetches.set(blob, (fetch = createFetch(self, blob, sizeBytes)));
    fetch.wants.set(want, nowInStepMs + budgetMs);
    earliestEndMs = Math.min(earliestEndMs, nowInStepMs + budgetMs);
    blobOf.set(want, blob);
    for (const node of hints) {
      if (node !== self && holders.get(node).status === 'alive') addSource(fetch, node, true);
    }
    // A small blob with somebody to ask is not looked up before that one has failed.
    if (fetch.sources.size === 0 || fetch.striped) locate(fetch);
  }

  function locate(fetch: Fetch): void {
    if (fetch.locating || fetch.located === 'thoroughly') return;
    fetch.locating = true;
    toLocate.set(fetch.blob, fetch.located === 'once');
  }

  function end(fetch: Fetch): void {
    fetches.delete(fetch.blob);
    for (const want of fetch.wants.keys()) blobOf.delete(want);
    for (const transfer of transfers.all()) transfers.forgo(transfer, fetch.blob);
  }

  function fail(fetch: Fetch, reason: FetchFailure): void {
    for (const want of fetch.wants.keys()) effects.push({ kind: 'failed', want, blob: fetch.blob, reason });
    abandon(fetch);
  }

  function abandon(fetch: Fetch): void {
    end(fetch);
    if (fetch.striped) effects.push({ kind: 'discard', blob: fetch.blob });
  }

  function complete(fetch: Fetch, from: NodeId | undefined): void {
    for (const want of fetch.wants.keys()) effects.push({ kind: 'fetched', want, blob: fetch.blob, from });
    if (from === undefined && fetch.striped) effects.push({ kind: 'discard', blob: fetch.blob });
    end(fetch);
  }

  function usable(fetch: Fetch, source: Source, except?: NodeId): boolean {
    const holder = holders.get(source.node);
    const unsure = holder.refusals > 0 || (source.guessed && !source.proved);
    return (
      source.node !== except &&
      present(holder) &&
      // Ranges leave room for small blobs, which somebody waits for with a shorter budget.
      holder.transfers < (fetch.striped ? limits.rangesPerHolder : limits.transfersPerHolder) / (unsure ? 2 : 1) &&
      nowInStepMs >= source.notBeforeMs &&
      nowInStepMs >= holder.busyUntilMs &&
      (fetch.alone === undefined || fetch.alone === source.node)
    );
  }

  /** A suspected holder is asked when there is no other: it may answer, and a missing blob costs a run. */
  function present({ status }: Holder): boolean {
    return status === 'alive' || status === 'suspect';
  }

  function best(
    fetch: Fetch,
    bytes: number,
    except?: NodeId,
    planned?: ReadonlyMap<NodeId, Batch>,
  ): Holder | undefined {
    let found: Holder | undefined;
    let least = Number.POSITIVE_INFINITY;
    for (const source of fetch.sources.values()) {
      if (!usable(fetch, source, except)) continue;
      const holder = holders.get(source.node);
      const cost = holders.cost(holder, bytes + (planned?.get(source.node)?.bytes ?? 0), fetch.lot);
      if (cost >= least) continue;
      least = cost;
      found = holder;
    }
    return found;
  }

  /** Gives every piece that waits to the holder that should have it here first, as far as transfers are free. */
  function dispatch(): void {
    const batches = new Map<NodeId, Batch>();
    retryAtMs = Number.POSITIVE_INFINITY;
    for (const fetch of [...fetches.values()]) {
      if (fetch.assembling) continue;
      for (const piece of open(fetch)) {
        if (transfers.size() + batches.size >= limits.transfersMax) break;
        const holder = best(fetch, piece.lengthBytes, undefined, batches);
        if (!holder) break;
        if (fetch.sizeBytes > limits.batchedBytes) {
          if (fetch.mixedUp) fetch.alone = holder.node;
          transfers.start(holder, [{ fetch, piece }], false, nowInStepMs);
          continue;
        }
        const batch = batches.get(holder.node) ?? { bytes: 0, items: [] };
        if (batch.items.length >= limits.batchBlobsMax || batch.bytes >= limits.batchBytesMax) continue;
        batches.set(holder.node, batch);
        batch.bytes += piece.lengthBytes;
        batch.items.push({ fetch, piece });
      }
    }
    for (const [node, { items }] of batches) transfers.start(holders.get(node), items, false, nowInStepMs);
    for (const fetch of [...fetches.values()]) if (!fetch.assembling && open(fetch).length > 0) look(fetch);
  }

  /** A fetch with pieces that nobody brings: somebody will soon, or more holders are looked up, or it is missing. */
  function look(fetch: Fetch): void {
    let soonMs = Number.POSITIVE_INFINITY;
    for (const source of fetch.sources.values()) {
      const holder = holders.get(source.node);
      if (!present(holder)) continue;
      // A holder with all transfers in use is seen to when one of them ends.
      soonMs = Math.min(soonMs, Math.max(source.notBeforeMs, holder.busyUntilMs));
    }
    if (fetch.failures >= fetch.pieces.length + limits.deliveriesFailedMax) return fail(fetch, 'missing');
    if (soonMs < Number.POSITIVE_INFINITY) {
      if (soonMs > nowInStepMs) retryAtMs = Math.min(retryAtMs, soonMs);
      return;
    }
    if (fetch.locating || fetch.pieces.some((piece) => piece.transfers.size > 0)) return;
    if (fetch.located === 'thoroughly') return fail(fetch, 'missing');
    locate(fetch);
  }

  /** The node is no holder of anything any more. */
  function drop(node: NodeId): void {
    for (const transfer of transfers.all()) {
      if (transfer.holder.node !== node) continue;
      noteFailOver(transfer);
      transfers.cancel(transfer);
    }
    for (const fetch of fetches.values()) {
      removeSource(fetch, node);
    }
  }

  function removeSource(fetch: Fetch, node: NodeId): void {
    unsettled = true;
    fetch.sources.delete(node);
    if (fetch.alone !== node) return;
    // What it brought is not mixed with what the next one brings.
    effects.push({ kind: 'discard', blob: fetch.blob });
    fetch.alone = undefined;
    fetch.deliveredBy.clear();
    for (const piece of fetch.pieces) piece.done = false;
  }

  function noteFailOver(transfer: Transfer): void {
    for (const { fetch } of transfer.items.values()) {
      if (!fetch.striped || fetch.sources.size < 2) continue;
      effects.push({ kind: 'note', note: { kind: 'failedOver', blob: fetch.blob, from: transfer.holder.node } });
    }
  }

  function onPart(transfer: Transfer, blob: BlobKey, outcome: PartOutcome): void {
    const item = transfer.items.get(blob);
    if (!item) return;
    const { fetch, piece } = item;
    const { node } = transfer.holder;
    const source = fetch.sources.get(node);
    switch (outcome) {
      case 'stored':
      case 'arrived': {
        const late = [...piece.transfers].some((id) => id !== transfer.id);
        if (transfer.hedge && late) effects.push({ kind: 'note', note: { kind: 'hedgeWon', transfer: transfer.id } });
        transfers.settle(transfer, blob);
        piece.done = true;
        fetch.deliveredBy.add(node);
        transfer.holder.refusals = 0;
        if (source) {
          source.proved = true;
          source.early = 0;
        }
        for (const id of [...piece.transfers]) transfers.forgo(transfers.get(id) as Transfer, blob);
        if (outcome === 'stored') return complete(fetch, node);
        if (fetch.pieces.every(({ done }) => done)) {
          fetch.assembling = true;
          effects.push({ kind: 'assemble', blob });
        }
        return;
      }
      case 'absent':
        transfers.settle(transfer, blob);
        if (source) absent(fetch, source);
        return;
      case 'wrong':
        transfers.settle(transfer, blob);
        effects.push({ kind: 'blame', node, reason: 'wrong' });
        return drop(node);
      case 'noRoom':
        return fail(fetch, 'noRoom');
      default:
        outcome satisfies never;
    }
  }

  function absent(fetch: Fetch, source: Source): void {
    // Whoever was only guessed to have a range may be getting it at this moment.
    const hope = source.early < limits.earlyMax || [...fetch.sources.values()].some(({ guessed }) => !guessed);
    if (source.guessed && fetch.striped && hope) {
      unsettled = true;
      source.notBeforeMs = nowInStepMs + Math.min(limits.earlyMsMax, limits.earlyMs * 2 ** Math.min(source.early, 8));
      source.early += 1;
      return;
    }
    if (!source.guessed) fetch.failures += 1;
    removeSource(fetch, source.node);
    if (!source.guessed) effects.push({ kind: 'blame', node: source.node, reason: 'absent' });
  }

  function onEnded(transfer: Transfer, outcome: TransferOutcome): void {
    const { holder } = transfer;
    const left = [...transfer.items.values()];
    switch (outcome.kind) {
      case 'done': {
        const takenMs = nowInStepMs - transfer.startedAtMs;
        holders.measured(holder, transfer.bytes, takenMs);
        hedging.sample(takenMs, transfer.expectedMs);
        transfers.close(transfer);
        for (const { fetch } of left) {
          const source = fetch.sources.get(holder.node);
          if (source) absent(fetch, source);
        }
        return;
      }
      case 'broken':
        noteFailOver(transfer);
        transfers.close(transfer);
        effects.push({ kind: 'blame', node: holder.node, reason: 'unreachable' });
        for (const { fetch } of left) broken(fetch, holder.node);
        return;
      case 'busy':
        transfers.close(transfer);
        holder.busyUntilMs =
          nowInStepMs +
          Math.min(
            limits.busyMsMax,
            Math.max(1, outcome.retryAfterMs) * 2 ** Math.min(holder.refusals, limits.busyDoublingsMax),
          );
        holder.refusals += 1;
        for (const { fetch } of left) {
          for (const node of outcome.tryNodes) {
            if (node !== self && holders.get(node).status === 'alive') addSource(fetch, node, true);
          }
        }
        return;
      default:
        outcome satisfies never;
    }
  }

  function broken(fetch: Fetch, node: NodeId): void {
    const source = fetch.sources.get(node);
    if (!source) return;
    source.failures += 1;
    fetch.failures += 1;
    if (source.failures >= limits.failuresMax || fetch.sources.size > 1) removeSource(fetch, node);
    else source.notBeforeMs = nowInStepMs + limits.retryMs;
  }

  function onAssembled(fetch: Fetch, outcome: 'stored' | 'wrong' | 'noRoom'): void {
    fetch.assembling = false;
    const [first] = fetch.deliveredBy;
    if (outcome === 'stored') return complete(fetch, first);
    if (outcome === 'noRoom') return fail(fetch, 'noRoom');
    effects.push({ kind: 'discard', blob: fetch.blob });
    if (fetch.deliveredBy.size === 1) {
      const node = first as NodeId;
      // Whoever was only guessed to have it may have passed on ranges that it could not check itself.
      if (fetch.sources.get(node)?.guessed === true) removeSource(fetch, node);
      else {
        effects.push({ kind: 'blame', node, reason: 'wrong' });
        drop(node);
      }
    }
    fetch.failures += 1;
    // Whose piece was wrong nobody can say: from now on one source alone, so that the next wrong whole is its own.
    fetch.mixedUp = true;
    fetch.alone = undefined;
    fetch.deliveredBy.clear();
    for (const piece of fetch.pieces) piece.done = false;
    unsettled = true;
  }

  function hedge(late: Transfer): void {
    late.hedgeAtMs = Number.POSITIVE_INFINITY;
    const byHolder = new Map<Holder, Item[]>();
    for (const item of late.items.values()) {
      if (item.fetch.mixedUp || item.piece.transfers.size > 1) continue;
      const holder = best(item.fetch, item.piece.lengthBytes, late.holder.node);
      if (!holder) continue;
      const items = byHolder.get(holder);
      if (items) items.push(item);
      else byHolder.set(holder, [item]);
    }
    for (const [holder, items] of byHolder) {
      if (transfers.size() >= limits.transfersMax || !hedging.take()) return;
      const { id } = transfers.start(holder, items, true, nowInStepMs);
      effects.push({ kind: 'note', note: { kind: 'hedged', transfer: late.id, by: id } });
    }
  }

  function expire(): void {
    if (nowInStepMs < earliestEndMs) return;
    earliestEndMs = Number.POSITIVE_INFINITY;
    for (const fetch of [...fetches.values()]) {
      for (const [want, deadlineMs] of fetch.wants) {
        if (nowInStepMs < deadlineMs) {
          earliestEndMs = Math.min(earliestEndMs, deadlineMs);
          continue;
        }
        fetch.wants.delete(want);
        blobOf.delete(want);
        effects.push({ kind: 'failed', want, blob: fetch.blob, reason: 'budget' });
      }
      if (fetch.wants.size === 0) abandon(fetch);
    }
  }

  function onTimers(): void {
    for (const transfer of transfers.all()) {
      if (!transfers.get(transfer.id)) continue;
      if (nowInStepMs >= transfer.progressAtMs + limits.stallMs) {
        effects.push({ kind: 'cancelTransfer', transfer: transfer.id });
        onEnded(transfer, { kind: 'broken' });
      } else if (nowInStepMs >= transfer.hedgeAtMs) hedge(transfer);
    }
  }

  function sendLocates(): void {
    for (const thorough of [false, true]) {
      const blobs = [...toLocate].flatMap(([blob, deep]) => (deep === thorough && fetches.has(blob) ? [blob] : []));
      if (blobs.length > 0) effects.push({ kind: 'locate', blobs, thorough });
    }
    toLocate = new Map();
  }

  function apply(event: FetchEvent): void {
    switch (event.kind) {
      case 'wake':
        return;
      case 'gap':
        // Connections are gone, by nobody's fault; what was measured and found is still good.
        for (const transfer of transfers.all()) transfers.cancel(transfer);
        return;
      case 'want':
        for (const want of event.wants) onWant(want);
        unsettled = true;
        return;
      case 'unwant': {
        const fetch = fetches.get(blobOf.get(event.want) ?? '');
        blobOf.delete(event.want);
        fetch?.wants.delete(event.want);
        if (fetch?.wants.size === 0) abandon(fetch);
        return;
      }
      case 'located':
        unsettled = true;
        for (const { blob, holders: found, sure } of event.found) {
          const fetch = fetches.get(blob);
          if (!fetch?.locating) continue;
          fetch.locating = false;
          // Nobody at all is believed; otherwise there may be more of them than were named.
          const nobody = found.length === 0 && sure === 'asked';
          fetch.located = fetch.located === 'no' && !nobody ? 'once' : 'thoroughly';
          for (const node of found) if (node !== self) addSource(fetch, node, false);
        }
        return;
      case 'progress': {
        const transfer = transfers.get(event.transfer);
        if (transfer) transfers.progressed(transfer, event.receivedBytes, nowInStepMs);
        return;
      }
      case 'part': {
        const transfer = transfers.get(event.transfer);
        if (!transfer) return;
        transfer.progressAtMs = nowInStepMs;
        return onPart(transfer, event.blob, event.outcome);
      }
      case 'ended': {
        const transfer = transfers.get(event.transfer);
        if (transfer) onEnded(transfer, event.outcome);
        return;
      }
      case 'assembled': {
        const fetch = fetches.get(event.blob);
        if (fetch?.assembling) onAssembled(fetch, event.outcome);
        return;
      }
      case 'stored': {
        const fetch = fetches.get(event.blob);
        if (fetch) complete(fetch, undefined);
        return;
      }
      case 'peer':
        holders.peer(event.node, event.status, event.locality);
        unsettled = true;
        if (event.status !== 'alive' && event.status !== 'suspect') drop(event.node);
        return;
      case 'roundTrip':
        return holders.roundTrip(event.node, event.roundTripMs);
      default:
        event satisfies never;
    }
  }

  return {
    step(event, nowMs) {
      effects = [];
      nowInStepMs = nowMs;
      apply(event);
      expire();
      onTimers();
      // Of a batch of many blobs each is reported; what waits is looked at when a transfer or a search is over.
      if (unsettled || nowMs >= retryAtMs) dispatch();
      unsettled = false;
      sendLocates();
      const next = Math.min(retryAtMs, earliestEndMs, transfers.nextMs());
      if (next !== wakeAtMs || event.kind === 'wake') effects.push({ kind: 'wakeAt', atMs: next });
      wakeAtMs = next;
      return effects;
    },
    fetching: () => fetches.size,
    sizeOf: (blob) => fetches.get(blob)?.sizeBytes,
    arriving: (blob) => fetches.get(blob)?.pieces.some(({ done }) => done) === true,
    transfers: () => transfers.size(),
    bytesPerMs(node) {
      const { bytesPerMs, locality } = holders.get(node);
      return bytesPerMs ?? limits.assumedBytesPerMs[locality];
    },
  };
}
