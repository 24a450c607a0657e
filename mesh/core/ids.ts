/**
 * Names of things that the machines of mesh/core decide about. All are plain values: they travel in messages, are keys
 * of maps and are compared with `===` or with the functions here.
 */
import type { DigestFunction } from '../../protos/digest.ts';

/** A member's libp2p peer id in text. Ids are compared and sorted as UTF-16 strings, never by locale. */
export type NodeId = string;

/**
 * One life of a member's disk: `NodeId~disk`, with the number drawn when the disk was initialised. A member whose disk
 * was lost comes back as another replica, so a vote or an acknowledgement that it forgot is never taken for its own.
 */
export type ReplicaId = string;

/** 0 .. shards - 1; the number of shards is chosen when the mesh is made. */
export type ShardId = number;

/** One register: (digest function, action hash, action size, instance name) in text, see `actionKey`. */
export type ActionKey = string;

/** Made by the submitting node, which keeps it until the request is done; a retry carries the same id. */
export type RequestId = string;

/** `tool_invocation_id` of RequestMetadata, or the submitting node's own name for an unnamed client. */
export type InvocationId = string;

/** A blob named in text: `function/hash/size`. */
export type BlobKey = string;

/** Who may commit an action's result: the shard's generation, its Raft term, and a counter within that term. */
export interface Token {
  readonly generation: number;
  readonly term: number;
  /** From 1 in each term. */
  readonly counter: number;
}

/** One history of a shard. The first has number 1; the next is made only by force. */
export interface Generation {
  readonly number: number;
  /** Hash of shard, number and the first configuration; tells apart two histories of equal number. */
  readonly hash: number;
  /** True when it was formed without the quorum of the one before. */
  readonly forced: boolean;
}

export function replicaId(node: NodeId, disk: number): ReplicaId {
  return `${node}~${disk}`;
}

export function nodeOf(replica: ReplicaId): NodeId {
  return replica.slice(0, replica.lastIndexOf('~'));
}

export function actionKey(instance: string, fn: DigestFunction, hash: string, sizeBytes: number): ActionKey {
  return `${fn}/${hash}/${sizeBytes}/${instance}`;
}

/** Lexicographic: negative when `a` is older, zero when they are the same token. */
export function compareTokens(a: Token, b: Token): number {
  return a.generation - b.generation || a.term - b.term || a.counter - b.counter;
}

/** Higher number wins; two of one number and different hash are both superseded by the next (see shards/). */
export function sameGeneration(a: Generation, b: Generation): boolean {
  return a.number === b.number && a.hash === b.hash;
}

export function tokenText(token: Token): string {
  return `${token.generation}.${token.term}.${token.counter}`;
}

/** Order of ids everywhere in mesh/core: by UTF-16 code units, the same on every machine. */
export function compareIds(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
