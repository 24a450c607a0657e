/**
 * One node's share in sharing blobs: membership, promises, the provider index, keeping, the fetch planner and the upload
 * gate as one machine. It routes messages and answers between them and numbers persists; it decides nothing itself.
 */
import assert from 'node:assert';
import { createPlanner, type Planner } from './fetch/planner.ts';
import type { FetchEvent, Locality, Part } from './fetch/types.ts';
import { createUploads, type Uploads } from './fetch/uploads.ts';
import type { BlobKey, NodeId } from './ids.ts';
import { createKeeping } from './keeping/keeping.ts';
import type { KeepingEvent } from './keeping/types.ts';
import { peerLimits as limits } from './limits.ts';
import type { Machine } from './machine.ts';
import { createMembership, type Member, type Membership, type MembershipEvent } from './membership/membership.ts';
import type { Attributes, MemberStatus } from './membership/records.ts';
import { createPromises, type PromiseEvent, type Promises, type Purpose } from './promises/promises.ts';
import { createProviders, type Providers } from './providers/providers.ts';
import type { ProviderEvent } from './providers/types.ts';
import type { SharingConfig, SharingEffect, SharingEvent, SharingMessage, SharingRecord } from './sharing-types.ts';

export interface Sharing extends Machine<SharingEvent, SharingEffect> {
  readonly membership: Membership;
  readonly promises: Promises;
  readonly providers: Providers;
  readonly planner: Planner;
  readonly uploads: Uploads;
  /** Records from which an equal node can be restored, fewer than were ever written. */
  checkpoint(nowMs: number): SharingRecord[];
}

/** Something for one of the machines. Each machine's effects are dealt with before any machine takes its next event. */
type Errand =
  | { readonly to: 'membership'; readonly event: MembershipEvent }
  | { readonly to: 'promises'; readonly event: PromiseEvent }
  | { readonly to: 'providers'; readonly event: ProviderEvent }
  | { readonly to: 'keeping'; readonly event: KeepingEvent }
  | { readonly to: 'fetching'; readonly event: FetchEvent };

type PartName = 'membership' | 'providers' | 'keeping' | 'fetching';
const parts: readonly PartName[] = ['membership', 'providers', 'keeping', 'fetching'];

/** Numbers of pins that are kept before those that ended are looked for. */
const pinsPrunedFrom = 1_024;

type FindFor =
  | { readonly kind: 'own'; readonly find: number }
  | { readonly kind: 'fetching' }
  | { readonly kind: 'keeping'; readonly find: number };
type PinFor = { readonly kind: 'own' | 'keeping'; readonly pin: number };

