/**
 * One node's share in sharing blobs: membership, promises, the provider index, keeping, the fetch planner and the upload
 * gate as one machine. It routes messages and answers between them and numbers persists; it decides nothing itself.
 */
import { createErrands } from './errands.ts';
import { createPlanner, type Planner } from './fetch/planner.ts';
import type { FetchEvent, Locality, Part } from './fetch/types.ts';
import { createUploads, type Uploads } from './fetch/uploads.ts';
import type { BlobKey, NodeId } from './ids.ts';
import { createKeeping } from './keeping/keeping.ts';
import type { KeepingEvent } from './keeping/types.ts';
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

/** What each part takes. */
interface Parts {
  membership: MembershipEvent;
  promises: PromiseEvent;
  providers: ProviderEvent;
  keeping: KeepingEvent;
  fetching: FetchEvent;
}

/** Numbers of pins that are kept before those that ended are looked for. */
const pinsPrunedFrom = 1_024;

type FindFor =
  | { readonly kind: 'own'; readonly find: number }
  | { readonly kind: 'fetching' }
  | { readonly kind: 'keeping'; readonly find: number };
type PinFor = { readonly kind: 'own' | 'keeping'; readonly pin: number };

/** Numbers for records of all machines of one node, rising. */
export function createPersistIds(): () => number {
  let last = 0;
  return () => ++last;
}

/**
 * Creates a node from its own records, oldest first. It is silent until its `start` event. `nextPersistId` is the node's,
 * when it has further machines.
 */
