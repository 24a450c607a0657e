/**
 * Blobs without bytes of their own: a list of smaller blobs that make them up (ADR 0008). In the index such a list stands
 * where a small blob has its bytes; the size in the key tells which it is.
 */
import type { Digest } from '../../protos/digest.ts';
import { hashBytes } from '../../protos/hasher.ts';
import { blobName, digestOfKey, type EntryName } from './entry-key.ts';
import * as limits from './limits.ts';
import type { StoreIndex } from './store-index.ts';

export interface Chunk {
  readonly digest: Digest;
  readonly name: EntryName;
}

export interface ChunkLists {
  /** The chunks of a held blob, none of them when the list is damaged; `undefined` when it has bytes of its own. */
  of(digest: Digest, name: EntryName): readonly Chunk[] | undefined;
}

/** Whether the list is worth keeping instead of the bytes. Chunks are never lists themselves: they are too small. */
export function canBeList(digest: Digest, chunks: readonly Digest[]): boolean {
  return (
    digest.sizeBytes > limits.chunkBytesMax &&
    chunks.length <= limits.knownChunksMax &&
    digest.sizeBytes >= chunks.length * limits.chunkMeanBytesMin &&
    chunks.every(({ fn, sizeBytes }) => fn === digest.fn && sizeBytes <= limits.chunkBytesMax)
  );
}

export function createChunkLists(index: StoreIndex): ChunkLists {
  /** Decoded ones, the longest unused first. */
  const known = new Map<string, { readonly valueId: number; readonly chunks: readonly Chunk[] }>();
  let knownChunks = 0;
  const forget = (text: string): void => {
    knownChunks -= known.get(text)?.chunks.length ?? 0;
    known.delete(text);
  };

  return {
    of(digest, { key, text }) {
      if (digest.sizeBytes <= limits.chunkBytesMax) return undefined;
      const entry = index.find(key);
      if (entry?.place !== 'inline') return undefined;
      const before = known.get(text);
      forget(text);
      const chunks = before?.valueId === entry.valueId ? before.chunks : decodeChunkList(key, index.value(entry));
      known.set(text, { valueId: entry.valueId, chunks });
      knownChunks += chunks.length;
      for (const eldest of known.keys()) {
        if (knownChunks <= limits.knownChunksMax) break;
        forget(eldest);
      }
      return chunks;
    },
  };
}

const checksumBytes = 16;

/** A checksum, then the keys of the chunks. */
export function encodeChunkList(key: Buffer, chunks: readonly Digest[]): Uint8Array {
  const keys = Buffer.concat(chunks.map((digest) => blobName(digest).key));
  return Buffer.concat([checksum(key, keys), keys]);
}

function decodeChunkList(key: Buffer, value: Uint8Array | undefined): Chunk[] {
  const keys = Buffer.from(value?.subarray(checksumBytes) ?? []);
  if (!value || !checksum(key, keys).equals(value.subarray(0, checksumBytes))) return [];
  return Array.from({ length: keys.length / key.length }, (_, at) => {
    const digest = digestOfKey(keys.subarray(at * key.length, (at + 1) * key.length));
    return { digest, name: blobName(digest) };
  });
}

/** Of the blob's own key too: nothing else tells whose list it is. */
function checksum(key: Buffer, keys: Buffer): Buffer {
  return Buffer.from(hashBytes('sha256', Buffer.concat([key, keys])), 'hex').subarray(0, checksumBytes);
}
