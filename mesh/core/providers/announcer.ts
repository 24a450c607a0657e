/**
 * The provider: tells each keeper what this node holds of what that keeper keeps, in batches, one under way per keeper;
 * and sees to it, region by region and at a capped rate, that keepers have what they should after things went wrong.
 */
import type { NodeId } from '../ids.ts';
import type { Context, Sum } from './context.ts';
import * as limits from './limits.ts';
import { mixPlace, regionOf } from './places.ts';
import { createRecords } from './records.ts';
import type { MemberRecord } from '../membership/records.ts';
import type { Ring } from './ring.ts';
import type { Place, ProviderMessage } from './types.ts';

export interface Announcer {
  holds(place: Place): boolean;
  size(): number;
  changed(place: Place, held: boolean): void;
  /** An answer to something of ours. */
  announced(from: NodeId, message: Extract<ProviderMessage, { kind: 'announced' }>): void;
  regions(from: NodeId, message: Extract<ProviderMessage, { kind: 'regions' }>): void;
  ringChanged(): void;
  memberChanged(node: NodeId): void;
  /** Nothing that was told can be relied on. */
  doubtAll(): void;
  onTimers(): void;
  nextMs(): number;
  allocatedBytes(): number;
}

interface UnderWay {
  readonly message: Extract<ProviderMessage, { kind: 'announce' | 'regionsAsked' }>;
  sentAtMs: number;
  tries: number;
}

/** One keeper with which something is going on. */
interface Talk {
  readonly node: NodeId;
  /** What it has to be told of each place: held or not. Always as it is now, so order does not matter. */
  readonly changes: Map<Place, boolean>;
  readonly clear: Set<number>;
  underWay: UnderWay | undefined;
  /** What it should have when everything was said; undefined while nobody wants to know. */
  expected: Sum | undefined;
}

interface Sweep {
  region: number;
  /** Keepers of which the sums are being taken. */
  readonly checked: ReadonlySet<NodeId>;
  /** What keepers said that they have, by region. */
  readonly compared: ReadonlyMap<NodeId, ReadonlyMap<number, Sum>>;
}

const owner = 0;