/** Creates a node from its own records, oldest first. It is silent until its `start` event. */
export function createSharing(config: SharingConfig, restored: readonly SharingRecord[], nowMs: number): Sharing {
  const { self, rng } = config;
  let persistId = 0;
  const nextPersistId = (): number => ++persistId;
  const membership = createMembership(
    { self, attributes: config.attributes, signer: config.signer, rng: rng.fork('membership'), nextPersistId },
    restored.flatMap((entry) => (entry.of === 'membership' ? [entry.record] : [])),
  );
  const pinRecords = restored.flatMap((entry) => (entry.of === 'promises' ? [entry.record] : []));
  const promises = createPromises(
    { capacityBytes: config.capacityBytes, nextPersistId },
    nowMs,
    config.held,
    pinRecords,
  );
  const providers = createProviders(
    {
      self,
      generation: config.attributes.storeGeneration,
      members: membership,
      ringOf: config.ringOf,
      rng: rng.fork('providers'),
      held: config.held.map(([blob]) => blob),
    },
    nowMs,
  );
  const keeping = createKeeping();
  const planner = createPlanner({ self });
  const uploads = createUploads({ bytesPerSecond: config.uploadBytesPerSecond, uploadsMax: config.uploadsMax }, nowMs);

  const wakes: { [P in PartName]: number } = {
    membership: Number.POSITIVE_INFINITY,
    providers: nowMs,
    keeping: Number.POSITIVE_INFINITY,
    fetching: Number.POSITIVE_INFINITY,
  };
  const errands: Errand[] = [];
  const finds = new Map<number, FindFor>();
  const ownFinds = new Map<number, number>();
  const ordered = new Map<number, readonly Part[]>();
  const assembling = new Map<BlobKey, number>();
  const pins = new Map<number, PinFor>();
  const ownPins = new Map<number, number>();
  let pruneAt = pinsPrunedFrom;
  let nextFind = 0;
  let nextPin = pinRecords.reduce((highest, record) => Math.max(highest, record.id), 0);
  let attributes = config.attributes;
  let wakeAtMs = Number.POSITIVE_INFINITY;
  let nowInStepMs = nowMs;
  let effects: SharingEffect[] = [];

  function toPromises(event: PromiseEvent): void {
    errands.push({ to: 'promises', event });
  }

  function toProviders(event: ProviderEvent): void {
    errands.push({ to: 'providers', event });
  }

  function toKeeping(event: KeepingEvent): void {
    errands.push({ to: 'keeping', event });
  }

  function toFetching(event: FetchEvent): void {
    errands.push({ to: 'fetching', event });
  }

  function stepMembership(event: MembershipEvent): void {
    for (const effect of membership.step(event, nowInStepMs)) {
      switch (effect.kind) {
        case 'send':
          effects.push(effect);
          break;
        case 'persist':
          effects.push({ kind: 'persist', id: effect.id, record: { of: 'membership', record: effect.record } });
          break;
        case 'wakeAt':
          wakes.membership = effect.atMs;
          break;
        case 'memberChanged':
          onMember(effect.member, effect.before);
          break;
        default:
          effect satisfies never;
      }
    }
  }

  function onMember(member: Member, before: MemberStatus | undefined): void {
    const { record, status } = member;
    const node = record.id;
    effects.push({ kind: 'note', note: { kind: 'member', member, before } });
    toProviders({ kind: 'member', node, before });
    if (node === self) return;
    toFetching({ kind: 'peer', node, status, locality: localityOf(attributes, record.attributes) });
    if (status === 'alive' || status === 'suspect') return;
    toKeeping({ kind: 'absent', node });
    uploads.step({ kind: 'absent', node }, nowInStepMs);
  }

  function stepPromises(event: PromiseEvent): void {
    for (const effect of promises.step(event, nowInStepMs)) {
      switch (effect.kind) {
        case 'persist':
          effects.push({ kind: 'persist', id: effect.id, record: { of: 'promises', record: effect.record } });
          break;
        case 'pinned': {
          const pin = pins.get(effect.id);
          if (pin?.kind === 'own') {
            effects.push({ kind: 'pinned', pin: pin.pin, blob: effect.blob, untilMs: effect.untilMs });
          } else if (pin) toKeeping({ kind: 'pinned', pin: pin.pin, forMs: effect.untilMs - nowInStepMs });
          if (pin?.kind === 'keeping') pins.delete(effect.id);
          break;
        }
        case 'pinRefused': {
          const pin = pins.get(effect.id);
          pins.delete(effect.id);
          if (pin?.kind === 'own') {
            ownPins.delete(pin.pin);
            effects.push({ kind: 'pinRefused', pin: pin.pin, blob: effect.blob, reason: effect.reason });
          } else if (pin) toKeeping({ kind: 'pinned', pin: pin.pin, forMs: 0 });
          break;
        }
        case 'reserved':
        case 'reserveRefused':
          effects.push({ kind: effect.kind, reservation: effect.id });
          break;
        case 'evict':
          effects.push(effect);
          toProviders({ kind: 'gone', blobs: [effect.blob] });
          uploads.step({ kind: 'gone', blob: effect.blob }, nowInStepMs);
          break;
        default:
          effect satisfies never;
      }
    }
  }

  function stepProviders(event: ProviderEvent): void {
    for (const effect of providers.step(event, nowInStepMs)) {
      switch (effect.kind) {
        case 'send':
          effects.push(effect);
          break;
        case 'wakeAt':
          wakes.providers = effect.atMs;
          break;
        case 'found': {
          const { found, done } = effect;
          const asker = finds.get(effect.find);
          if (done) finds.delete(effect.find);
          switch (asker?.kind) {
            case undefined:
              break;
            case 'own':
              if (done) ownFinds.delete(asker.find);
              effects.push({ kind: 'found', find: asker.find, found, done });
              break;
            case 'fetching':
              toFetching({ kind: 'located', found });
              break;
            case 'keeping':
              toKeeping({ kind: 'found', find: asker.find, found, done });
              break;
            default:
              asker satisfies never;
          }
          break;
        }
        case 'note':
          effects.push(effect);
          break;
        default:
          effect satisfies never;
      }
    }
  }

  function find(blobs: readonly BlobKey[], thorough: boolean, asker: FindFor): void {
    nextFind += 1;
    finds.set(nextFind, asker);
    if (asker.kind === 'own') ownFinds.set(asker.find, nextFind);
    toProviders({ kind: 'find', find: nextFind, blobs, thorough });
  }

  /** Forgets the numbers of pins that ended by themselves. */
  function prunePins(): void {
    const held = new Set([...promises.pins()].map(({ id }) => id));
    for (const [own, id] of ownPins) {
      if (held.has(id)) continue;
      ownPins.delete(own);
      pins.delete(id);
    }
    pruneAt = Math.max(pinsPrunedFrom, 2 * ownPins.size);
  }

  function pin(blob: BlobKey, purpose: Purpose, forMs: number, pinFor: PinFor): void {
    if (ownPins.size >= pruneAt) prunePins();
    nextPin += 1;
    pins.set(nextPin, pinFor);
    if (pinFor.kind === 'own') ownPins.set(pinFor.pin, nextPin);
    toPromises({ kind: 'pin', id: nextPin, blob, purpose, forMs });
  }

  function stepKeeping(event: KeepingEvent): void {
    for (const effect of keeping.step(event, nowInStepMs)) {
      switch (effect.kind) {
        case 'send':
        case 'secured':
          effects.push(effect);
          break;
        case 'wakeAt':
          wakes.keeping = effect.atMs;
          break;
        case 'find':
          find(effect.blobs, true, { kind: 'keeping', find: effect.find });
          break;
        case 'pin':
          pin(effect.blob, 'replica', effect.forMs, { kind: 'keeping', pin: effect.pin });
          break;
        default:
          effect satisfies never;
      }
    }
  }

  function stepFetching(event: FetchEvent): void {
    for (const effect of planner.step(event, nowInStepMs)) {
      switch (effect.kind) {
        case 'wakeAt':
          wakes.fetching = effect.atMs;
          break;
        case 'locate':
          find(effect.blobs, effect.thorough, { kind: 'fetching' });
          break;
        case 'blame':
          toProviders({ kind: 'bench', node: effect.node, reason: effect.reason });
          break;
        case 'transfer':
          ordered.set(effect.transfer, effect.parts);
          effects.push(effect);
          break;
        case 'cancelTransfer':
          ordered.delete(effect.transfer);
          effects.push(effect);
          break;
        case 'assemble':
          assembling.set(effect.blob, planner.sizeOf(effect.blob) ?? 0);
          effects.push(effect);
          break;
        case 'discard':
        case 'fetched':
        case 'failed':
        case 'note':
          effects.push(effect);
          break;
        default:
          effect satisfies never;
      }
    }
  }

  /** A blob that was ordered is durable here, whether or not somebody still wants it. */
  function onFetched(blob: BlobKey, sizeBytes: number | undefined): void {
    if (sizeBytes === undefined || promises.holds(blob)) return;
    toPromises({ kind: 'stored', blob, sizeBytes });
    toProviders({ kind: 'stored', blobs: [blob] });
  }

  /** A blob is durable here: it counts towards the disk, and others may be told. */
  function onStored(event: Extract<SharingEvent, { kind: 'stored' }>): void {
    const { blob, sizeBytes, reservation } = event;
    if (!promises.holds(blob)) toProviders({ kind: 'stored', blobs: [blob] });
    toPromises({ kind: 'stored', blob, sizeBytes, ...(reservation === undefined ? {} : { reservation }) });
    toFetching({ kind: 'stored', blob });
  }

  function onMessage(from: NodeId, message: SharingMessage): void {
    switch (message.kind) {
      case 'ping':
      case 'ack':
      case 'pingRequest':
      case 'nack':
      case 'syncOffer':
      case 'sync':
        errands.push({ to: 'membership', event: { kind: 'message', from, message } });
        return;
      case 'announce':
      case 'announced':
      case 'regionsAsked':
      case 'regions':
      case 'whoHas':
      case 'holders':
        return toProviders({ kind: 'message', from, message });
      case 'keep':
      case 'kept':
        return toKeeping({ kind: 'message', from, message });
      default:
        message satisfies never;
    }
  }

  function apply(event: SharingEvent): void {
    switch (event.kind) {
      case 'start':
      case 'goodbye':
        errands.push({ to: 'membership', event });
        return;
      case 'message':
        return onMessage(event.from, event.message);
      case 'wake':
        return;
      case 'gap':
        errands.push({ to: 'membership', event });
        toProviders({ kind: 'gap' });
        toKeeping({ kind: 'gap' });
        return toFetching({ kind: 'gap' });
      case 'persisted':
        return toPromises(event);
      case 'attributes':
        attributes = event.attributes;
        errands.push({ to: 'membership', event });
        for (const { record, status } of membership.members()) {
          if (record.id === self) continue;
          const locality = localityOf(attributes, record.attributes);
          toFetching({ kind: 'peer', node: record.id, status, locality });
        }
        return;
      case 'stored':
        return onStored(event);
      case 'used':
        return toPromises(event);
      case 'gone':
        toPromises(event);
        toProviders({ kind: 'gone', blobs: [event.blob] });
        uploads.step(event, nowInStepMs);
        return;
      case 'pin':
        return pin(event.blob, event.purpose, event.forMs, { kind: 'own', pin: event.pin });
      case 'unpin': {
        const id = ownPins.get(event.pin);
        ownPins.delete(event.pin);
        if (id === undefined) return;
        pins.delete(id);
        return toPromises({ kind: 'unpin', id });
      }
      case 'reserve':
        return toPromises({ kind: 'reserve', id: event.reservation, sizeBytes: event.sizeBytes });
      case 'release':
        return toPromises({ kind: 'release', id: event.reservation });
      case 'want':
      case 'unwant':
      case 'progress':
      case 'roundTrip':
        return toFetching(event);
      case 'ended':
        ordered.delete(event.transfer);
        return toFetching(event);
      case 'part':
        if (event.outcome === 'stored') {
          onFetched(event.blob, ordered.get(event.transfer)?.find(({ blob }) => blob === event.blob)?.lengthBytes);
        }
        return toFetching(event);
      case 'assembled':
        if (event.outcome === 'stored') onFetched(event.blob, assembling.get(event.blob));
        assembling.delete(event.blob);
        return toFetching(event);
      case 'find':
        return find(event.blobs, false, { kind: 'own', find: event.find });
      case 'stopFind': {
        const id = ownFinds.get(event.find);
        ownFinds.delete(event.find);
        if (id === undefined) return;
        finds.delete(id);
        return toProviders({ kind: 'stopFind', find: id });
      }
      case 'secure':
        return toKeeping(event);
      case 'asked': {
        const { upload, to, parts: wanted } = event;
        effects.push(...uploads.step({ kind: 'asked', upload, to, parts: wanted }, nowInStepMs));
        return;
      }
      case 'sent':
        uploads.step(event, nowInStepMs);
        return;
      default:
        event satisfies never;
    }
  }

  function run(errand: Errand): void {
    switch (errand.to) {
      case 'membership':
        return stepMembership(errand.event);
      case 'promises':
        return stepPromises(errand.event);
      case 'providers':
        return stepProviders(errand.event);
      case 'keeping':
        return stepKeeping(errand.event);
      case 'fetching':
        return stepFetching(errand.event);
      default:
        errand satisfies never;
    }
  }

  function wakePart(part: PartName): void {
    wakes[part] = Number.POSITIVE_INFINITY;
    errands.push({ to: part, event: { kind: 'wake' } });
  }

  /** Runs errands and wakes whatever is due, until nothing is left to do at this moment. */
  function settle(): void {
    for (let turns = 0; ; turns++) {
      assert(turns < limits.turnsMax, 'the machines of a node keep each other busy without time passing');
      for (let i = 0; i < errands.length; i++) run(errands[i] as Errand);
      errands.length = 0;
      const due = parts.find((part) => wakes[part] <= nowInStepMs);
      if (!due) return;
      wakePart(due);
    }
  }

  return {
    membership,
    promises,
    providers,
    planner,
    uploads,
    step(event, now) {
      effects = [];
      nowInStepMs = now;
      apply(event);
      settle();
      const next = Math.min(wakes.membership, wakes.providers, wakes.keeping, wakes.fetching);
      if (next !== wakeAtMs || event.kind === 'wake') effects.push({ kind: 'wakeAt', atMs: next });
      wakeAtMs = next;
      return effects;
    },
    checkpoint: (now) => [
      ...membership.checkpoint().map((record) => ({ of: 'membership' as const, record })),
      ...promises.checkpoint(now).map((record) => ({ of: 'promises' as const, record })),
    ],
  };
}

/** How near two nodes are, by what they say of themselves; one host has one address and several ports. */
function localityOf(own: Attributes, other: Attributes): Locality {
  if (hostOf(own.dataAddress) === hostOf(other.dataAddress)) return 'host';
  if (own.site !== other.site) return 'other';
  return own.subnet === other.subnet ? 'subnet' : 'site';
}

function hostOf(address: string): string {
  const colon = address.lastIndexOf(':');
  return colon < 0 ? address : address.slice(0, colon);
}
