/**
 * The messages of the machines as protobuf, and back. What comes from a member is checked here, once: known kinds, whole
 * numbers, bounded lists and texts.
 */
import { type MessageInitShape, create, fromBinary, toBinary } from '@bufbuild/protobuf';
import {
  type Control,
  ControlSchema,
  type Keeping,
  type MemberRecord as WireRecord,
  type Provider,
  type Rumour as WireRumour,
  type Swim,
  type SwimSchema,
} from '../../../protos/gen/potluck/mesh/v1/control_pb.ts';
import * as wire from '../../../protos/gen/potluck/mesh/v1/control_pb.ts';
import type { KeepingMessage } from '../../core/keeping/types.ts';
import type { MembershipMessage } from '../../core/membership/messages.ts';
import type { Attributes, MemberRecord, Presence, Rumour, Verdict } from '../../core/membership/records.ts';
import type { ProviderMessage } from '../../core/providers/types.ts';
import type { SharingMessage } from '../../core/sharing-types.ts';
import * as limits from './limits.ts';

export type ControlBody = NonNullable<MessageInitShape<typeof ControlSchema>['message']>;

export function encodeControl(message: ControlBody): Uint8Array {
  return toBinary(ControlSchema, create(ControlSchema, { message }));
}

/** Throws for bytes that are no message of ours. */
export function decodeControl(bytes: Uint8Array): Control['message'] {
  return fromBinary(ControlSchema, bytes).message;
}

/** A machine's message as the body of a frame. */
export function bodyOf(message: SharingMessage): ControlBody {
  switch (message.kind) {
    case 'ping':
    case 'ack':
    case 'pingRequest':
    case 'nack':
    case 'syncOffer':
    case 'sync':
      return { case: 'swim', value: swimOf(message) };
    case 'keep':
    case 'kept':
      return { case: 'keeping', value: keepingOf(message) };
    case 'announce':
    case 'announced':
    case 'regionsAsked':
    case 'regions':
    case 'whoHas':
    case 'holders':
      return {
        case: 'provider',
        value: { message: providerOf(message) } as MessageInitShape<typeof wire.ProviderSchema>,
      };
    default:
      return message satisfies never;
  }
}

/** The machine's message in a frame; `undefined` for frames that are none. Throws for one that breaks a rule. */
export function messageIn(body: Control['message']): SharingMessage | undefined {
  switch (body.case) {
    case 'swim':
      return swimIn(body.value);
    case 'provider':
      return providerIn(body.value);
    case 'keeping':
      return keepingIn(body.value);
    default:
      return undefined;
  }
}

const swimKinds = {
  ping: wire.Swim_Kind.PING,
  ack: wire.Swim_Kind.ACK,
  pingRequest: wire.Swim_Kind.PING_REQUEST,
  nack: wire.Swim_Kind.NACK,
  syncOffer: wire.Swim_Kind.SYNC_OFFER,
  sync: wire.Swim_Kind.SYNC,
} as const;
const verdicts = {
  here: wire.Rumour_Verdict.HERE,
  suspect: wire.Rumour_Verdict.SUSPECT,
  dead: wire.Rumour_Verdict.DEAD,
} as const satisfies Record<Verdict, number>;
const presences = {
  here: wire.MemberRecord_Presence.PRESENT,
  suspended: wire.MemberRecord_Presence.SUSPENDED,
  left: wire.MemberRecord_Presence.LEFT,
} as const satisfies Record<Presence, number>;
const coordinators = {
  'always-on': wire.Attributes_Coordinator.ALWAYS_ON,
  eligible: wire.Attributes_Coordinator.ELIGIBLE,
  never: wire.Attributes_Coordinator.NEVER,
} as const satisfies Record<Attributes['coordinator'], number>;

function swimOf(message: MembershipMessage): MessageInitShape<typeof SwimSchema> {
  const rumours = message.rumours.map(rumourOf);
  const kind = swimKinds[message.kind];
  switch (message.kind) {
    case 'pingRequest':
      return { kind, rumours, seq: message.seq, target: message.target };
    case 'syncOffer':
      return { kind, rumours, summary: message.summary | 0 };
    case 'sync':
      return { kind, rumours, reply: message.reply };
    case 'ping':
    case 'ack':
    case 'nack':
      return { kind, rumours, seq: message.seq };
    default:
      return message satisfies never;
  }
}

function rumourOf({ record, verdict, by }: Rumour): MessageInitShape<typeof wire.RumourSchema> {
  const { power, coordinator, ...attributes } = record.attributes;
  return {
    verdict: verdicts[verdict],
    by,
    record: {
      id: record.id,
      incarnation: record.incarnation,
      presence: presences[record.presence],
      signature: record.signature,
      attributes: { ...attributes, battery: power === 'battery', coordinator: coordinators[coordinator] },
    },
  };
}

function swimIn({ kind, seq, target, summary, reply, rumours: wireRumours }: Swim): MembershipMessage {
  const rumours = bounded(wireRumours, limits.rumoursMax).map(rumourIn);
  switch (keyOf(swimKinds, kind)) {
    case 'ping':
      return { kind: 'ping', seq, rumours };
    case 'ack':
      return { kind: 'ack', seq, rumours };
    case 'nack':
      return { kind: 'nack', seq, rumours };
    case 'pingRequest':
      return { kind: 'pingRequest', seq, target: text(target), rumours };
    case 'syncOffer':
      return { kind: 'syncOffer', summary, rumours };
    case 'sync':
      return { kind: 'sync', reply, rumours };
    default:
      throw new Error('a kind that is none');
  }
}

