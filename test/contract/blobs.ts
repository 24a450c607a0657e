/** Blobs and streams for tests of stores. */
import { randomBytes } from 'node:crypto';
import type { BlobReader, ByteRange } from '../../node/storage/blob-store.ts';
import type { Digest, DigestFunction } from '../../protos/digest.ts';
import { digestOf } from '../../protos/hasher.ts';

export interface Blob {
  readonly digest: Digest;
  readonly bytes: Uint8Array;
}

export function blobOf(bytes: Uint8Array | string, fn: DigestFunction = 'sha256'): Blob {
  const content = typeof bytes === 'string' ? Buffer.from(bytes) : bytes;
  return { digest: digestOf(fn, content), bytes: content };
}

export function randomBlob(sizeBytes: number, fn?: DigestFunction): Blob {
  return blobOf(randomBytes(sizeBytes), fn);
}

/** The same size, another hash. */
export function otherHash(digest: Digest): Digest {
  return { ...digest, hash: digestOf(digest.fn, Buffer.from(digest.hash)).hash };
}

export async function* chunksOf(bytes: Uint8Array, chunkBytes = 10_000): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.byteLength; at += chunkBytes) yield bytes.subarray(at, at + chunkBytes);
}

export async function readAll(reader: BlobReader, range?: ByteRange): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of reader.read(range)) chunks.push(chunk);
  return Buffer.concat(chunks);
}
