/**
 * Run it here, or offer it to the mesh? Compares the time until the outputs are here: queue and run here, against wait,
 * transfer and run elsewhere. Knows who can run what, who is drained, and for whom shipping would be a loss. Claimed
 * actions that take far longer than such actions do are run here as well.
 *
 * @see docs/protocol.md, "Offloading"; docs/adr/0018-offload-policy.md
 */
import { claimLimits } from '../limits.ts';
import type { NodeId, RequestId } from '../ids.ts';
import type { Machine } from '../machine.ts';
import { createEstimates, type Estimates } from './estimates.ts';
import { createHealth, type Health } from './health.ts';
import * as limits from './limits.ts';
import { createStragglers } from './stragglers.ts';
import type { Decision, DrainReason, OffloadEffect, OffloadEvent, OffloadItem, OffloadMember } from './types.ts';

export interface Offload extends Machine<OffloadEvent, OffloadEffect> {
  readonly estimates: Estimates;
  readonly health: Health;
  /** Whether this machine can run it, now or when a slot is free. */
  canRunHere(item: Pick<OffloadItem, 'requires'>): boolean;
  /** Executors that the action is kept from; at most `claimLimits.avoidMax`. */
  avoided(item: OffloadItem): readonly NodeId[];
  /** Until it would be here: the run that started here, against one that has gone on for `ageMs` on the node. */
  remainingMs(request: RequestId, nowMs: number): number;
  remainingElsewhereMs(request: RequestId, node: NodeId, ageMs: number): number;
  readonly freeSlots: number;
  /** Actions that were offered, that nobody claimed, and that this machine could run. */
  readonly waiting: number;
}

interface Placed {
  readonly item: OffloadItem;
  /** `queued` and `running` are here. */
  place: 'queued' | 'running' | 'offered' | 'claimed';
  sinceMs: number;
  expectedMs: number;
  /** It had not to queue behind others: its wait tells how long claiming takes. */
  readonly atOnce: boolean;
  /** It would run here too, if this machine claimed it. */
  readonly fitsHere: boolean;
  node: NodeId | undefined;
}

