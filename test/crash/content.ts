/** Blobs that parent and child can both make from a name. */
import { createHash } from 'node:crypto';
import { type Blob, blobOf } from '../contract/blobs.ts';

export function namedBlob(name: string, sizeBytes: number): Blob {
  const bytes = Buffer.alloc(sizeBytes, createHash('sha512').update(name).digest());
  return blobOf(bytes);
}
