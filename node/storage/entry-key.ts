/**
 * What the index calls things: a blob is (function, hash, size), a result is (function, instance, hash, size), both packed
 * into bytes; and what the file of a blob is called. Only checked digests come here, so no path is made of raw input.
 */
import assert from 'node:assert';
import { join } from 'node:path';
import { type Digest, type DigestFunction, digestFunctions, digestFunctionNames } from '../../protos/digest.ts';
import { hashBytes } from '../../protos/hasher.ts';
import type { ActionKey } from './action-cache.ts';

/** Numbers on disk: never renumber. */
const functionCodes: { readonly [F in DigestFunction]: number } = {
  sha256: 1,
  blake3: 2,
  sha1: 3,
  sha384: 4,
  sha512: 5,
  md5: 6,
};
const functionsByCode = new Map(digestFunctionNames.map((fn) => [functionCodes[fn], fn]));
const resultFlag = 0x40;
const sizeWidthBytes = 6;
const instanceWidthBytes = 16;

/** function code, hash, size (big-endian). */
function blobKey(digest: Digest): Buffer {
  const hashBytesCount = digest.hash.length / 2;
  const key = Buffer.allocUnsafe(1 + hashBytesCount + sizeWidthBytes);
  key[0] = functionCodes[digest.fn];
  key.write(digest.hash, 1, 'hex');
  key.writeUIntBE(digest.sizeBytes, 1 + hashBytesCount, sizeWidthBytes);
  return key;
}

/** function code with a flag, start of SHA-256 of the instance name, hash, size. */
export function resultKey({ instance, action }: ActionKey): Buffer {
  const blob = blobKey(action);
  const key = Buffer.allocUnsafe(blob.length + instanceWidthBytes);
  key[0] = functionCodes[action.fn] | resultFlag;
  key.write(hashBytes('sha256', Buffer.from(instance)), 1, instanceWidthBytes, 'hex');
  blob.copy(key, 1 + instanceWidthBytes, 1);
  return key;
}

export function isResultKey(key: Uint8Array): boolean {
  return ((key[0] ?? 0) & resultFlag) !== 0;
}

/** The digest a blob's key was made of. */
export function digestOfKey(key: Buffer): Digest {
  const fn = functionsByCode.get(key[0] ?? 0);
  assert(fn, 'not a blob key');
  const hashEnd = 1 + digestFunctions[fn].hexLength / 2;
  return { fn, hash: key.toString('hex', 1, hashEnd), sizeBytes: key.readUIntBE(hashEnd, sizeWidthBytes) };
}

/** The size in a key. */
export function keySizeBytes(key: Buffer): number {
  return key.readUIntBE(key.length - sizeWidthBytes, sizeWidthBytes);
}

/** An entry's key, and the same as a key of in-memory maps. */
export interface EntryName {
  readonly key: Buffer;
  readonly text: string;
}

export function keyText(key: Buffer): string {
  return key.toString('latin1');
}

export function blobName(digest: Digest): EntryName {
  const key = blobKey(digest);
  return { key, text: keyText(key) };
}

/** `<function>/<first two digits>`, the directory of a blob's file below `cas/`. */
export function shardOf(digest: Digest): string {
  return join(digest.fn, digest.hash.slice(0, 2));
}

export function fileNameOf(digest: Digest): string {
  return `${digest.hash}-${digest.sizeBytes}`;
}

const fileName = /^([0-9a-f]+)-(0|[1-9][0-9]{0,15})$/;

/** The digest a file in `shard` stands for, or `undefined` when no blob's file is called so there. */
export function digestOfFile(fn: DigestFunction, prefix: string, name: string): Digest | undefined {
  const [, hash, size] = fileName.exec(name) ?? [];
  if (hash === undefined || hash.length !== digestFunctions[fn].hexLength || !hash.startsWith(prefix)) return undefined;
  const sizeBytes = Number(size);
  return sizeBytes <= maxSizeBytes ? { fn, hash, sizeBytes } : undefined;
}

/** The largest size a key has room for: 256 TiB. */
const maxSizeBytes = 2 ** (8 * sizeWidthBytes) - 1;

/** A file on disk takes whole blocks. */
export function diskBytes(sizeBytes: number): number {
  return Math.ceil(sizeBytes / 4096) * 4096;
}