export function createSharing(
  config: SharingConfig,
  restored: readonly SharingRecord[],
  nowMs: number,
  nextPersistId = createPersistIds(),
): Sharing {
  const { self, rng } = config;
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

  const errands = createErrands<Parts>({
    membership: stepMembership,
    promises: stepPromises,
    providers: stepProviders,
    keeping: stepKeeping,
    fetching: stepFetching,
  });
  errands.wakeAt('providers', nowMs);
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
          errands.wakeAt('membership', effect.atMs);
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
    errands.add('providers', { kind: 'member', node, before });
    if (node === self) return;
    errands.add('fetching', { kind: 'peer', node, status, locality: localityOf(attributes, record.attributes) });
    if (status === 'alive' || status === 'suspect') return;
    errands.add('keeping', { kind: 'absent', node });
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
          } else if (pin) errands.add('keeping', { kind: 'pinned', pin: pin.pin, forMs: effect.untilMs - nowInStepMs });
          if (pin?.kind === 'keeping') pins.delete(effect.id);
          break;
        }
        case 'pinRefused': {
          const pin = pins.get(effect.id);
          pins.delete(effect.id);
          if (pin?.kind === 'own') {
            ownPins.delete(pin.pin);
            effects.push({ kind: 'pinRefused', pin: pin.pin, blob: effect.blob, reason: effect.reason });
          } else if (pin) errands.add('keeping', { kind: 'pinned', pin: pin.pin, forMs: 0 });
          break;
        }
        case 'reserved':
        case 'reserveRefused':
          effects.push({ kind: effect.kind, reservation: effect.id });
          break;
        case 'evict':
          effects.push(effect);
          errands.add('providers', { kind: 'gone', blobs: [effect.blob] });
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
          errands.wakeAt('providers', effect.atMs);
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
              errands.add('fetching', { kind: 'located', found });
              break;
            case 'keeping':
              errands.add('keeping', { kind: 'found', find: asker.find, found, done });
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
    errands.add('providers', { kind: 'find', find: nextFind, blobs, thorough });
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
    errands.add('promises', { kind: 'pin', id: nextPin, blob, purpose, forMs });
  }

  function stepKeeping(event: KeepingEvent): void {
    for (const effect of keeping.step(event, nowInStepMs)) {
      switch (effect.kind) {
        case 'send':
        case 'secured':
          effects.push(effect);
          break;
        case 'wakeAt':
          errands.wakeAt('keeping', effect.atMs);
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
          errands.wakeAt('fetching', effect.atMs);
          break;
        case 'locate':
          find(effect.blobs, effect.thorough, { kind: 'fetching' });
          break;
        case 'blame':
          errands.add('providers', { kind: 'bench', node: effect.node, reason: effect.reason });
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
    errands.add('promises', { kind: 'stored', blob, sizeBytes });
    errands.add('providers', { kind: 'stored', blobs: [blob] });
  }

  /** A blob is durable here: it counts towards the disk, and others may be told. */
  function onStored(event: Extract<SharingEvent, { kind: 'stored' }>): void {
    const { blob } = event;
    if (!promises.holds(blob)) errands.add('providers', { kind: 'stored', blobs: [blob] });
    errands.add('promises', event);
    errands.add('fetching', { kind: 'stored', blob });
  }

  function onMessage(from: NodeId, message: SharingMessage): void {
    switch (message.kind) {
      case 'ping':
      case 'ack':
      case 'pingRequest':
      case 'nack':
      case 'syncOffer':
      case 'sync':
        return errands.add('membership', { kind: 'message', from, message });
      case 'announce':
      case 'announced':
      case 'regionsAsked':
      case 'regions':
      case 'whoHas':
      case 'holders':
        return errands.add('providers', { kind: 'message', from, message });
      case 'keep':
      case 'kept':
        return errands.add('keeping', { kind: 'message', from, message });
      default:
        message satisfies never;
    }
  }

  function apply(event: SharingEvent): void {
    switch (event.kind) {
      case 'start':
      case 'goodbye':
        errands.add('membership', event);
        return;
      case 'message':
        return onMessage(event.from, event.message);
      case 'wake':
        return;
      case 'gap':
        errands.add('membership', event);
        errands.add('providers', { kind: 'gap' });
        errands.add('keeping', { kind: 'gap' });
        return errands.add('fetching', { kind: 'gap' });
      case 'persisted':
        return errands.add('promises', event);
      case 'attributes':
        attributes = event.attributes;
        errands.add('membership', event);
        for (const { record, status } of membership.members()) {
          if (record.id === self) continue;
          const locality = localityOf(attributes, record.attributes);
          errands.add('fetching', { kind: 'peer', node: record.id, status, locality });
        }
        return;
      case 'stored':
        return onStored(event);
      case 'used':
        return errands.add('promises', event);
      case 'gone':
        errands.add('promises', event);
        errands.add('providers', { kind: 'gone', blobs: [event.blob] });
        uploads.step(event, nowInStepMs);
        return;
      case 'pin':
        return pin(event.blob, event.purpose, event.forMs, { kind: 'own', pin: event.pin });
      case 'unpin': {
        const id = ownPins.get(event.pin);
        ownPins.delete(event.pin);
        if (id === undefined) return;
        pins.delete(id);
        return errands.add('promises', { kind: 'unpin', id });
      }
      case 'reserve':
        return errands.add('promises', { kind: 'reserve', id: event.reservation, sizeBytes: event.sizeBytes });
      case 'release':
        return errands.add('promises', { kind: 'release', id: event.reservation });
      case 'want':
      case 'unwant':
      case 'progress':
      case 'roundTrip':
        return errands.add('fetching', event);
      case 'ended':
        ordered.delete(event.transfer);
        return errands.add('fetching', event);
      case 'part':
        if (event.outcome === 'stored') {
          onFetched(event.blob, ordered.get(event.transfer)?.find(({ blob }) => blob === event.blob)?.lengthBytes);
        }
        return errands.add('fetching', event);
      case 'assembled':
        if (event.outcome === 'stored') onFetched(event.blob, assembling.get(event.blob));
        assembling.delete(event.blob);
        return errands.add('fetching', event);
      case 'find':
        return find(event.blobs, false, { kind: 'own', find: event.find });
      case 'stopFind': {
        const id = ownFinds.get(event.find);
        ownFinds.delete(event.find);
        if (id === undefined) return;
        finds.delete(id);
        return errands.add('providers', { kind: 'stopFind', find: id });
      }
      case 'secure':
        return errands.add('keeping', event);
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
      errands.settle(now);
      const next = errands.nextMs();
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
