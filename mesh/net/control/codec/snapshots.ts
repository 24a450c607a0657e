/**
 * Snapshots of a shard's registers. They are the only messages that may be larger than a frame, so they are cut between
 * registers: frames stay small, nothing waits long behind one, and no more is parsed at once than a frame holds.
 */
import type { MessageInitShape } from '@bufbuild/protobuf';
import type * as wire from '../../../../protos/gen/potluck/mesh/v1/coordination_pb.ts';
import { type ActionKey, replicaId } from '../../../core/ids.ts';
import type { RaftTraffic } from '../../../core/messages.ts';
import type { Snapshot } from '../../../core/raft/types.ts';
import type { Register, RegistersState } from '../../../core/registers/types.ts';
import * as limits from '../limits.ts';
import {
  bounded,
  BrokenRule,
  count,
  type Ends,
  generationIn,
  keyIn,
  optionalTokenIn,
  set,
  shardIn,
  time,
  tokenOf,
} from './checks.ts';
import { registerIn, registerOf } from './registers.ts';
import { configurationIn, configurationOf } from './replicas.ts';

type KeyedRegister = readonly [ActionKey, Register];
type PartInit = Pick<MessageInitShape<typeof wire.SnapshotPartSchema>, 'snapshot' | 'part' | 'parts'>;

export function snapshotPartsOf(snapshot: Snapshot<RegistersState>): PartInit[] {
  const { index, term, configuration, sizeBytes, state } = snapshot;
  const { shardMs, registers, evictedToken, history } = state;
  const common = {
    index: BigInt(index),
    term: BigInt(term),
    configuration: configurationOf(configuration),
    sizeBytes: BigInt(sizeBytes),
    shardMs,
    ...(evictedToken && { evictedToken: tokenOf(evictedToken) }),
    history,
  };
  const cut = cutRegisters(registers);
  return cut.map((some, part) => {
    const carried = some.map(([key, register]) => ({ key, register: registerOf(register) }));
    return { snapshot: { ...common, registers: carried }, part, parts: cut.length };
  });
}

/** At least one part, each well below a frame. */
function cutRegisters(registers: readonly KeyedRegister[]): KeyedRegister[][] {
  const parts: KeyedRegister[][] = [];
  let bytes = Number.POSITIVE_INFINITY;
  for (const keyed of registers) {
    const size = bytesMaxOf(keyed);
    if (bytes + size > limits.snapshotPartBytes) {
      parts.push([]);
      bytes = 0;
    }
    (parts.at(-1) as KeyedRegister[]).push(keyed);
    bytes += size;
  }
  return parts.length > 0 ? parts : [[]];
}

/** Never less than what it takes encoded: texts in UTF-8, and numbers, tags and lengths around them. */
function bytesMaxOf([key, register]: KeyedRegister): number {
  const holders = register.kind === 'result' ? register.holders.length : 0;
  const executor = register.kind === 'result' ? register.executor.length : 0;
  return 3 * (key.length + register.result.length + executor) + 160 * (1 + holders);
}

/** What has come of one member's snapshots: one at a time. */
export interface SnapshotParts {
  /** The whole message with its last part. Throws BrokenRule. */
  take(part: wire.SnapshotPart, ends: Ends): RaftTraffic | undefined;
}

export function createSnapshotParts(): SnapshotParts {
  let collected: { readonly of: string; readonly registers: KeyedRegister[]; next: number } | undefined;

  return {
    take(wirePart, { self, far }) {
      const { part, parts, snapshot: wireSnapshot } = wirePart;
      if (part >= parts || parts > limits.snapshotPartsMax) throw new BrokenRule('a part that is none');
      const { registers, ...wireRest } = set(wireSnapshot);
      const envelope = {
        kind: 'raft' as const,
        shard: shardIn(wirePart.shard),
        generation: generationIn(wirePart.generation),
        from: replicaId(far, count(wirePart.fromDisk)),
        to: replicaId(self, count(wirePart.toDisk)),
      };
      const term = count(wirePart.term);
      const rest = restIn(wireRest);
      const here = bounded(registers, limits.snapshotRegistersMax).map(
        ({ key, register }) => [keyIn(key), registerIn(register)] as const,
      );
      const of = JSON.stringify([envelope, term, rest, parts]);
      if (part === 0) collected = { of, registers: [], next: 0 };
      // A part that got lost takes the others with it; the leader sends the snapshot again.
      if (collected?.of !== of || collected.next !== part) collected = undefined;
      if (!collected) return undefined;
      bounded(registers, limits.snapshotRegistersMax - collected.registers.length);
      for (const keyed of here) collected.registers.push(keyed);
      collected.next += 1;
      if (collected.next < parts) return undefined;
      const { index, snapshotTerm, configuration, sizeBytes, ...state } = rest;
      const whole: Snapshot<RegistersState> = {
        index,
        term: snapshotTerm,
        configuration,
        sizeBytes,
        state: { ...state, registers: collected.registers },
      };
      collected = undefined;
      return { ...envelope, message: { kind: 'snapshot', term, snapshot: whole } };
    },
  };
}

function restIn(snapshot: Omit<wire.Snapshot, 'registers'>) {
  const { index, term, configuration, sizeBytes, shardMs, evictedToken, history } = snapshot;
  return {
    index: count(index),
    snapshotTerm: count(term),
    configuration: configurationIn(configuration),
    sizeBytes: count(sizeBytes),
    shardMs: time(shardMs),
    evictedToken: optionalTokenIn(evictedToken),
    history,
  };
}
