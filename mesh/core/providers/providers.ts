/**
 * The provider index of one node as one machine: keeper of others' records, announcer of its own blobs, and finder.
 *
 * @see docs/protocol.md, "Provider index"; docs/adr/0016-provider-index.md
 */
import { type BlobKey, compareIds, type NodeId } from '../ids.ts';
import type { Machine } from '../machine.ts';
import type { MemberStatus } from '../membership/records.ts';
import { createAnnouncer } from './announcer.ts';
import { createBench } from './bench.ts';
import type { Context } from './context.ts';
import { createFinder } from './finder.ts';
import { createKeeper } from './keeper.ts';
import * as limits from './limits.ts';
import { placeOf } from './places.ts';
import type { Ring } from './ring.ts';
import type { ProviderEffect, ProviderEvent, ProviderMessage, ProvidersConfig } from './types.ts';

export interface Providers extends Machine<ProviderEvent, ProviderEffect> {
  /** Records kept for other nodes. */
  records(): number;
  /** Memory of all records, own ones included. */
  recordBytes(): number;
  /** Holders that this node would name now. */
  knows(blob: BlobKey): readonly NodeId[];
  benched(node: NodeId, nowMs: number): boolean;
  /** Nodes that keep records by now; undefined until other members are known. */
  ring(): Ring | undefined;
}

/** Creates the machine. Members that are known already are its first ring. */
export function createProviders(config: ProvidersConfig, nowMs: number): Providers {
  const { self, members } = config;
  let nowInStepMs = nowMs;
  let effects: ProviderEffect[] = [];
  let ring: Ring | undefined;
  /** Members that are alive or suspected. */
  let present = 0;
  let changedAtMs = nowMs;
  let unsettledSinceMs: number | undefined;
  const absentSinceMs = new Map<NodeId, number>();
  let expireAtMs = nowMs + limits.checkMs;
  let wakeAtMs = Number.POSITIVE_INFINITY;

  const context: Context = {
    self,
    rng: config.rng,
    members,
    nowMs: () => nowInStepMs,
    ring: () => ring,
    statusOf: (node) => members.get(node)?.status,
    send: (to, message) => effects.push({ kind: 'send', to, message }),
    note: (note) => effects.push({ kind: 'note', note }),
  };
  const bench = createBench();
  const announcer = createAnnouncer(context, config.generation, places(config.held));
  const keeper = createKeeper(context, (place) => announcer.holds(place));
  const finder = createFinder(
    context,
    (place) => keeper.holders(place, self),
    (node) => bench.has(node, nowInStepMs),
    (effect) => effects.push(effect),
  );

  function here(status: MemberStatus | undefined): boolean {
    return status === 'alive' || status === 'suspect';
  }

  function onMember(node: NodeId, before: MemberStatus | undefined): void {
    const status = context.statusOf(node);
    keeper.memberChanged(node);
    announcer.memberChanged(node);
    if (here(status)) absentSinceMs.delete(node);
    else if (!absentSinceMs.has(node)) absentSinceMs.set(node, nowInStepMs);
    if (here(status) === here(before)) return;
    present += here(status) ? 1 : -1;
    changedAtMs = nowInStepMs;
    unsettledSinceMs ??= nowInStepMs;
  }

  /** When the ring may follow the members. */
  function ringDueMs(): number {
    let dueMs = Number.POSITIVE_INFINITY;
    if (unsettledSinceMs !== undefined) {
      const forming = present > 2 * (ring?.nodes.length ?? 0);
      const quietMs = forming ? limits.formingMs : limits.settleMs;
      dueMs = Math.min(changedAtMs + quietMs, unsettledSinceMs + limits.settleMsMax);
    }
    for (const sinceMs of absentSinceMs.values()) dueMs = Math.min(dueMs, sinceMs + limits.absentMs);
    return dueMs;
  }

  function renewRing(): void {
    unsettledSinceMs = undefined;
    const nodes: NodeId[] = [];
    for (const { record, status } of members.members()) {
      const sinceMs = absentSinceMs.get(record.id);
      if (here(status) || (sinceMs !== undefined && nowInStepMs < sinceMs + limits.absentMs)) nodes.push(record.id);
    }
    for (const [node, sinceMs] of absentSinceMs) {
      if (nowInStepMs >= sinceMs + limits.absentMs) absentSinceMs.delete(node);
    }
    if (nodes.length < 2) return;
    nodes.sort(compareIds);
    if (ring && ring.nodes.length === nodes.length && ring.nodes.every((node, i) => node === nodes[i])) return;
    ring = config.ringOf(nodes);
    announcer.ringChanged();
  }

  function onMessage(from: NodeId, message: ProviderMessage): void {
    switch (message.kind) {
      case 'announce':
        return keeper.announced(from, message);
      case 'announced':
        return announcer.announced(from, message);
      case 'regionsAsked':
        return keeper.regionsAsked(from, message.seq);
      case 'regions':
        return announcer.regions(from, message);
      case 'whoHas':
        return keeper.asked(from, message);
      case 'holders':
        return finder.answered(from, message);
      default:
        message satisfies never;
    }
  }

  function apply(event: ProviderEvent): void {
    switch (event.kind) {
      case 'wake':
        return;
      case 'gap':
        finder.giveUp();
        return announcer.doubtAll();
      case 'message':
        if (event.from !== self) onMessage(event.from, event.message);
        return;
      case 'member':
        return onMember(event.node, event.before);
      case 'stored':
        for (const blob of event.blobs) announcer.changed(placeOf(blob), true);
        return;
      case 'gone':
        for (const blob of event.blobs) announcer.changed(placeOf(blob), false);
        return;
      case 'find':
        return finder.find(event.find, event.blobs, event.thorough);
      case 'stopFind':
        return finder.stop(event.find);
      case 'bench': {
        const { node, reason } = event;
        const forMs = bench.add(node, reason, nowInStepMs);
        if (forMs !== undefined) context.note({ kind: 'benched', node, reason, forMs });
        return;
      }
      default:
        event satisfies never;
    }
  }

  for (const { record, status } of members.members()) {
    if (here(status)) present += 1;
    else absentSinceMs.set(record.id, nowMs);
  }
  renewRing();

  return {
    step(event, now) {
      effects = [];
      nowInStepMs = now;
      apply(event);
      if (now >= ringDueMs()) renewRing();
      announcer.onTimers();
      finder.onTimers();
      if (now >= expireAtMs) {
        expireAtMs = now + limits.checkMs;
        keeper.expire();
      }
      const next = Math.min(ringDueMs(), announcer.nextMs(), finder.nextMs(), expireAtMs);
      if (next !== wakeAtMs || event.kind === 'wake') effects.push({ kind: 'wakeAt', atMs: next });
      wakeAtMs = next;
      return effects;
    },
    records: () => keeper.records().size(),
    recordBytes: () => keeper.records().allocatedBytes() + announcer.allocatedBytes(),
    knows: (blob) => keeper.holders(placeOf(blob), self),
    benched: (node, now) => bench.has(node, now),
    ring: () => ring,
  };
}

function* places(blobs: ProvidersConfig['held']): Generator<number> {
  for (const blob of blobs) yield placeOf(blob);
}
