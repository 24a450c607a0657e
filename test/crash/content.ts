/** Blobs that parent and child can both make from a name. */
import { createHash } from 'node:crypto';
import { type Blob, blobOf } from '../contract/blobs.ts';

export function namedBlob(name: string, sizeBytes: number): Blob {
  const bytes = Buffer.alloc(sizeBytes, createHash('sha512').update(name).digest());
  return blobOf(bytes);
}

const chunkCount = 4;
const chunkBytes = 600_000;

/** A blob large enough to be kept as a list of its chunks. */
export function namedChunks(name: string): { readonly whole: Blob; readonly chunks: readonly Blob[] } {
  const chunks = Array.from({ length: chunkCount }, (_, at) => namedBlob(`${name}/chunk${at}`, chunkBytes));
  return { whole: blobOf(Buffer.concat(chunks.map(({ bytes }) => bytes))), chunks };
}
