/** Registers and the commands on them: in the log of a shard, in its snapshots, and between members and its leader. */
import type { MessageInitShape } from '@bufbuild/protobuf';
import * as wire from '../../../../protos/gen/potluck/mesh/v1/coordination_pb.ts';
import type { FoundRegister, RegisterMessage } from '../../../core/registers/messages.ts';
import type {
  ApplyOutcome,
  HolderPromise,
  InvalidationReason,
  OfferedRegister,
  Register,
  RegisterCommand,
  ResultEntry,
} from '../../../core/registers/types.ts';
import * as limits from '../limits.ts';
import {
  bounded,
  BrokenRule,
  count,
  duration,
  keyIn,
  keyOf,
  name,
  optionalName,
  optionalTokenIn,
  set,
  shardIn,
  time,
  tokenIn,
  tokenOf,
} from './checks.ts';

const classes = {
  claimed: wire.ResultClass.CLAIMED,
  unclaimed: wire.ResultClass.UNCLAIMED,
} as const satisfies Record<ResultEntry['class'], number>;
const reasons = {
  lost: wire.InvalidationReason.LOST,
  wrong: wire.InvalidationReason.WRONG,
  nonDeterministic: wire.InvalidationReason.NON_DETERMINISTIC,
} as const satisfies Record<InvalidationReason, number>;
const outcomes = {
  accepted: wire.ApplyOutcome.ACCEPTED,
  same: wire.ApplyOutcome.SAME,
  stale: wire.ApplyOutcome.STALE,
  occupied: wire.ApplyOutcome.OCCUPIED,
  tombstoned: wire.ApplyOutcome.TOMBSTONED,
  mismatch: wire.ApplyOutcome.MISMATCH,
} as const satisfies Record<ApplyOutcome, number>;

/** A holder's signature under its promise, and until when it holds by the wall clock, in milliseconds since the epoch. */
export interface Proof {
  readonly proof: Uint8Array;
  readonly endMs: number;
}

export type ProofOf = (promise: HolderPromise) => Proof | undefined;

type RegisterInit = MessageInitShape<typeof wire.RegisterSchema>;
type HolderInit = MessageInitShape<typeof wire.HolderSchema>;

export function promiseOf({ holder, storeGeneration, pinnedForMs }: HolderPromise, proof?: Proof): HolderInit {
  return { holder, storeGeneration: BigInt(storeGeneration), timeMs: pinnedForMs, ...proof };
}

export function promiseIn({ holder, storeGeneration, timeMs }: wire.Holder): HolderPromise {
  return { holder: name(holder), storeGeneration: count(storeGeneration), pinnedForMs: duration(timeMs) };
}

export function promisesIn(promises: readonly wire.Holder[]): readonly HolderPromise[] {
  return bounded(promises, limits.promisesMax).map(promiseIn);
}

export function registerOf(register: Register): RegisterInit {
  const { writtenAtMs } = register;
  if (register.kind === 'tombstone') return { ...bareOf(register), writtenAtMs };
  const holders = register.holders.map(({ holder, storeGeneration, untilMs }) => ({
    holder,
    storeGeneration: BigInt(storeGeneration),
    timeMs: untilMs,
  }));
  return { ...bareOf(register), writtenAtMs, holders };
}

export function registerIn(register: wire.Register | undefined): Register {
  const known = set(register);
  const writtenAtMs = time(known.writtenAtMs);
  const bare = bareIn(known);
  if (bare.kind === 'tombstone') return { ...bare, writtenAtMs };
  const holders = bounded(known.holders, limits.promisesMax).map(({ holder, storeGeneration, timeMs }) => ({
    holder: name(holder),
    storeGeneration: count(storeGeneration),
    untilMs: time(timeMs),
  }));
  return { ...bare, writtenAtMs, holders };
}

export function offeredOf(register: OfferedRegister): RegisterInit {
  if (register.kind === 'tombstone') return bareOf(register);
  return { ...bareOf(register), holders: register.promises.map((one) => promiseOf(one)) };
}

export function offeredIn(register: wire.Register | undefined): OfferedRegister {
  const known = set(register);
  const bare = bareIn(known);
  return bare.kind === 'tombstone' ? bare : { ...bare, promises: promisesIn(known.holders) };
}

type Bare = Omit<ResultEntry, 'holders' | 'writtenAtMs'> | Extract<OfferedRegister, { readonly kind: 'tombstone' }>;

function bareOf(register: Bare) {
  const { result, token, nonDeterministic } = register;
  const common = { result, nonDeterministic, ...(token && { token: tokenOf(token) }) };
  if (register.kind === 'tombstone') return { ...common, reason: reasons[register.reason] };
  return { ...common, class: classes[register.class], executor: register.executor };
}

function bareIn(register: wire.Register): Bare {
  const { nonDeterministic, reason, executor } = register;
  const common = { result: name(register.result), token: optionalTokenIn(register.token), nonDeterministic };
  if (reason !== wire.InvalidationReason.UNSPECIFIED) {
    return { kind: 'tombstone', ...common, reason: keyOf(reasons, reason) };
  }
  return { kind: 'result', ...common, class: keyOf(classes, register.class), executor: name(executor) };
}

type CommandInit = MessageInitShape<typeof wire.RegisterCommandSchema>;