export function createAnnouncer(context: Context, generation: number, held: Iterable<Place>): Announcer {
  const { self, rng } = context;
  const life = rng.next();
  const own = createRecords();
  for (const place of held) own.add(place, owner);
  let fresh = new Map<Place, boolean>();
  let flushAtMs = Number.POSITIVE_INFINITY;
  let seq = 0;
  const talks = new Map<NodeId, Talk>();
  let underWay = 0;
  /** The ring by which each region was last announced. */
  const rings = new Array<Ring | undefined>(limits.regions).fill(undefined);
  /** Keepers that may lack something, or have too much, and when they may next be looked at. */
  const doubted = new Map<NodeId, number>();
  /** Members' records as they were when they last changed. */
  const seen = new Map<NodeId, MemberRecord>();
  /** Keepers whose sum was wrong, with what they have. */
  const differing = new Map<NodeId, ReadonlyMap<number, Sum>>();
  let sweep: Sweep | undefined;
  let sweepAtMs = Number.POSITIVE_INFINITY;
  let checkAtMs = context.nowMs() + limits.checkMs + rng.below(limits.checkMs);

  const alive = (node: NodeId): boolean => context.statusOf(node) === 'alive';
  const keeps = (node: NodeId): boolean => alive(node) && context.ring()?.has(node) === true;

  function talkTo(node: NodeId): Talk {
    let talk = talks.get(node);
    if (!talk) {
      talk = { node, changes: new Map(), clear: new Set(), underWay: undefined, expected: undefined };
      talks.set(node, talk);
    }
    return talk;
  }

  function doubt(node: NodeId, notBeforeMs: number): void {
    if (node === self) return;
    doubted.set(node, Math.max(notBeforeMs, doubted.get(node) ?? 0));
  }

  /** Gives up what there was to say; the keeper is compared with what is held once it is here. */
  function hangUp(node: NodeId, notBeforeMs: number): void {
    const talk = talks.get(node);
    if (talk?.underWay) underWay -= 1;
    talks.delete(node);
    doubt(node, notBeforeMs);
  }

  function tell(node: NodeId, place: Place, holding: boolean): void {
    if (node === self) return;
    if (!alive(node)) {
      doubt(node, context.nowMs());
      return;
    }
    const talk = talkTo(node);
    talk.changes.set(place, holding);
    if (talk.changes.size > limits.changesPerKeeper) hangUp(node, context.nowMs());
  }

  function keepers(ring: Ring, place: Place): NodeId[] {
    return ring.nearest(place, limits.recordKeepers).map((index) => ring.nodes[index] as NodeId);
  }

  function flush(): void {
    flushAtMs = Number.POSITIVE_INFINITY;
    const changes = fresh;
    fresh = new Map();
    for (const [place, holding] of changes) {
      if (!(holding ? own.add(place, owner) : own.remove(place, owner))) continue;
      const region = regionOf(place);
      const ring = rings[region];
      if (!ring) continue;
      for (const node of keepers(ring, place)) {
        tell(node, place, holding);
        // A region that is yet to be swept is summed up then.
        if (sweep?.checked.has(node) && region >= sweep.region) continue;
        const expected = talks.get(node)?.expected;
        if (expected) addTo(expected, place, holding ? 1 : -1);
      }
    }
  }

  function transmit(talk: Talk, message: UnderWay['message']): void {
    if (!talk.underWay) underWay += 1;
    talk.underWay = { message, sentAtMs: context.nowMs(), tries: (talk.underWay?.tries ?? 0) + 1 };
    context.send(talk.node, message);
  }

  function nextAnnouncement(talk: Talk): UnderWay['message'] {
    const add: Place[] = [];
    const remove: Place[] = [];
    for (const [place, holding] of talk.changes) {
      if (add.length + remove.length >= limits.placesPerAnnouncement) break;
      (holding ? add : remove).push(place);
      talk.changes.delete(place);
    }
    const clear = [...talk.clear];
    talk.clear.clear();
    return { kind: 'announce', seq: ++seq, life, generation, add, remove, clear };
  }

  function pump(): void {
    for (const talk of talks.values()) {
      if (underWay >= limits.announcementsUnderWay) return;
      if (talk.underWay) continue;
      const ask = talk.expected !== undefined && fresh.size === 0 && !sweep?.checked.has(talk.node);
      if (talk.changes.size > 0 || talk.clear.size > 0 || ask) transmit(talk, nextAnnouncement(talk));
      else if (!talk.expected) talks.delete(talk.node);
    }
  }

  function answered(from: NodeId, answer: number): { talk: Talk; message: UnderWay['message'] } | undefined {
    const talk = talks.get(from);
    if (talk?.underWay?.message.seq !== answer) return undefined;
    const { message } = talk.underWay;
    talk.underWay = undefined;
    underWay -= 1;
    return { talk, message };
  }

  function startSweep(): void {
    const nowMs = context.nowMs();
    const checked = new Set<NodeId>();
    for (const [node, notBeforeMs] of doubted) {
      if (!keeps(node) || nowMs < notBeforeMs) continue;
      doubted.delete(node);
      checked.add(node);
      talkTo(node).expected = { count: 0, hash: 0 };
    }
    const compared = new Map([...differing].slice(0, limits.comparedKeepers));
    for (const node of compared.keys()) differing.delete(node);
    sweep = { region: 0, checked, compared };
  }

  /** Takes the sweep one region on; returns how many places it looked at, and gave rise to tell. */
  function sweepRegion(running: Sweep, ring: Ring): { readonly looked: number; readonly told: number } {
    const { region } = running;
    const before = rings[region];
    const lists = new Map([...running.compared.keys()].map((node) => [node, [] as Place[]]));
    let looked = 0;
    let told = 0;
    own.eachIn(region, (place) => {
      looked += 1;
      const now = keepers(ring, place);
      if (before && before !== ring) {
        const then = keepers(before, place);
        for (const node of now) {
          if (then.includes(node)) continue;
          told += 1;
          tell(node, place, true);
        }
        for (const node of then) if (!now.includes(node)) tell(node, place, false);
      }
      for (const node of now) {
        const expected = running.checked.has(node) ? talks.get(node)?.expected : undefined;
        if (expected) addTo(expected, place, 1);
        lists.get(node)?.push(place);
      }
    });
    rings[region] = ring;
    running.region += 1;
    for (const [node, places] of lists) {
      if (!alive(node)) continue;
      const has = running.compared.get(node)?.get(region) ?? { count: 0, hash: 0 };
      const should: Sum = { count: 0, hash: 0 };
      for (const place of places) addTo(should, place, 1);
      if (has.count === should.count && has.hash === should.hash >>> 0) continue;
      talkTo(node).clear.add(region);
      for (const place of places) tell(node, place, true);
      told += places.length;
    }
    return { looked, told };
  }

  function onSweep(): void {
    const ring = context.ring();
    if (!ring) return;
    const nowMs = context.nowMs();
    if (!sweep) startSweep();
    const running = sweep as Sweep;
    // Regions in which nothing is to be told cost no time of their own: a node with few blobs is done in one step.
    let [looked, told] = [0, 0];
    while (told === 0 && looked < limits.lookedPerStep && running.region < limits.regions) {
      const part = sweepRegion(running, ring);
      looked += part.looked;
      told += part.told;
    }
    sweepAtMs = nowMs + Math.max(limits.sweepStepMs, Math.trunc((told * 1_000) / limits.sweptPlacesPerSecond));
    if (running.region < limits.regions) return;
    sweep = undefined;
    // What was sent anew is looked at once more, later.
    for (const node of running.compared.keys()) doubt(node, nowMs + limits.reconcileMs);
    planSweep();
  }

  /** Sets the time of the next sweep, if there is anything to do in one. */
  function planSweep(): void {
    if (sweep) return;
    const ring = context.ring();
    sweepAtMs = Number.POSITIVE_INFINITY;
    if (!ring) return;
    const nowMs = context.nowMs();
    if (differing.size > 0 || rings.some((before) => before !== ring)) sweepAtMs = nowMs + limits.sweepStepMs;
    for (const [node, notBeforeMs] of doubted) {
      if (keeps(node)) sweepAtMs = Math.min(sweepAtMs, Math.max(nowMs + limits.formingMs, notBeforeMs));
    }
  }

  return {
    holds: (place) => fresh.get(place) ?? own.has(place, owner),
    size: () => own.size(),
    changed(place, holding) {
      fresh.set(place, holding);
      flushAtMs = Math.min(flushAtMs, context.nowMs() + limits.announceDelayMs);
      if (fresh.size >= limits.announceWaiting) flush();
    },
    announced(from, message) {
      const over = answered(from, message.seq);
      if (!over) return;
      const { talk } = over;
      if (message.full) {
        hangUp(from, context.nowMs() + limits.fullMs);
        return;
      }
      const { expected } = talk;
      if (!expected || sweep?.checked.has(from) || talk.changes.size > 0 || talk.clear.size > 0) return;
      // What was said is compared only when nothing more is to be said.
      if (fresh.size > 0) return;
      talk.expected = undefined;
      if (message.count === expected.count && message.hash === expected.hash >>> 0) return;
      transmit(talk, { kind: 'regionsAsked', seq: ++seq });
    },
    regions(from, message) {
      const over = answered(from, message.seq);
      if (over?.message.kind !== 'regionsAsked') return;
      const summary = new Map<number, Sum>();
      for (let i = 0; i + 2 < message.summaries.length; i += 3) {
        const [region, count, hash] = message.summaries.slice(i, i + 3) as [number, number, number];
        summary.set(region, { count, hash });
      }
      differing.set(from, summary);
      context.note({ kind: 'reconciled', node: from, regions: summary.size });
    },
    ringChanged() {
      const ring = context.ring() as Ring;
      const first = rings.every((before) => before === undefined);
      if (first || own.size() === 0) rings.fill(ring);
      // What keepers were told before this node's last start is not known: they are asked instead of told.
      if (first && own.size() > 0) for (const node of ring.nodes) doubt(node, context.nowMs());
      // A sweep that is under way began with another ring.
      if (sweep) {
        for (const node of [...sweep.checked, ...sweep.compared.keys()]) hangUp(node, context.nowMs());
        sweep = undefined;
      }
      planSweep();
    },
    memberChanged(node) {
      const record = context.members.get(node)?.record;
      const before = seen.get(node);
      if (record) seen.set(node, record);
      // A refutation raises the incarnation by one, a start by more or on another disk: the keeper has forgotten all.
      const jumped = record && before && record.incarnation > before.incarnation + 1;
      const swapped = record?.attributes.storeGeneration !== before?.attributes.storeGeneration;
      if (before && (jumped || swapped)) hangUp(node, context.nowMs());
      if (alive(node)) planSweep();
      else if (context.statusOf(node) !== 'suspect') hangUp(node, context.nowMs());
    },
    doubtAll() {
      for (const node of [...talks.keys()]) hangUp(node, context.nowMs());
      for (const node of context.ring()?.nodes ?? []) doubt(node, context.nowMs());
      planSweep();
    },
    onTimers() {
      const nowMs = context.nowMs();
      if (nowMs >= flushAtMs) flush();
      for (const talk of talks.values()) {
        if (!talk.underWay || nowMs < talk.underWay.sentAtMs + limits.announceRetryMs) continue;
        if (talk.underWay.tries < limits.announceTries) transmit(talk, talk.underWay.message);
        else hangUp(talk.node, nowMs + limits.reconcileMs);
      }
      if (nowMs >= checkAtMs) {
        checkAtMs = nowMs + limits.checkMs;
        const nodes = context.ring()?.nodes ?? [];
        if (nodes.length > 0) doubt(nodes[rng.below(nodes.length)] as NodeId, nowMs);
      }
      if (nowMs >= sweepAtMs) onSweep();
      else planSweepIfIdle();
      pump();
    },
    nextMs() {
      let next = Math.min(flushAtMs, sweepAtMs, checkAtMs);
      for (const talk of talks.values()) {
        if (talk.underWay) next = Math.min(next, talk.underWay.sentAtMs + limits.announceRetryMs);
      }
      return next;
    },
    allocatedBytes: () => own.allocatedBytes(),
  };

  function planSweepIfIdle(): void {
    if (!sweep && sweepAtMs === Number.POSITIVE_INFINITY && (doubted.size > 0 || differing.size > 0)) planSweep();
  }
}

function addTo(sum: Sum, place: Place, times: 1 | -1): void {
  sum.count += times;
  sum.hash ^= mixPlace(place);
}
