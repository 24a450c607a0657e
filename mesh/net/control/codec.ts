/**
 * The messages of the machines as protobuf, and back. What comes from a member is checked here, once, in the room of its
 * protocol: known kinds, whole numbers, bounded lists and texts.
 */
import { type MessageInitShape, create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { type Control, ControlSchema } from '../../../protos/gen/potluck/mesh/v1/control_pb.ts';
import type { RaftTraffic } from '../../core/messages.ts';
import type { PeerMessage } from '../../core/peer.ts';
import { agentsIn, agentsOf } from './codec/agents.ts';
import { BrokenRule, type Ends } from './codec/checks.ts';
import { claimsIn, claimsOf } from './codec/claims.ts';
import { keepingIn, keepingOf } from './codec/keeping.ts';
import { providerIn, providerOf } from './codec/provider.ts';
import { heartbeatsIn, raftIn, raftOf } from './codec/raft.ts';
import { type ProofOf, registersIn, registersOf } from './codec/registers.ts';
import { shardsIn, shardsOf } from './codec/shards.ts';
import type { SnapshotParts } from './codec/snapshots.ts';
import { swimIn, swimOf } from './codec/swim.ts';

export { BrokenRule, type Ends } from './codec/checks.ts';
export { createSnapshotParts, type SnapshotParts } from './codec/snapshots.ts';

export type ControlBody = NonNullable<MessageInitShape<typeof ControlSchema>['message']>;

export function encodeControl(message: ControlBody): Uint8Array {
  return toBinary(ControlSchema, create(ControlSchema, { message }));
}

/** Throws BrokenRule for bytes that are no message of ours. */
export function decodeControl(bytes: Uint8Array): Control['message'] {
  try {
    return fromBinary(ControlSchema, bytes).message;
  } catch (error) {
    throw new BrokenRule(error instanceof Error ? error.message : String(error));
  }
}

/**
 * A machine's message, from this end of a link to the far one, as the bodies of frames: one, or the parts of a snapshot.
 * `proofOf` signs what holders promise, or passes their signatures on.
 */
export function bodiesOf(message: PeerMessage, ends: Ends, proofOf: ProofOf = unproven): readonly ControlBody[] {
  return message.kind === 'raft' || message.kind === 'heartbeats' ? raftOf(message, ends) : [bodyOf(message, proofOf)];
}

const unproven: ProofOf = () => undefined;

function bodyOf(message: Exclude<PeerMessage, RaftTraffic>, proofOf: ProofOf): ControlBody {
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
      return { case: 'provider', value: { message: providerOf(message) } };
    case 'lookup':
    case 'lookedUp':
    case 'publish':
    case 'invalidate':
    case 'offerRegisters':
    case 'written':
    case 'redirect':
      return { case: 'registers', value: registersOf(message) };
    case 'shardStatus':
    case 'askShards':
    case 'formRequest':
    case 'formReply':
    case 'formed':
      return { case: 'shards', value: shardsOf(message) };
    case 'handOver':
    case 'stage':
    case 'handedOver':
    case 'handOverRefused':
      return { case: 'agents', value: agentsOf(message, proofOf) };
    default:
      return { case: 'claims', value: claimsOf(message, proofOf) };
  }
}

/**
 * The machine's message in a frame from the far end; `undefined` for frames that are none. `parts` is what came of that
 * end's snapshots so far. Throws BrokenRule.
 */
export function messageIn(body: Control['message'], ends: Ends, parts: SnapshotParts): PeerMessage | undefined {
  switch (body.case) {
    case 'swim':
      return swimIn(body.value);
    case 'provider':
      return providerIn(body.value);
    case 'keeping':
      return keepingIn(body.value);
    case 'raft':
      return raftIn(body.value, ends);
    case 'heartbeats':
      return heartbeatsIn(body.value, ends);
    case 'snapshotPart':
      return parts.take(body.value, ends);
    case 'registers':
      return registersIn(body.value);
    case 'shards':
      return shardsIn(body.value);
    case 'claims':
      return claimsIn(body.value, ends);
    case 'agents':
      return agentsIn(body.value);
    default:
      return undefined;
  }
}