export function commandOf(command: RegisterCommand): CommandInit {
  const { key } = command;
  switch (command.kind) {
    case 'commit': {
      const { token, replaces, result, executor, promises } = command;
      const value = { token: tokenOf(token), result, executor, promises: promises.map((one) => promiseOf(one)) };
      return {
        key,
        command: { case: 'commit', value: { ...value, ...(replaces && { replaces: tokenOf(replaces) }) } },
      };
    }
    case 'publish': {
      const { result, executor, promises } = command;
      return {
        key,
        command: { case: 'publish', value: { result, executor, promises: promises.map((one) => promiseOf(one)) } },
      };
    }
    case 'invalidate': {
      const { result, reason } = command;
      return { key, command: { case: 'invalidate', value: { result, reason: reasons[reason] } } };
    }
    case 'offer':
      return { key, command: { case: 'offer', value: offeredOf(command.register) } };
    default:
      return command satisfies never;
  }
}

export function commandIn({ key: wireKey, command }: wire.RegisterCommand): RegisterCommand {
  const key = keyIn(wireKey);
  switch (command.case) {
    case 'commit': {
      const { token, replaces } = command.value;
      return {
        kind: 'commit',
        key,
        token: tokenIn(token),
        replaces: optionalTokenIn(replaces),
        ...publishedIn(command.value),
      };
    }
    case 'publish':
      return { kind: 'publish', key, ...publishedIn(command.value) };
    case 'invalidate':
      return { kind: 'invalidate', key, ...invalidatedIn(command.value) };
    case 'offer':
      return { kind: 'offer', key, register: offeredIn(command.value) };
    case undefined:
      throw new BrokenRule('a command that is none');
    default:
      return command satisfies never;
  }
}

function publishedIn({ result, executor, promises }: Pick<wire.PublishCommand, 'result' | 'executor' | 'promises'>) {
  return { result: name(result), executor: name(executor), promises: promisesIn(promises) };
}

function invalidatedIn({ result, reason }: wire.InvalidateCommand) {
  return { result: name(result), reason: keyOf(reasons, reason) };
}

export function registersOf(message: RegisterMessage): MessageInitShape<typeof wire.RegistersSchema> {
  const ends = { id: BigInt(message.id), shard: message.shard };
  switch (message.kind) {
    case 'lookup':
      return { ...ends, message: { case: 'lookup', value: { keys: [...message.keys], fresh: message.fresh } } };
    case 'lookedUp':
      return { ...ends, message: { case: 'lookedUp', value: { found: message.found.map(foundOf) } } };
    case 'publish': {
      const { key, result, executor, promises } = message;
      const command = { result, executor, promises: promises.map((one) => promiseOf(one)) };
      return { ...ends, message: { case: 'publish', value: { key, command } } };
    }
    case 'invalidate': {
      const { key, result, reason } = message;
      return { ...ends, message: { case: 'invalidate', value: { key, command: { result, reason: reasons[reason] } } } };
    }
    case 'offerRegisters': {
      const registers = message.registers.map(({ key, register }) => ({ key, register: offeredOf(register) }));
      return { ...ends, message: { case: 'offer', value: { registers } } };
    }
    case 'written':
      return {
        ...ends,
        message: { case: 'written', value: { outcomes: message.outcomes.map((one) => outcomes[one]) } },
      };
    case 'redirect': {
      const { leader = '', reason } = message;
      return { ...ends, message: { case: 'redirect', value: { leader, busy: reason === 'busy' } } };
    }
    default:
      return message satisfies never;
  }
}

export function registersIn({ id: wireId, shard: wireShard, message }: wire.Registers): RegisterMessage {
  const [id, shard] = [count(wireId), shardIn(wireShard)];
  switch (message.case) {
    case 'lookup': {
      const { keys, fresh } = message.value;
      return { kind: 'lookup', id, shard, keys: bounded(keys, limits.registersMax).map(keyIn), fresh };
    }
    case 'lookedUp':
      return {
        kind: 'lookedUp',
        id,
        shard,
        found: bounded(message.value.found, limits.registersMax).map(foundIn),
      };
    case 'publish': {
      const { key, command } = message.value;
      return { kind: 'publish', id, shard, key: keyIn(key), ...publishedIn(set(command)) };
    }
    case 'invalidate': {
      const { key, command } = message.value;
      return { kind: 'invalidate', id, shard, key: keyIn(key), ...invalidatedIn(set(command)) };
    }
    case 'offer': {
      const registers = bounded(message.value.registers, limits.registersMax);
      return {
        kind: 'offerRegisters',
        id,
        shard,
        registers: registers.map(({ key, register }) => ({ key: keyIn(key), register: offeredIn(register) })),
      };
    }
    case 'written': {
      const written = bounded(message.value.outcomes, limits.registersMax);
      return { kind: 'written', id, shard, outcomes: written.map((one) => keyOf(outcomes, one)) };
    }
    case 'redirect': {
      const { leader, busy } = message.value;
      return { kind: 'redirect', id, shard, leader: optionalName(leader), reason: busy ? 'busy' : 'notLeader' };
    }
    case undefined:
      throw new BrokenRule('a message about registers that is none');
    default:
      return message satisfies never;
  }
}

function foundOf({ key, register, pinnedForMs }: FoundRegister) {
  return { key, register: registerOf(register), pinnedForMs: [...pinnedForMs] };
}

function foundIn({ key, register, pinnedForMs }: wire.FoundRegister): FoundRegister {
  return {
    key: keyIn(key),
    register: registerIn(register),
    pinnedForMs: bounded(pinnedForMs, limits.promisesMax).map(duration),
  };
}
