/** What every number, text and list from a member has to pass, and what many messages are made of. */
import type { MessageInitShape } from '@bufbuild/protobuf';
import type { Generation as WireGeneration } from '../../../../protos/gen/potluck/mesh/v1/coordination_pb.ts';
import type { ClaimToken, ClaimTokenSchema } from '../../../../protos/gen/potluck/mesh/v1/results_pb.ts';
import type { ActionKey, Generation, NodeId, ShardId, Token } from '../../../core/ids.ts';
import * as limits from '../limits.ts';

/** A member broke the protocol. Nothing else is ever thrown for what comes from one. */
export class BrokenRule extends Error {}

/** Who is at the two ends of a link. */
export interface Ends {
  readonly self: NodeId;
  readonly far: NodeId;
}

export function bounded<T>(list: readonly T[], max: number): readonly T[] {
  if (list.length > max) throw new BrokenRule(`a list of ${list.length}, where ${max} are the most`);
  return list;
}

export function text(value: string): string {
  if (value.length > limits.textMax) throw new BrokenRule('a text that is too long');
  return value;
}

/** A name of something, which has one. */
export function name(value: string): string {
  if (value === '') throw new BrokenRule('a name that is empty');
  return text(value);
}

export function optionalName(value: string): string | undefined {
  return value === '' ? undefined : name(value);
}

export function keyIn(value: string): ActionKey {
  if (value === '' || value.length > limits.keyMax) throw new BrokenRule('an action with no name, or too long a one');
  return value;
}

export function whole(value: number): number {
  if (value < 0) throw new BrokenRule('a number below zero');
  return integer(value);
}

export function integer(value: number): number {
  if (!Number.isSafeInteger(value)) throw new BrokenRule('a number that is not whole');
  return value;
}

/** A number that may grow beyond 32 bits. */
export function count(value: bigint): number {
  return integer(Number(value));
}

export function duration(value: number): number {
  if (!(value >= 0 && value < Number.MAX_SAFE_INTEGER)) throw new BrokenRule('a duration that is none');
  return value;
}

/** On whichever clock. */
export function time(value: number): number {
  if (!Number.isFinite(value)) throw new BrokenRule('a time that is none');
  return value;
}

export function shardIn(value: number): ShardId {
  if (value >= limits.shardsMax) throw new BrokenRule('a shard that no mesh has');
  return value;
}

export function keyOf<K extends string>(names: Readonly<Record<K, number>>, value: number): K {
  for (const one of Object.keys(names) as K[]) if (names[one] === value) return one;
  throw new BrokenRule('a value that is none');
}

/** A field that must not be missing. */
export function set<T>(value: T | undefined): T {
  if (value === undefined) throw new BrokenRule('a part that is missing');
  return value;
}

export function tokenOf({ generation, term, counter }: Token): MessageInitShape<typeof ClaimTokenSchema> {
  return { generation: BigInt(generation), term: BigInt(term), counter: BigInt(counter) };
}

export function tokenIn(token: ClaimToken | undefined): Token {
  const { generation, term, counter } = set(token);
  return { generation: count(generation), term: count(term), counter: count(counter) };
}

export function optionalTokenIn(token: ClaimToken | undefined): Token | undefined {
  return token && tokenIn(token);
}

export function generationOf({ number, hash, forced }: Generation) {
  return { number: BigInt(number), hash, forced };
}

export function generationIn(generation: WireGeneration | undefined): Generation {
  const { number, hash, forced } = set(generation);
  return { number: count(number), hash, forced };
}

/** Small hashes, capabilities, texts. */
export function texts(list: readonly string[], max: number): readonly string[] {
  return bounded(list, max).map(text);
}
