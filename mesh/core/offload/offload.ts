/**
 * Run it here, or offer it to the mesh? Compares the time until the outputs are here: queue and run here, against wait,
 * transfer and run elsewhere. Offered actions that take far longer than such actions do are run here as well.
 *
 * @see docs/protocol.md, "Offloading"; docs/adr/0018-offload-policy.md
 */
import type { NodeId, RequestId } from '../ids.ts';
import type { Machine } from '../machine.ts';
import { type ActionTraits, createEstimates, type Estimates } from './estimates.ts';
import { createHealth, type Health } from './health.ts';
import * as limits from './limits.ts';

export interface OffloadItem extends ActionTraits {
  readonly request: RequestId;
  readonly inputBytes: number;
  /** As its family's outputs were, or 0. */
  readonly outputBytes: number;
}

export type OffloadEvent =
  | { readonly kind: 'wake' }
  | { readonly kind: 'submit'; readonly item: OffloadItem }
  /** Slots of this machine, and how many are free. */
  | { readonly kind: 'slots'; readonly slots: number; readonly free: number }
  /** Members that take guests: how many slots they have together. */
  | { readonly kind: 'mesh'; readonly slots: number }
  /** Measured throughput to where most guests' slots are. */
  | { readonly kind: 'link'; readonly bytesPerMs: number }
  | { readonly kind: 'claimed'; readonly request: RequestId; readonly node: NodeId }
  /** The run stands still because its machine's owner is back; and goes on again. */
  | { readonly kind: 'frozen'; readonly request: RequestId; readonly frozen: boolean }
  | { readonly kind: 'ended'; readonly request: RequestId; readonly node: NodeId; readonly runMs: number }
  | { readonly kind: 'fault'; readonly request: RequestId; readonly node: NodeId }
  | { readonly kind: 'cancelled'; readonly request: RequestId };

export type OffloadEffect =
  | { readonly kind: 'wakeAt'; readonly atMs: number }
  | { readonly kind: 'runHere'; readonly request: RequestId }
  | { readonly kind: 'offer'; readonly request: RequestId; readonly expectedMs: number }
  /** A straggler: run it here as well, without a claim. The first result counts. */
  | { readonly kind: 'hedgeHere'; readonly request: RequestId }
  | { readonly kind: 'drained'; readonly node: NodeId; readonly forMs: number };

export interface Offload extends Machine<OffloadEvent, OffloadEffect> {
  readonly estimates: Estimates;
  readonly health: Health;
}

interface Running {
  readonly item: OffloadItem;
  readonly here: boolean;
  readonly sinceMs: number;
  /** Of the run itself, on the machine that has it. */
  expectedMs: number;
  claimedAtMs: number | undefined;
  frozenSinceMs: number | undefined;
  frozenMs: number;
  hedged: boolean;
}