function rumourIn({ record, verdict, by }: WireRumour): Rumour {
  if (!record) throw new Error('a rumour about nobody');
  return { record: recordIn(record), verdict: keyOf(verdicts, verdict), by: text(by) };
}

function recordIn({ id, incarnation, presence, attributes, signature }: WireRecord): MemberRecord {
  if (!attributes) throw new Error('a record without attributes');
  const { site, subnet, dataAddress, cores, memoryBytes, battery, wired, coordinator, storeGeneration } = attributes;
  return {
    id: text(id),
    incarnation: whole(incarnation),
    presence: keyOf(presences, presence),
    signature: text(signature),
    attributes: {
      site: text(site),
      subnet: text(subnet),
      dataAddress: text(dataAddress),
      cores,
      memoryBytes: whole(memoryBytes),
      power: battery ? 'battery' : 'mains',
      wired,
      coordinator: keyOf(coordinators, coordinator),
      storeGeneration: whole(storeGeneration),
    },
  };
}

function providerOf(message: ProviderMessage): MessageInitShape<typeof wire.ProviderSchema>['message'] {
  switch (message.kind) {
    case 'announce': {
      const { seq, life, generation, add, remove, clear } = message;
      return {
        case: 'announce',
        value: { seq, life, generation, add: [...add], remove: [...remove], clear: [...clear] },
      };
    }
    case 'announced': {
      const { seq, count, hash, full } = message;
      return { case: 'announced', value: { seq, count, hash, full } };
    }
    case 'regionsAsked':
      return { case: 'regionsAsked', value: { seq: message.seq } };
    case 'regions':
      return { case: 'regions', value: { seq: message.seq, summaries: [...message.summaries] } };
    case 'whoHas':
      return { case: 'whoHas', value: { seq: message.seq, places: [...message.places] } };
    case 'holders': {
      const lists = message.lists.map((at) => ({ at: [...at] }));
      return { case: 'holders', value: { seq: message.seq, nodes: [...message.nodes], lists } };
    }
    default:
      return message satisfies never;
  }
}

function providerIn({ message }: Provider): ProviderMessage {
  switch (message.case) {
    case 'announce': {
      const { seq, life, generation, add, remove, clear } = message.value;
      return {
        kind: 'announce',
        seq,
        life: integer(life),
        generation: whole(generation),
        add: places(add),
        remove: places(remove),
        clear: bounded(clear, limits.placesMax),
      };
    }
    case 'announced': {
      const { seq, count, hash, full } = message.value;
      return { kind: 'announced', seq, count, hash: integer(hash), full };
    }
    case 'regionsAsked':
      return { kind: 'regionsAsked', seq: message.value.seq };
    case 'regions': {
      const { seq, summaries } = message.value;
      return { kind: 'regions', seq, summaries: bounded(summaries, limits.placesMax).map(integer) };
    }
    case 'whoHas':
      return { kind: 'whoHas', seq: message.value.seq, places: places(message.value.places) };
    case 'holders': {
      const { seq, nodes, lists } = message.value;
      return {
        kind: 'holders',
        seq,
        nodes: bounded(nodes, limits.nodesMax).map(text),
        lists: bounded(lists, limits.placesMax).map(({ at }) => {
          if (at.some((index) => index >= nodes.length)) throw new Error('a holder that is not named');
          return at;
        }),
      };
    }
    case undefined:
      throw new Error('a provider message that is none');
    default:
      return message satisfies never;
  }
}

function keepingOf(message: KeepingMessage): MessageInitShape<typeof wire.KeepingSchema> {
  const { seq } = message;
  if (message.kind === 'keep') {
    return { message: { case: 'keep', value: { seq, blobs: [...message.blobs], forMs: message.forMs } } };
  }
  return { message: { case: 'kept', value: { seq, forMs: [...message.forMs] } } };
}

function keepingIn({ message }: Keeping): KeepingMessage {
  switch (message.case) {
    case 'keep': {
      const { seq, blobs, forMs } = message.value;
      return { kind: 'keep', seq, blobs: bounded(blobs, limits.blobsMax).map(text), forMs: duration(forMs) };
    }
    case 'kept':
      return {
        kind: 'kept',
        seq: message.value.seq,
        forMs: bounded(message.value.forMs, limits.blobsMax).map(duration),
      };
    case undefined:
      throw new Error('a keeping message that is none');
    default:
      return message satisfies never;
  }
}

function bounded<T>(list: readonly T[], max: number): readonly T[] {
  if (list.length > max) throw new Error(`a list of ${list.length}, where ${max} are the most`);
  return list;
}

function places(list: readonly number[]): readonly number[] {
  return bounded(list, limits.placesMax).map(whole);
}

function text(value: string): string {
  if (value.length > limits.textMax) throw new Error('a text that is too long');
  return value;
}

function whole(value: number): number {
  if (value < 0) throw new Error('a number below zero');
  return integer(value);
}

function integer(value: number): number {
  if (!Number.isSafeInteger(value)) throw new Error('a number that is not whole');
  return value;
}

function duration(value: number): number {
  if (!(value >= 0 && value < Number.MAX_SAFE_INTEGER)) throw new Error('a duration that is none');
  return value;
}

function keyOf<K extends string>(names: Readonly<Record<K, number>>, value: number): K {
  for (const name of Object.keys(names) as K[]) if (names[name] === value) return name;
  throw new Error('a value that is none');
}
