/**
 * Seeding: blobs are handed to members in good time. A member is asked first what it lacks, so whoever starts again goes on
 * where it was broken off; small blobs travel many in one call, large ones alone.
 */
import { type Digest, digestKey } from '../../protos/digest.ts';
import { StatusError } from '../../protos/status.ts';
import type { DataClient } from '../../mesh/net/data/client.ts';
import type { DataSource } from '../../mesh/net/data/server.ts';
import { parseDigestKey } from '../../mesh/net/data/wire.ts';
import type { LocalBlobStore } from '../storage/blob-store.ts';
import * as limits from './limits.ts';

export interface SeedProgress {
  readonly doneBlobs: number;
  readonly totalBlobs: number;
  readonly doneBytes: number;
  readonly totalBytes: number;
}

export interface SeedOptions {
  readonly signal: AbortSignal;
  /** Called after each piece of work. */
  readonly onProgress: (progress: SeedProgress) => void;
}

const lackingCall = 'lacking';
const takeCall = 'take';

/** Hands the ones that `peer` lacks over. Throws a `PeerError` when that one cannot be reached or takes no more. */
export async function seed(
  { client, local }: { readonly client: Pick<DataClient, 'call' | 'write'>; readonly local: LocalBlobStore },
  peer: string,
  digests: readonly Digest[],
  { signal, onProgress }: SeedOptions,
): Promise<void> {
  const totalBytes = digests.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  let doneBlobs = 0;
  let doneBytes = 0;
  const done = (some: readonly Digest[]): void => {
    doneBlobs += some.length;
    for (const { sizeBytes } of some) doneBytes += sizeBytes;
    onProgress({ doneBlobs, totalBlobs: digests.length, doneBytes, totalBytes });
  };
  const options = { signal, urgency: 'seed' } as const;

  for (let at = 0; at < digests.length; at += limits.seedDigestsPerCall) {
    const some = digests.slice(at, at + limits.seedDigestsPerCall);
    const answer = await client.call(peer, lackingCall, encodeDigests(some), options);
    const lacking = new Set(Buffer.from(answer).toString('latin1').split('\n'));
    const wanted = some.filter((digest) => lacking.has(digestKey(digest)));
    done(some.filter((digest) => !lacking.has(digestKey(digest))));
    for (const batch of batches(wanted)) {
      const [only] = batch;
      if (only && only.sizeBytes > limits.seedBatchedBytesMax) await handOver(only);
      else await client.call(peer, takeCall, await pack(batch), options);
      done(batch);
    }
  }

  async function handOver(digest: Digest): Promise<void> {
    await using reader = await local.open(digest, { signal });
    if (!reader) throw gone(digest);
    await client.write(peer, digest, reader.read(undefined, { signal }), options);
  }

  async function pack(batch: readonly Digest[]): Promise<Uint8Array> {
    const parts: Uint8Array[] = [Buffer.concat([encodeDigests(batch), Buffer.from('\n\n')])];
    for (const digest of batch) {
      const bytes = await local.get(digest, { signal });
      if (!bytes) throw gone(digest);
      parts.push(bytes);
    }
    return Buffer.concat(parts);
  }
}

function* batches(digests: readonly Digest[]): Iterable<Digest[]> {
  let batch: Digest[] = [];
  let bytes = 0;
  for (const digest of digests) {
    if (digest.sizeBytes > limits.seedBatchedBytesMax) {
      yield [digest];
      continue;
    }
    if (bytes + digest.sizeBytes > limits.seedBatchBytes) {
      yield batch;
      batch = [];
      bytes = 0;
    }
    batch.push(digest);
    bytes += digest.sizeBytes;
  }
  if (batch.length > 0) yield batch;
}

export interface TakingOptions {
  readonly local: LocalBlobStore;
  /** What all members together may hand over within `seedWindowMs`: more would drive out what this machine needs. */
  readonly bytesPerWindow: number;
  readonly nowMs?: () => number;
}

type Call = DataSource['calls'] extends ReadonlyMap<string, infer C> ? C : never;

/** The other side: what a member may hand to this node. */
export function takeSeeds(options: TakingOptions): Pick<DataSource, 'put' | 'calls'> {
  const { local, bytesPerWindow, nowMs = () => performance.now() } = options;
  let windowEndsMs = 0;
  let leftBytes = 0;

  function spend(bytes: number): void {
    if (nowMs() >= windowEndsMs) {
      windowEndsMs = nowMs() + limits.seedWindowMs;
      leftBytes = bytesPerWindow;
    }
    if (bytes > leftBytes) throw new StatusError('RESOURCE_EXHAUSTED', 'this node takes no more blobs today');
    leftBytes -= bytes;
  }

  return {
    put: async (_, digest, content, { signal }) => {
      spend(digest.sizeBytes);
      await local.put(digest, content, { signal });
    },
    calls: new Map<string, Call>([
      [
        lackingCall,
        async (_, body) => encodeDigests(await local.missing(decodeDigests(Buffer.from(body).toString('latin1')))),
      ],
      [
        takeCall,
        async (_, body) => {
          const bytes = Buffer.from(body.buffer, body.byteOffset, body.byteLength);
          const headEnd = bytes.indexOf('\n\n');
          if (headEnd < 0) throw new StatusError('INVALID_ARGUMENT', 'the blobs have no names');
          let at = headEnd + 2;
          const blobs = decodeDigests(bytes.toString('latin1', 0, headEnd)).map((digest) => {
            const content = bytes.subarray(at, at + digest.sizeBytes);
            at += digest.sizeBytes;
            return { digest, bytes: content };
          });
          spend(bytes.byteLength);
          const failure = (await local.putMany(blobs)).find((outcome) => outcome !== undefined);
          if (failure) throw failure;
          return new Uint8Array();
        },
      ],
    ]),
  };
}

function encodeDigests(digests: readonly Digest[]): Buffer {
  return Buffer.from(digests.map(digestKey).join('\n'), 'latin1');
}

/** Throws INVALID_ARGUMENT. */
function decodeDigests(text: string): Digest[] {
  const lines = text === '' ? [] : text.split('\n');
  if (lines.length > limits.seedDigestsPerCall) throw new StatusError('INVALID_ARGUMENT', 'too many blobs in one call');
  return lines.map(parseDigestKey);
}

function gone(digest: Digest): StatusError {
  return new StatusError('NOT_FOUND', `blob ${digestKey(digest)} is not here any more`);
}