export function createOffload(self: NodeId): Offload {
  const estimates = createEstimates();
  const health = createHealth();
  const running = new Map<RequestId, Running>();
  const percents: number[] = [];
  let oldest = 0;
  let slots = 0;
  let free = 0;
  let meshSlots = 0;
  let bytesPerMs = limits.shippingBytesPerMsMin;
  let waitMs: number = limits.unknownWaitMs;
  let offers = 0;
  let hedges = 0;
  let nowInStepMs = 0;
  let wakeAtMs = Number.POSITIVE_INFINITY;
  let effects: OffloadEffect[] = [];

  /** Until it would be done here: what runs and waits here already shares the slots. */
  function hereMs(item: OffloadItem): number {
    const runMs = estimates.runMs(item, self);
    if (free > 0) return runMs;
    let owedMs = 0;
    for (const { here, expectedMs, sinceMs } of running.values()) {
      if (here) owedMs += Math.max(0, sinceMs + expectedMs - nowInStepMs);
    }
    return runMs + Math.ceil(owedMs / Math.max(1, slots));
  }

  function elsewhereMs(item: OffloadItem): number {
    const shippedBytes = item.inputBytes + item.outputBytes;
    if (meshSlots === 0) return Number.POSITIVE_INFINITY;
    if (bytesPerMs < limits.shippingBytesPerMsMin && shippedBytes > limits.shippedFreeBytes) {
      return Number.POSITIVE_INFINITY;
    }
    let waiting = 0;
    for (const { here, claimedAtMs } of running.values()) if (!here && claimedAtMs === undefined) waiting += 1;
    const queueMs = Math.ceil((Math.max(0, waiting - meshSlots) * estimates.meanRunMs(item)) / meshSlots);
    return waitMs + queueMs + Math.ceil(shippedBytes / bytesPerMs) + estimates.meanRunMs(item);
  }

  function submit(item: OffloadItem): void {
    const here = hereMs(item);
    const elsewhere = elsewhereMs(item);
    const share = free > 0 ? limits.elsewherePercent : 100;
    const stay = elsewhere * 100 >= here * share || running.size >= limits.offersMax;
    running.set(item.request, {
      item,
      here: stay,
      sinceMs: nowInStepMs,
      expectedMs: stay ? estimates.runMs(item, self) : elsewhere,
      claimedAtMs: undefined,
      frozenSinceMs: undefined,
      frozenMs: 0,
      hedged: false,
    });
    if (stay) {
      free = Math.max(0, free - 1);
      effects.push({ kind: 'runHere', request: item.request });
      return;
    }
    offers += 1;
    effects.push({ kind: 'offer', request: item.request, expectedMs: elsewhere });
  }

  function claimed(run: Running, node: NodeId): void {
    waitMs += (nowInStepMs - run.sinceMs - waitMs) / limits.observationShare;
    run.claimedAtMs = nowInStepMs;
    const shippedBytes = run.item.inputBytes + run.item.outputBytes;
    run.expectedMs = estimates.runMs(run.item, node) + Math.ceil(shippedBytes / bytesPerMs);
    health.given(node);
  }

  function ended(run: Running, node: NodeId, runMs: number): void {
    running.delete(run.item.request);
    if (run.claimedAtMs !== undefined) {
      const tookMs = nowInStepMs - run.claimedAtMs - run.frozenMs;
      percents[oldest] = (tookMs * 100) / Math.max(1, run.expectedMs);
      oldest = (oldest + 1) % limits.stragglerSamples;
    }
    estimates.ran(run.item, node, runMs);
    health.well(node);
  }

  function stragglerPercent(): number {
    if (percents.length < limits.stragglerSamplesMin) return limits.stragglerPercentUnknown;
    const sorted = percents.toSorted((a, b) => a - b);
    const high = sorted[Math.trunc((sorted.length * 95) / 100)] as number;
    return Math.min(limits.stragglerPercentMax, Math.max(limits.stragglerPercentMin, high));
  }

  /** When a run becomes a straggler; frozen time is not run time. */
  function lateAtMs(run: Running, percent: number): number {
    if (run.here || run.hedged || run.claimedAtMs === undefined || run.frozenSinceMs !== undefined) {
      return Number.POSITIVE_INFINITY;
    }
    const patienceMs = Math.max(limits.stragglerMsMin, Math.ceil((run.expectedMs * percent) / 100));
    return run.claimedAtMs + run.frozenMs + patienceMs;
  }

  function mayHedge(): boolean {
    return free > 0 && hedges < limits.hedgesFree + Math.trunc((offers * limits.hedgePercent) / 100);
  }

  function hedge(percent: number): void {
    for (const [request, run] of running) {
      if (!mayHedge()) return;
      if (nowInStepMs < lateAtMs(run, percent)) continue;
      run.hedged = true;
      hedges += 1;
      free -= 1;
      effects.push({ kind: 'hedgeHere', request });
    }
  }

  function apply(event: OffloadEvent): void {
    switch (event.kind) {
      case 'wake':
        return;
      case 'submit':
        return submit(event.item);
      case 'slots':
        ({ slots, free } = event);
        return;
      case 'mesh':
        meshSlots = event.slots;
        return;
      case 'link':
        ({ bytesPerMs } = event);
        return;
      case 'claimed': {
        const run = running.get(event.request);
        if (run && !run.here) claimed(run, event.node);
        return;
      }
      case 'frozen': {
        const run = running.get(event.request);
        if (!run) return;
        if (event.frozen) run.frozenSinceMs ??= nowInStepMs;
        else if (run.frozenSinceMs !== undefined) {
          run.frozenMs += nowInStepMs - run.frozenSinceMs;
          run.frozenSinceMs = undefined;
        }
        return;
      }
      case 'ended': {
        const run = running.get(event.request);
        if (run) ended(run, event.node, event.runMs);
        return;
      }
      case 'fault': {
        const forMs = health.fault(event.node, nowInStepMs);
        if (forMs !== undefined) effects.push({ kind: 'drained', node: event.node, forMs });
        const run = running.get(event.request);
        // It is offered again by whoever keeps the request: it waits anew.
        if (run) run.claimedAtMs = undefined;
        return;
      }
      case 'cancelled':
        running.delete(event.request);
        return;
      default:
        event satisfies never;
    }
  }

  return {
    estimates,
    health,
    step(event, nowMs) {
      effects = [];
      nowInStepMs = nowMs;
      apply(event);
      const percent = stragglerPercent();
      hedge(percent);
      let next = Number.POSITIVE_INFINITY;
      // When nothing can be done about a straggler, whatever changes that is an event of its own.
      if (mayHedge()) for (const run of running.values()) next = Math.min(next, lateAtMs(run, percent));
      if (next !== wakeAtMs || event.kind === 'wake') effects.push({ kind: 'wakeAt', atMs: next });
      wakeAtMs = next;
      return effects;
    },
  };
}
