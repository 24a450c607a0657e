/** The messages of the membership machine. */
import type { MessageInitShape } from '@bufbuild/protobuf';
import * as wire from '../../../../protos/gen/potluck/mesh/v1/control_pb.ts';
import type { MembershipMessage } from '../../../core/membership/messages.ts';
import type { Attributes, MemberRecord, Presence, Rumour, Verdict } from '../../../core/membership/records.ts';
import * as limits from '../limits.ts';
import { bounded, BrokenRule, keyOf, set, text, texts, whole } from './checks.ts';

const kinds = {
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

export function swimOf(message: MembershipMessage): MessageInitShape<typeof wire.SwimSchema> {
  const rumours = message.rumours.map(rumourOf);
  const kind = kinds[message.kind];
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
  const { power, coordinator, capabilities, ...attributes } = record.attributes;
  return {
    verdict: verdicts[verdict],
    by,
    record: {
      id: record.id,
      incarnation: record.incarnation,
      presence: presences[record.presence],
      signature: record.signature,
      attributes: {
        ...attributes,
        battery: power === 'battery',
        coordinator: coordinators[coordinator],
        capabilities: [...capabilities],
      },
    },
  };
}

export function swimIn({ kind, seq, target, summary, reply, rumours: wireRumours }: wire.Swim): MembershipMessage {
  const rumours = bounded(wireRumours, limits.rumoursMax).map(rumourIn);
  switch (keyOf(kinds, kind)) {
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
      throw new BrokenRule('a kind that is none');
  }
}

function rumourIn({ record, verdict, by }: wire.Rumour): Rumour {
  return { record: recordIn(set(record)), verdict: keyOf(verdicts, verdict), by: text(by) };
}

function recordIn({ id, incarnation, presence, attributes, signature }: wire.MemberRecord): MemberRecord {
  return {
    id: text(id),
    incarnation: whole(incarnation),
    presence: keyOf(presences, presence),
    signature: text(signature),
    attributes: attributesIn(set(attributes)),
  };
}

function attributesIn(attributes: wire.Attributes): Attributes {
  const { site, subnet, dataAddress, cores, memoryBytes, battery, wired, coordinator, storeGeneration } = attributes;
  return {
    site: text(site),
    subnet: text(subnet),
    dataAddress: text(dataAddress),
    cores,
    memoryBytes: whole(memoryBytes),
    power: battery ? 'battery' : 'mains',
    wired,
    coordinator: keyOf(coordinators, coordinator),
    storeGeneration: whole(storeGeneration),
    guestSlots: attributes.guestSlots,
    capabilities: texts(attributes.capabilities, limits.capabilitiesMax),
  };
}
