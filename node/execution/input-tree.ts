/** Finds every blob of an input tree, with a cache of decoded directories: trees of one build repeat most of them. */
import { fromBinary } from '@bufbuild/protobuf';
import { type Digest, digestKey, isEmptyDigest, makeDigest } from '../../protos/digest.ts';
import {
  DirectorySchema,
  type Digest as WireDigest,
} from '../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { StatusError } from '../../protos/status.ts';
import type { BlobStore, CallOptions } from '../storage/blob-store.ts';
import * as limits from './limits.ts';

interface InputTree {
  /** Every directory and file once, the root first; the empty blob is left out. */
  readonly blobs: readonly Digest[];
  /** Directories that are not in the store; what is below them is unknown. */
  readonly missing: readonly Digest[];
}

export interface InputTrees {
  /** Throws INVALID_ARGUMENT for a malformed directory or a tree above the bounds. */
  collect(root: Digest, options?: CallOptions): Promise<InputTree>;
}

interface Listing {
  readonly files: readonly Digest[];
  readonly directories: readonly Digest[];
}

const readsAtOnce = 32;

export function createInputTrees(blobs: Pick<BlobStore, 'get'>): InputTrees {
  /** By digest key, least recently used first. */
  const cache = new Map<string, Listing>();
  let cachedEntries = 0;
  const weight = (listing: Listing): number => 1 + listing.files.length + listing.directories.length;

  const remember = (key: string, listing: Listing): void => {
    if (cache.has(key)) return;
    cache.set(key, listing);
    cachedEntries += weight(listing);
    for (const [oldest, old] of cache) {
      if (cachedEntries <= limits.cachedDirectoryEntriesMax) return;
      cache.delete(oldest);
      cachedEntries -= weight(old);
    }
  };
  const load = async (digest: Digest, options?: CallOptions): Promise<Listing | undefined> => {
    const key = digestKey(digest);
    const cached = cache.get(key);
    if (cached) {
      cache.delete(key);
      cache.set(key, cached);
      return cached;
    }
    if (digest.sizeBytes > limits.messageBytesMax) throw tooLarge(digest, 'directory message');
    const bytes = await blobs.get(digest, options);
    if (!bytes) return undefined;
    const listing = decode(digest, bytes);
    remember(key, listing);
    return listing;
  };

  return {
    async collect(root, options) {
      const found = new Map<string, Digest>();
      const missing: Digest[] = [];
      const walked = new Set<string>();
      const take = (digest: Digest): void => {
        if (isEmptyDigest(digest)) return;
        found.set(digestKey(digest), digest);
        if (found.size > limits.inputBlobsMax) throw tooLarge(root, `input tree of over ${limits.inputBlobsMax} blobs`);
      };
      let next: Digest[] = [];
      /** Apart from `found`: a file may have the very bytes of a directory. */
      const enter = (digest: Digest): void => {
        const key = digestKey(digest);
        if (walked.has(key)) return;
        walked.add(key);
        take(digest);
        next.push(digest);
        if (walked.size > limits.inputDirectoriesMax) {
          throw tooLarge(root, `input tree of over ${limits.inputDirectoriesMax} directories`);
        }
      };
      enter(root);
      while (next.length > 0) {
        const level = next;
        next = [];
        for (let from = 0; from < level.length; from += readsAtOnce) {
          const batch = level.slice(from, from + readsAtOnce);
          const listings = await Promise.all(batch.map((digest) => load(digest, options)));
          for (const [index, listing] of listings.entries()) {
            if (!listing) missing.push(batch[index] as Digest);
            for (const file of listing?.files ?? []) take(file);
            for (const directory of listing?.directories ?? []) enter(directory);
          }
        }
      }
      return { blobs: [...found.values()], missing };
    },
  };
}

function decode(digest: Digest, bytes: Uint8Array): Listing {
  const child = (wire: WireDigest | undefined, name: string): Digest => {
    if (!wire) throw malformed(digest, `the entry "${name}" has no digest`);
    return makeDigest(digest.fn, wire.hash, wire.sizeBytes);
  };
  const directory = parse(digest, bytes);
  return {
    files: directory.files.map((file) => child(file.digest, file.name)),
    directories: directory.directories.map((one) => child(one.digest, one.name)),
  };
}

function parse(digest: Digest, bytes: Uint8Array) {
  try {
    return fromBinary(DirectorySchema, bytes);
  } catch (cause) {
    throw malformed(digest, 'it is not a Directory message', cause);
  }
}

function malformed(digest: Digest, why: string, cause?: unknown): StatusError {
  return new StatusError('INVALID_ARGUMENT', `input directory ${digest.hash}/${digest.sizeBytes}: ${why}`, { cause });
}

function tooLarge(digest: Digest, what: string): StatusError {
  return new StatusError('INVALID_ARGUMENT', `${what} (${digest.hash}/${digest.sizeBytes}) is too large`);
}