export function createOffload(self: NodeId): Offload {
  const estimates = createEstimates();
  const health = createHealth();
  const stragglers = createStragglers();
  const placed = new Map<RequestId, Placed>();
  /** Those that run here. */
  const here = new Map<RequestId, Placed>();
  let members: readonly OffloadMember[] = [];
  let capabilities: ReadonlySet<string> | undefined;
  let slots = 0;
  let free = 0;
  // Sums over what was offered and is unclaimed, and over what waits for a slot here.
  let offered = 0;
  let offeredHere = 0;
  let claimedAway = 0;
  let waitingMs = 0;
  let shippedPercent = 100;
  let waitMs: number = limits.unknownWaitMs;
  let nowInStepMs = 0;
  let wakeAtMs = Number.POSITIVE_INFINITY;
  let effects: OffloadEffect[] = [];

  // ---- Who can ----

  function canRunHere({ requires }: Pick<OffloadItem, 'requires'>): boolean {
    // Before the machine was looked at, it counts as able: what runs here waits for its slots.
    if (capabilities === undefined) return true;
    return slots > 0 && requires.every((required) => capabilities?.has(required));
  }

  function couldRun(item: OffloadItem): readonly OffloadMember[] {
    return members.filter((member) => item.requires.every((required) => member.has.has(required)));
  }

  function isSlowFor(item: OffloadItem, { bytesPerMs }: OffloadMember): boolean {
    return bytesPerMs < limits.shippingBytesPerMsMin && item.inputBytes + outputBytes(item) > limits.shippedFreeBytes;
  }

  function outputBytes(item: OffloadItem): number {
    return estimates.outputBytes(item);
  }

  /** Who may have it, and who is to be kept from it; nobody when those are too many to name. */
  function audience(item: OffloadItem): { open: readonly OffloadMember[]; avoid: readonly NodeId[]; slow: boolean } {
    const lending = couldRun(item).filter(({ guestSlots }) => guestSlots > 0);
    const kept = new Set(item.avoid);
    const nodes = lending.map(({ node }) => node).filter((node) => !kept.has(node));
    // Somebody has to run it: drained nodes are better than nobody.
    const drained = canRunHere(item)
      ? nodes.filter((node) => !health.accepts(node, nowInStepMs))
      : health.avoided(nodes, nowInStepMs);
    for (const node of drained) kept.add(node);
    const able = lending.filter(({ node }) => !kept.has(node));
    const slow = able.filter((member) => isSlowFor(item, member));
    if (!canRunHere(item) && slow.length === able.length) return { open: able, avoid: bounded(kept), slow: false };
    for (const { node } of slow) kept.add(node);
    const open = kept.size > claimLimits.avoidMax ? [] : able.filter(({ node }) => !kept.has(node));
    return { open, avoid: bounded(kept), slow: slow.length > 0 && open.length === 0 };
  }

  function bounded(nodes: ReadonlySet<NodeId>): NodeId[] {
    return [...nodes].filter((node) => node !== self).slice(0, claimLimits.avoidMax);
  }

  // ---- How long ----

  /** Until it would be done here: what runs and waits here, and what was offered and is unclaimed, shares the slots. */
  function hereMs(item: OffloadItem): number {
    const runMs = estimates.runMs(item, self);
    if (free > 0) return runMs;
    let owedMs = waitingMs;
    for (const run of here.values()) owedMs += Math.max(0, run.sinceMs + run.expectedMs - nowInStepMs);
    // Guests in the other slots are about half done.
    owedMs += (Math.max(0, slots - here.size) * estimates.meanRunMs(item)) / 2;
    return runMs + Math.ceil(owedMs / Math.max(1, slots));
  }

  function shipMs(item: OffloadItem, to: readonly OffloadMember[]): number {
    let [weighted, count] = [0, 0];
    for (const { guestSlots, bytesPerMs } of to) {
      weighted += guestSlots * bytesPerMs;
      count += guestSlots;
    }
    const bytes = ((item.inputBytes + outputBytes(item)) * shippedPercent) / 100;
    return Math.ceil((bytes * count) / Math.max(1, weighted));
  }

  function elsewhereMs(item: OffloadItem, open: readonly OffloadMember[]): number {
    const lent = open.reduce((sum, { guestSlots }) => sum + guestSlots, 0);
    const ahead = Math.max(0, offered + claimedAway + 1 - lent);
    // Who waits there waits for slots of everybody, this node's among them.
    const queueMs = Math.ceil((ahead * estimates.meanRunMs(item)) / (lent + slots));
    return Math.ceil(waitMs) + queueMs + shipMs(item, open) + estimates.meanRunMs(item);
  }

  function decide(item: OffloadItem, hasLeader: boolean): Decision {
    const able = canRunHere(item);
    const inHereMs = able ? Math.ceil(hereMs(item)) : undefined;
    const { open, slow } = audience(item);
    const away = open.length > 0 ? elsewhereMs(item, open) : undefined;
    const times = { hereMs: inHereMs, elsewhereMs: away };
    if (inHereMs === undefined) return { ...times, where: 'mesh', why: 'notHere' };
    if (!hasLeader) return { ...times, where: 'here', why: 'noLeader' };
    if (away === undefined) return { ...times, where: 'here', why: slow ? 'slowLink' : 'nobodyElse' };
    if (item.avoid.includes(self)) return { ...times, where: 'mesh', why: 'notHere' };
    if (placed.size >= limits.offersMax) return { ...times, where: 'here', why: 'freeSlot' };
    if (free > 0) {
      const stays = away * 100 >= inHereMs * limits.elsewherePercent;
      return { ...times, where: stays ? 'here' : 'mesh', why: stays ? 'freeSlot' : 'soonerElsewhere' };
    }
    const stays = away >= inHereMs;
    return { ...times, where: stays ? 'here' : 'mesh', why: stays ? 'soonerHere' : 'soonerElsewhere' };
  }

  // ---- Where things are ----

  function count(run: Placed, sign: 1 | -1): void {
    if (run.place === 'offered') offered += sign;
    if (run.place === 'offered' && run.fitsHere) offeredHere += sign;
    if (run.place === 'claimed' && run.node !== self) claimedAway += sign;
    // By what was expected when it was placed, so that the sum stays true.
    if (run.place === 'offered' || run.place === 'queued') waitingMs += sign * run.expectedMs;
  }

  function move(request: RequestId, run: Placed, place: Placed['place'], node?: NodeId): void {
    count(run, -1);
    Object.assign(run, { place, node, sinceMs: nowInStepMs });
    count(run, 1);
    if (place === 'running') here.set(request, run);
    else here.delete(request);
    if (place !== 'claimed') stragglers.forget(request);
  }

  function put(item: OffloadItem, place: 'queued' | 'offered'): void {
    const lent = members.reduce((sum, { guestSlots }) => sum + guestSlots, 0);
    const run: Placed = {
      item,
      place,
      sinceMs: nowInStepMs,
      expectedMs: estimates.runMs(item, self),
      atOnce: place === 'offered' && offered + claimedAway < lent,
      fitsHere: canRunHere(item) && !item.avoid.includes(self),
      node: undefined,
    };
    placed.set(item.request, run);
    count(run, 1);
  }

  function remove(request: RequestId): Placed | undefined {
    const run = placed.get(request);
    if (!run) return undefined;
    count(run, -1);
    placed.delete(request);
    here.delete(request);
    stragglers.forget(request);
    return run;
  }

  function submit(item: OffloadItem, hasLeader: boolean): void {
    remove(item.request);
    if (!canRunHere(item) && couldRun(item).length === 0) {
      effects.push({ kind: 'unmatched', request: item.request });
      return;
    }
    const decision = decide(item, hasLeader);
    const isHere = decision.where === 'here';
    put(item, isHere ? 'queued' : 'offered');
    if (isHere) free = Math.max(0, free - 1);
    else stragglers.offered();
    effects.push({ kind: isHere ? 'runHere' : 'offer', request: item.request, decision });
  }

  function claimed(request: RequestId, run: Placed, node: NodeId): void {
    if (run.place === 'claimed' && run.node === node) return;
    // What stayed goes on under its claim.
    if (node === self && run.place !== 'offered') return;
    if (run.place === 'offered' && run.atOnce) {
      const tookMs = Math.min(nowInStepMs - run.sinceMs, limits.waitMsMax);
      waitMs += (tookMs - waitMs) / limits.observationShare;
    }
    move(request, run, 'claimed', node);
    if (node === self) return;
    const member = members.find((one) => one.node === node);
    const expectedMs = estimates.runMs(run.item, node) + (member ? shipMs(run.item, [member]) : 0);
    stragglers.claimed(request, expectedMs, nowInStepMs);
    health.given(node);
  }

  function ended(request: RequestId, node: NodeId, runMs: number | undefined, sizeBytes: number): void {
    const run = placed.get(request);
    if (run) {
      const member = members.find((one) => one.node === node);
      const tookMs = stragglers.ended(request, nowInStepMs);
      if (member && tookMs !== undefined && runMs !== undefined) learnShipping(run.item, member, tookMs - runMs);
      remove(request);
      if (runMs !== undefined) {
        estimates.ran(run.item, node, runMs);
        estimates.left(run.item, sizeBytes);
      }
    }
    if (node !== self && health.well(node)) drainEffect(node, false, undefined, 'probed');
  }

  /** Most of an input tree is where it was needed before: what really travels is learned. */
  function learnShipping(item: OffloadItem, { bytesPerMs }: OffloadMember, tookMs: number): void {
    const bytes = item.inputBytes + outputBytes(item);
    if (bytes < limits.shippedFreeBytes) return;
    const percent = Math.min(100, (Math.max(0, tookMs) * bytesPerMs * 100) / bytes);
    shippedPercent += (percent - shippedPercent) / limits.observationShare;
  }

  // ---- Health ----

  function drainEffect(node: NodeId, drained: boolean, untilMs: number | undefined, reason: DrainReason): void {
    effects.push({ kind: 'drained', node, drained, untilMs, reason });
  }

  function fault(node: NodeId, isMismatch: boolean): void {
    if (node === self) return;
    const forMs = health.fault(node, nowInStepMs, isMismatch);
    if (forMs !== undefined) drainEffect(node, true, nowInStepMs + forMs, isMismatch ? 'mismatch' : 'faults');
  }

  function apply(event: OffloadEvent): void {
    switch (event.kind) {
      case 'wake':
        return;
      case 'submit':
        return submit(event.item, event.hasLeader);
      case 'again': {
        const run = placed.get(event.request);
        if (run?.place !== 'queued') return;
        // Seen without itself in the queue.
        count(run, -1);
        const decision = decide(run.item, event.hasLeader);
        count(run, 1);
        if (decision.where !== 'mesh') return;
        move(event.request, run, 'offered');
        stragglers.offered();
        effects.push({ kind: 'offer', request: event.request, decision });
        return;
      }
      case 'queuedHere': {
        const run = placed.get(event.request);
        if (!run) return;
        if (run.place !== 'queued') free = Math.max(0, free - 1);
        move(event.request, run, 'queued');
        return;
      }
      case 'startedHere': {
        const run = placed.get(event.request);
        if (run) move(event.request, run, 'running');
        return;
      }
      case 'offered': {
        const run = placed.get(event.request);
        if (run) move(event.request, run, 'offered');
        return;
      }
      case 'claimed': {
        const run = placed.get(event.request);
        if (run) claimed(event.request, run, event.node);
        return;
      }
      case 'frozen':
        return stragglers.frozen(event.request, event.frozen, nowInStepMs);
      case 'ended':
        return ended(event.request, event.node, event.runMs, event.sizeBytes);
      case 'over':
        health.over(event.node);
        return;
      case 'fault':
        return fault(event.node, false);
      case 'mismatched':
        return fault(event.node, true);
      case 'drain':
        if (health.byHand(event.node, event.drained)) drainEffect(event.node, event.drained, undefined, 'byHand');
        return;
      case 'cancelled': {
        const run = remove(event.request);
        if (run?.node !== undefined) health.over(run.node);
        return;
      }
      case 'slots':
        ({ slots, free } = event);
        capabilities = new Set(event.capabilities);
        return;
      case 'mesh':
        members = event.members.map((member) => ({ ...member, has: new Set(member.capabilities) }));
        return;
      default:
        event satisfies never;
    }
  }

  return {
    estimates,
    health,
    canRunHere,
    avoided: (item) => audience(item).avoid,
    remainingMs(request, nowMs) {
      const run = placed.get(request);
      return run ? Math.max(0, run.sinceMs + run.expectedMs - nowMs) : 0;
    },
    remainingElsewhereMs(request, node, ageMs) {
      const run = placed.get(request);
      if (!run) return 0;
      const member = members.find((one) => one.node === node);
      const backMs = member ? Math.ceil(outputBytes(run.item) / member.bytesPerMs) : 0;
      return Math.max(0, estimates.runMs(run.item, node) - ageMs) + backMs;
    },
    get freeSlots() {
      return free;
    },
    get waiting() {
      return offeredHere;
    },
    step(event, nowMs) {
      effects = [];
      nowInStepMs = nowMs;
      apply(event);
      for (const request of stragglers.late(free, nowMs)) {
        const run = placed.get(request);
        if (!run || !canRunHere(run.item)) continue;
        free -= 1;
        effects.push({ kind: 'hedgeHere', request });
      }
      // When nothing can be done about a straggler, whatever changes that is an event of its own.
      const next = free > 0 ? stragglers.dueAtMs() : Number.POSITIVE_INFINITY;
      if (next !== wakeAtMs || event.kind === 'wake') effects.push({ kind: 'wakeAt', atMs: next });
      wakeAtMs = next;
      return effects;
    },
  };
}
