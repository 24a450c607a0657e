/**
 * Who is in the mesh and alive: SWIM probing with Lifeguard's self-doubt, refutation by signed incarnations, goodbyes,
 * and reconciliation of whole views after partitions.
 *
 * @see A. Das, I. Gupta, A. Motivala: SWIM (2002); A. Dadgar, J. Phillips, J. Currey: Lifeguard (2017)
 */
import type { NodeId } from '../ids.ts';
import type { Machine } from '../machine.ts';
import type { Rng } from '../rng.ts';
import * as limits from './limits.ts';
import type { MembershipMessage } from './messages.ts';
import {
  type Attributes,
  fingerprint,
  type MemberRecord,
  type MemberStatus,
  overrides,
  type Presence,
  type RecordSigner,
  type Rumour,
  statusOf,
  type Verdict,
} from './records.ts';

/** What this machine keeps on disk: no incarnation above it has been used. */
export interface MembershipRecord {
  readonly kind: 'incarnations';
  readonly reservedTo: number;
}

export type MembershipEvent =
  | { readonly kind: 'start'; readonly contacts: readonly NodeId[] }
  | { readonly kind: 'message'; readonly from: NodeId; readonly message: MembershipMessage }
  | { readonly kind: 'wake' }
  /** The machine was suspended and its clock shows it; delivered before anything else. */
  | { readonly kind: 'gap'; readonly gapMs: number }
  | { readonly kind: 'attributes'; readonly attributes: Attributes }
  | { readonly kind: 'goodbye'; readonly presence: 'suspended' | 'left' };

export type MembershipEffect =
  | { readonly kind: 'persist'; readonly id: number; readonly record: MembershipRecord }
  | { readonly kind: 'send'; readonly to: NodeId; readonly message: MembershipMessage; readonly after?: number }
  | { readonly kind: 'wakeAt'; readonly atMs: number }
  /** The status or the record of a member changed in this node's view. */
  | { readonly kind: 'memberChanged'; readonly member: Member; readonly before: MemberStatus | undefined };

export interface Member {
  readonly record: MemberRecord;
  readonly status: MemberStatus;
}

export interface MembershipConfig {
  readonly self: NodeId;
  readonly attributes: Attributes;
  readonly signer: RecordSigner;
  readonly rng: Rng;
  /** Ids of persists, rising over all machines of the node. */
  readonly nextPersistId: () => number;
}

export interface Membership extends Machine<MembershipEvent, MembershipEffect> {
  /** This node's own record. */
  self(): MemberRecord;
  get(id: NodeId): Member | undefined;
  status(id: NodeId): MemberStatus | undefined;
  /** Every known member, this node included, in the order they became known. */
  members(): IterableIterator<Member>;
  /** Equal in two nodes whose views agree, suspicion aside. */
  summary(): number;
  selfDoubt(): number;
  /** Rumours that still wait to be passed on. */
  rumoursWaiting(): number;
  checkpoint(): readonly MembershipRecord[];
}

interface Entry {
  record: MemberRecord;
  verdict: Verdict;
  status: MemberStatus;
  /** Who accuses the present incarnation; the first of them started the suspicion. */
  accusers: NodeId[];
  suspectSinceMs: number;
  /** Times that the present saying has still to be passed on; zero when it is old news. */
  transmitsLeft: number;
  absentSinceMs: number;
  member: Member;
}

interface Probe {
  readonly target: NodeId;
  readonly seq: number;
  indirectAtMs: number;
  endsAtMs: number;
  indirect: boolean;
  /** Whom this node asked to probe in its place, and who of them has said nothing at all. */
  readonly helpers: Set<NodeId>;
  readonly silent: Set<NodeId>;
}

interface Relay {
  readonly target: NodeId;
  readonly seq: number;
  readonly asker: NodeId;
  readonly askerSeq: number;
  readonly nackAtMs: number;
  nacked: boolean;
}

/** Bits needed to count the members: the log n of every bound here. */
export function doublings(members: number): number {
  return Math.max(1, 32 - Math.clz32(Math.max(1, members - 1)));
}

/** Creates the machine; `restored` are its own records, oldest first. It is silent until its `start` event. */
export function createMembership(config: MembershipConfig, restored: readonly MembershipRecord[] = []): Membership {
  const { self, signer, rng } = config;
  const entries = new Map<NodeId, Entry>();
  const suspects = new Set<NodeId>();
  const absent = new Set<NodeId>();
  const news = new Set<NodeId>();
  const relays: Relay[] = [];
  let probeOrder: NodeId[] = [];
  let probe: Probe | undefined;
  let attributes = config.attributes;
  let presence: Presence = 'here';
  let reservedTo = restored.at(-1)?.reservedTo ?? 0;
  let incarnation = reservedTo + 1;
  let own: MemberRecord = signer.sign({ id: self, incarnation, presence, attributes });
  let summary = 0;
  let selfDoubt = 0;
  let seq = 0;
  let unsyncedId: number | undefined;
  let started = false;
  let nextProbeAtMs = 0;
  let wakeAtMs = Number.POSITIVE_INFINITY;
  let periods = 0;
  let contacts: readonly NodeId[] = [];
  let effects: MembershipEffect[] = [];

  function send(to: NodeId, message: MembershipMessage): void {
    effects.push(
      unsyncedId === undefined ? { kind: 'send', to, message } : { kind: 'send', to, message, after: unsyncedId },
    );
  }

  function aliveCount(): number {
    return entries.size - absent.size;
  }

  function reserve(): void {
    if (incarnation < reservedTo) return;
    reservedTo = incarnation + limits.incarnationReserve;
    unsyncedId = config.nextPersistId();
    effects.push({ kind: 'persist', id: unsyncedId, record: { kind: 'incarnations', reservedTo } });
  }

  /** Speaks anew about this node, above every incarnation that anyone has seen of it. */
  function renewOwn(above: number): void {
    incarnation = Math.max(incarnation, above) + 1;
    reserve();
    own = signer.sign({ id: self, incarnation, presence, attributes });
    place({ record: own, verdict: 'here', by: self }, 0);
  }

  /** Stores a saying that is known to override what was held, and makes it news. */
  function place(rumour: Rumour, nowMs: number): Entry {
    const { record, verdict } = rumour;
    const before = entries.get(record.id);
    const status = statusOf(record, verdict);
    if (before) summary ^= fingerprint(before.record, before.verdict);
    summary ^= fingerprint(record, verdict);
    const entry: Entry = {
      record,
      verdict,
      status,
      accusers: verdict === 'here' ? [] : [rumour.by],
      suspectSinceMs: nowMs,
      transmitsLeft: limits.transmitsPerDoubling * doublings(entries.size),
      absentSinceMs: nowMs,
      member: { record, status },
    };
    entries.set(record.id, entry);
    addNews(record.id);
    if (status === 'suspect') suspects.add(record.id);
    else suspects.delete(record.id);
    if (status === 'alive' || status === 'suspect') absent.delete(record.id);
    else absent.add(record.id);
    if (!before && record.id !== self) {
      // A newcomer enters the present round at a random place, so that the mesh does not probe it all at once.
      probeOrder.splice(rng.below(probeOrder.length + 1), 0, record.id);
    }
    if (before?.status !== status || before.record !== record) {
      effects.push({ kind: 'memberChanged', member: entry.member, before: before?.status });
    }
    return entry;
  }

  function addNews(id: NodeId): void {
    news.delete(id);
    news.add(id);
    // The oldest has been passed on most; whoever missed it learns of it by reconciling.
    for (const oldest of news) {
      if (news.size <= limits.newsMax) break;
      news.delete(oldest);
    }
  }

  function forgetLongAbsent(): void {
    while (entries.size > limits.membersMax && absent.size > 0) {
      const [id] = absent;
      const entry = entries.get(id as NodeId) as Entry;
      summary ^= fingerprint(entry.record, entry.verdict);
      entries.delete(entry.record.id);
      absent.delete(entry.record.id);
      news.delete(entry.record.id);
    }
  }

  function heard(rumour: Rumour, nowMs: number): void {
    const { record } = rumour;
    if (record.id === self) return heardOfSelf(rumour);
    const entry = entries.get(record.id);
    if (!entry) {
      if (!signer.verify(record)) return;
      place(rumour, nowMs);
      forgetLongAbsent();
      return;
    }
    const known = entry.record.incarnation === record.incarnation;
    if (known && rumour.verdict === 'suspect' && entry.verdict === 'suspect') return confirm(entry, rumour.by);
    const held: Rumour = { record: entry.record, verdict: entry.verdict, by: self };
    if (!overrides(rumour, held)) return;
    if (!known && !signer.verify(record)) return;
    // The death of somebody we hold alive is believed only after it had time to answer: after a split both halves say so.
    if (rumour.verdict === 'dead' && entry.status === 'alive') {
      const suspected = place({ record: known ? entry.record : record, verdict: 'suspect', by: rumour.by }, nowMs);
      suspected.accusers.length = 0;
      for (let i = 0; i < limits.confirmationsMax; i++) suspected.accusers.push(rumour.by);
      return;
    }
    place(known ? { record: entry.record, verdict: rumour.verdict, by: rumour.by } : rumour, nowMs);
  }

  function confirm(entry: Entry, by: NodeId): void {
    if (entry.accusers.length >= limits.confirmationsMax || entry.accusers.includes(by)) return;
    entry.accusers.push(by);
    // Lifeguard passes on the first few independent accusations, because each shortens the suspicion everywhere.
    entry.transmitsLeft = limits.transmitsPerDoubling * doublings(entries.size);
    addNews(entry.record.id);
  }

  function heardOfSelf(rumour: Rumour): void {
    const { record, verdict } = rumour;
    if (record.incarnation < incarnation) return;
    const mine = record.incarnation === incarnation && record.signature === own.signature;
    if (mine && (verdict === 'here' || presence !== 'here')) return;
    // Either an accusation, or a record that an earlier life of this node made and this life does not know of.
    if (!mine && !signer.verify(record)) return;
    if (mine) doubtMore();
    renewOwn(record.incarnation);
  }

  function doubtMore(): void {
    selfDoubt = Math.min(limits.selfDoubtMax, selfDoubt + 1);
  }

  /** Takes the freshest news first: what has been passed on least. The subject itself is told what is said of it. */
  function rumoursFor(to: NodeId): Rumour[] {
    const rumours: Rumour[] = [];
    const about = entries.get(to);
    if (about && about.verdict !== 'here') rumours.push(said(about));
    if (news.size === 0) return rumours;
    const chosen: Entry[] = [];
    for (const id of news) {
      const entry = entries.get(id) as Entry;
      let at = chosen.length;
      while (at > 0 && (chosen[at - 1] as Entry).transmitsLeft < entry.transmitsLeft) at -= 1;
      if (at < limits.rumoursPerMessage) chosen.splice(at, 0, entry);
      if (chosen.length > limits.rumoursPerMessage) chosen.pop();
    }
    for (const entry of chosen) {
      entry.transmitsLeft -= 1;
      if (entry.transmitsLeft <= 0) news.delete(entry.record.id);
      if (entry !== about || entry.verdict === 'here') rumours.push(said(entry));
    }
    return rumours.slice(0, limits.rumoursPerMessage);
  }

  function said(entry: Entry): Rumour {
    return { record: entry.record, verdict: entry.verdict, by: entry.accusers.at(-1) ?? self };
  }

  function sendView(to: NodeId, reply: boolean): void {
    let part: Rumour[] = [];
    for (const entry of entries.values()) {
      part.push(said(entry));
      if (part.length === limits.syncRumours) {
        send(to, { kind: 'sync', reply: false, rumours: part });
        part = [];
      }
    }
    send(to, { kind: 'sync', reply, rumours: part });
  }

  function randomOf(candidates: Iterable<NodeId>, count: number, except: NodeId | undefined): NodeId[] {
    const pool: NodeId[] = [];
    for (const id of candidates) if (id !== self && id !== except) pool.push(id);
    const taken: NodeId[] = [];
    while (taken.length < count && pool.length > 0) {
      const at = rng.below(pool.length);
      taken.push(pool[at] as NodeId);
      pool[at] = pool[pool.length - 1] as NodeId;
      pool.pop();
    }
    return taken;
  }

  function* present(): Generator<NodeId> {
    for (const [id, entry] of entries) if (entry.status === 'alive') yield id;
  }

  function nextTarget(): NodeId | undefined {
    for (let turn = 0; turn < 2; turn++) {
      while (probeOrder.length > 0) {
        const id = probeOrder.pop() as NodeId;
        const status = entries.get(id)?.status;
        if (status === 'alive' || status === 'suspect') return id;
      }
      probeOrder = randomOf(entries.keys(), entries.size, undefined);
    }
    return undefined;
  }

  function startProbe(nowMs: number): void {
    nextProbeAtMs = nowMs + limits.periodMs * (selfDoubt + 1);
    periods += 1;
    const target = nextTarget();
    if (target !== undefined) {
      probe = {
        target,
        seq: ++seq,
        indirectAtMs: nowMs + limits.probeTimeoutMs * (selfDoubt + 1),
        endsAtMs: nextProbeAtMs,
        indirect: false,
        helpers: new Set(),
        silent: new Set(),
      };
      send(target, { kind: 'ping', seq, rumours: rumoursFor(target) });
    }
    if (periods % limits.syncPeriods === 0) {
      for (const id of randomOf(present(), 1, undefined)) {
        send(id, { kind: 'syncOffer', summary, rumours: rumoursFor(id) });
      }
    }
    if (periods % limits.absentProbePeriods === 0) {
      const pool = absent.size > 0 ? absent : entries.size < 2 ? contacts : [];
      for (const id of randomOf(pool, 1, undefined)) send(id, { kind: 'ping', seq: ++seq, rumours: callTo(id) });
    }
  }

  /** What somebody absent is told: what is believed of it, and who calls. */
  function callTo(id: NodeId): Rumour[] {
    const entry = entries.get(id);
    const me: Rumour = { record: own, verdict: 'here', by: self };
    return entry ? [said(entry), me] : [me];
  }

  function goIndirect(running: Probe): void {
    running.indirect = true;
    for (const id of randomOf(present(), limits.indirectProbes, running.target)) {
      running.helpers.add(id);
      running.silent.add(id);
      send(id, { kind: 'pingRequest', seq: running.seq, target: running.target, rumours: rumoursFor(id) });
    }
  }

  function endProbe(failed: Probe, nowMs: number): void {
    // Helpers that answer nothing at all suggest that this node is the one cut off.
    if (failed.silent.size > 0) doubtMore();
    const entry = entries.get(failed.target);
    if (!entry || entry.status === 'dead') return;
    if (entry.status === 'suspect') return confirm(entry, self);
    if (entry.status === 'alive') place({ record: entry.record, verdict: 'suspect', by: self }, nowMs);
  }

  function suspicionMs(entry: Entry): number {
    const unit = limits.periodMs * doublings(aliveCount());
    const [min, max] = [limits.suspicionPeriodsMin * unit, limits.suspicionPeriodsMax * unit];
    const confirmed = Math.min(entry.accusers.length - 1, limits.confirmationsMax - 1);
    return (max - Math.trunc(((max - min) * confirmed) / (limits.confirmationsMax - 1))) * (selfDoubt + 1);
  }

  function onTimers(nowMs: number): void {
    if (nowMs - wakeAtMs > limits.lateWakeMs) {
      // This node stood still: everything it waited for may lie unread in its queues.
      doubtMore();
      const lateMs = nowMs - wakeAtMs;
      if (probe) {
        probe.indirectAtMs += lateMs;
        probe.endsAtMs += lateMs;
        nextProbeAtMs = probe.endsAtMs;
      }
      for (const id of suspects) (entries.get(id) as Entry).suspectSinceMs += lateMs;
    }
    if (probe && !probe.indirect && nowMs >= probe.indirectAtMs) goIndirect(probe);
    if (probe && nowMs >= probe.endsAtMs) {
      endProbe(probe, nowMs);
      probe = undefined;
    }
    for (const id of suspects) {
      const entry = entries.get(id) as Entry;
      if (nowMs >= entry.suspectSinceMs + suspicionMs(entry)) {
        place({ record: entry.record, verdict: 'dead', by: self }, nowMs);
      }
    }
    for (const relay of relays) {
      if (relay.nacked || nowMs < relay.nackAtMs) continue;
      relay.nacked = true;
      send(relay.asker, { kind: 'nack', seq: relay.askerSeq, rumours: rumoursFor(relay.asker) });
    }
    while (relays[0]?.nacked) relays.shift();
    if (nowMs >= nextProbeAtMs) startProbe(nowMs);
  }

  function onMessage(from: NodeId, message: MembershipMessage, nowMs: number): void {
    for (const rumour of message.rumours) heard(rumour, nowMs);
    const known = entries.get(from);
    switch (message.kind) {
      case 'ping': {
        const rumours = rumoursFor(from);
        // Somebody held absent, or unknown, is called back with what it must refute or answer.
        const called = known?.status === 'alive' || rumours.some(({ record }) => record === own);
        if (!called && rumours.length < limits.rumoursPerMessage) {
          rumours.push({ record: own, verdict: 'here', by: self });
        }
        send(from, { kind: 'ack', seq: message.seq, rumours });
        if (!known) send(from, { kind: 'syncOffer', summary, rumours: callTo(from) });
        return;
      }
      case 'ack':
        return onAck(from, message.seq, nowMs);
      case 'nack':
        if (probe?.seq === message.seq) probe.silent.delete(from);
        return;
      case 'pingRequest':
        if (relays.length >= limits.relaysMax) return;
        seq += 1;
        relays.push({
          target: message.target,
          seq,
          asker: from,
          askerSeq: message.seq,
          nackAtMs: nowMs + limits.probeTimeoutMs,
          nacked: false,
        });
        send(message.target, { kind: 'ping', seq, rumours: rumoursFor(message.target) });
        return;
      case 'syncOffer':
        if (message.summary !== summary) sendView(from, true);
        return;
      case 'sync':
        if (message.reply) sendView(from, false);
        return;
      default:
        message satisfies never;
    }
  }

  function onAck(from: NodeId, ackSeq: number, nowMs: number): void {
    // Numbers are easily guessed: only who was asked can say that the target lives.
    if (probe?.seq === ackSeq && (from === probe.target || probe.helpers.has(from))) {
      probe = undefined;
      selfDoubt = Math.max(0, selfDoubt - 1);
      nextProbeAtMs = Math.min(nextProbeAtMs, nowMs + limits.periodMs * (selfDoubt + 1));
      return;
    }
    const at = relays.findIndex((relay) => relay.seq === ackSeq && relay.target === from);
    if (at >= 0) {
      const [relay] = relays.splice(at, 1) as [Relay];
      send(relay.asker, { kind: 'ack', seq: relay.askerSeq, rumours: rumoursFor(relay.asker) });
      return;
    }
    // An answer from somebody absent: the halves of a split meet here.
    if (absent.has(from) || entries.size < 2) send(from, { kind: 'syncOffer', summary, rumours: callTo(from) });
  }

  /** Whom a goodbye goes to: those held alive; a node that doubts everybody tells some of them all the same. */
  function farewells(): NodeId[] {
    const told = randomOf(present(), limits.indirectProbes, undefined);
    for (const doubted of [suspects, absent]) {
      for (const id of randomOf(doubted, limits.indirectProbes, undefined)) {
        if (told.length < limits.indirectProbes && !told.includes(id)) told.push(id);
      }
    }
    return told;
  }

  function greet(): void {
    const others = randomOf(present(), limits.indirectProbes, undefined);
    for (const id of others.length > 0 ? others : randomOf(contacts, limits.indirectProbes, undefined)) {
      send(id, { kind: 'syncOffer', summary, rumours: callTo(id) });
    }
  }

  function apply(event: MembershipEvent, nowMs: number): void {
    switch (event.kind) {
      case 'start':
        started = true;
        contacts = event.contacts;
        reserve();
        place({ record: own, verdict: 'here', by: self }, nowMs);
        greet();
        nextProbeAtMs = nowMs + rng.below(limits.periodMs);
        return;
      case 'message':
        if (event.from !== self) onMessage(event.from, event.message, nowMs);
        return;
      case 'wake':
        return;
      case 'gap':
        selfDoubt = limits.selfDoubtMax;
        probe = undefined;
        relays.length = 0;
        wakeAtMs = Number.POSITIVE_INFINITY;
        for (const id of suspects) (entries.get(id) as Entry).suspectSinceMs = nowMs;
        presence = 'here';
        renewOwn(incarnation);
        greet();
        nextProbeAtMs = nowMs + rng.below(limits.periodMs);
        return;
      case 'attributes':
        attributes = event.attributes;
        renewOwn(incarnation);
        return;
      case 'goodbye': {
        presence = event.presence;
        renewOwn(incarnation);
        const rumours: Rumour[] = [{ record: own, verdict: 'here', by: self }];
        for (const id of farewells()) send(id, { kind: 'sync', reply: false, rumours });
        return;
      }
      default:
        event satisfies never;
    }
  }

  return {
    step(event, nowMs) {
      effects = [];
      if (!started && event.kind === 'attributes') {
        attributes = event.attributes;
        own = signer.sign({ id: self, incarnation, presence, attributes });
      }
      if (!started && event.kind !== 'start') return effects;
      apply(event, nowMs);
      if (presence === 'here') {
        onTimers(nowMs);
        let next = nextProbeAtMs;
        if (probe) next = Math.min(next, probe.indirect ? probe.endsAtMs : probe.indirectAtMs);
        for (const relay of relays) if (!relay.nacked) next = Math.min(next, relay.nackAtMs);
        for (const id of suspects) {
          const entry = entries.get(id) as Entry;
          next = Math.min(next, entry.suspectSinceMs + suspicionMs(entry));
        }
        if (next !== wakeAtMs || event.kind === 'wake') effects.push({ kind: 'wakeAt', atMs: next });
        wakeAtMs = next;
      }
      return effects;
    },
    self: () => own,
    get: (id) => entries.get(id)?.member,
    status: (id) => entries.get(id)?.status,
    *members() {
      for (const entry of entries.values()) yield entry.member;
    },
    summary: () => summary,
    selfDoubt: () => selfDoubt,
    rumoursWaiting: () => news.size,
    checkpoint: () => [{ kind: 'incarnations', reservedTo }],
  };
}
