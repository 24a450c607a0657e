/**
 * SplitBlob and SpliceBlob: large blobs as lists of content-defined chunks.
 *
 * Chunks are blobs like any others. What a split found out is remembered for a while; nothing rests on it, because the
 * same content always gives the same chunks.
 *
 * @see REAPI v2.12, ContentAddressableStorage.SplitBlob and SpliceBlob
 */
import { create } from '@bufbuild/protobuf';
import { type Digest, digestKey, fromWireDigest, toWireDigest } from '../../protos/digest.ts';
import {
  ChunkingFunction_Value,
  type ContentAddressableStorage,
  SpliceBlobResponseSchema,
  SplitBlobResponseSchema,
} from '../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { digestOf } from '../../protos/hasher.ts';
import { StatusError } from '../../protos/status.ts';
import type { BlobReader, BlobStore, LocalBlobStore } from '../storage/blob-store.ts';
import { chunkStream, createChunker } from './fastcdc.ts';
import type { ServiceHandlers } from './handler.ts';
import type { InstanceCheck } from './instances.ts';
import { limits } from './limits.ts';

type CasHandlers = ServiceHandlers<typeof ContentAddressableStorage>;

export function createSplitSplice(
  blobs: BlobStore & Pick<LocalBlobStore, 'putChunked'>,
  checkInstance: InstanceCheck,
  maxBlobBytes: number,
): Pick<CasHandlers, 'splitBlob' | 'spliceBlob'> {
  const chunker = createChunker({ averageBytes: limits.chunkAverageBytes, seed: 0 });
  /** Oldest first. */
  const remembered = new Map<string, readonly Digest[]>();
  let rememberedChunks = 0;
  const forget = (key: string) => {
    rememberedChunks -= remembered.get(key)?.length ?? 0;
    remembered.delete(key);
  };
  const remember = (key: string, chunks: readonly Digest[]) => {
    forget(key);
    remembered.set(key, chunks);
    rememberedChunks += chunks.length;
    for (const oldest of remembered.keys()) {
      if (rememberedChunks <= limits.chunksRememberedMax) break;
      forget(oldest);
    }
  };

  const store = async (chunks: readonly { digest: Digest; bytes: Uint8Array }[], signal: AbortSignal) => {
    const failure = (await blobs.putMany(chunks, { signal })).find((outcome) => outcome !== undefined);
    if (failure) throw failure;
  };
  const split = async (reader: BlobReader, signal: AbortSignal): Promise<Digest[]> => {
    const digests: Digest[] = [];
    let batch: { digest: Digest; bytes: Uint8Array }[] = [];
    let batchBytes = 0;
    for await (const bytes of chunkStream(chunker, reader.read(undefined, { signal }))) {
      const digest = digestOf(reader.digest.fn, bytes);
      digests.push(digest);
      batch.push({ digest, bytes });
      batchBytes += bytes.byteLength;
      if (batchBytes < limits.splitBatchBytes) continue;
      await store(batch, signal);
      batch = [];
      batchBytes = 0;
    }
    if (batch.length > 0) await store(batch, signal);
    return digests;
  };

  const chunksOf = async (digest: Digest, known: readonly Digest[] | undefined, signal: AbortSignal) => {
    await using reader = await blobs.open(digest, { signal });
    if (!reader) throw new StatusError('NOT_FOUND', `blob ${digest.hash}/${digest.sizeBytes} is not held here`);
    if (digest.sizeBytes === 0) return [];
    if (digest.sizeBytes < chunker.maxBytes) return [digest];
    if (known && (await blobs.missing(known, { signal })).length === 0) return known;
    return await split(reader, signal);
  };

  return {
    async splitBlob(request, { signal }) {
      checkInstance(request.instanceName);
      const digest = fromWireDigest(request.blobDigest, request.digestFunction, 'blob_digest');
      const respond = (chunks: readonly Digest[]) =>
        create(SplitBlobResponseSchema, {
          chunkDigests: chunks.map(toWireDigest),
          chunkingFunction: ChunkingFunction_Value.FAST_CDC_2020,
        });
      const key = digestKey(digest);
      const chunks = await chunksOf(digest, remembered.get(key), signal);
      if (digest.sizeBytes < chunker.maxBytes) return respond(chunks);
      remember(key, chunks);
      // Its chunks are all that is kept of it from now on.
      await blobs.putChunked(digest, chunks, { signal });
      return respond(chunks);
    },

    async spliceBlob(request, { signal }) {
      checkInstance(request.instanceName);
      const digest = fromWireDigest(request.blobDigest, request.digestFunction, 'blob_digest');
      if (request.chunkDigests.length > limits.spliceChunksMax) {
        throw new StatusError(
          'INVALID_ARGUMENT',
          `${request.chunkDigests.length} chunks; at most ${limits.spliceChunksMax}`,
        );
      }
      if (digest.sizeBytes > maxBlobBytes) {
        throw new StatusError('INVALID_ARGUMENT', `blob of ${digest.sizeBytes} bytes; the limit is ${maxBlobBytes}`);
      }
      const chunks = request.chunkDigests.map((wire) => fromWireDigest(wire, request.digestFunction, 'a chunk digest'));
      checkFunction(digest, chunks);
      const response = create(SpliceBlobResponseSchema, { blobDigest: toWireDigest(digest) });
      if ((await blobs.missing([digest], { signal })).length === 0) return response;
      checkTotal(digest, chunks);
      await blobs.putChunked(digest, chunks, { signal });
      return response;
    },
  };
}

function checkFunction(digest: Digest, chunks: readonly Digest[]): void {
  const other = chunks.find(({ fn }) => fn !== digest.fn);
  if (other) throw new StatusError('INVALID_ARGUMENT', `chunk ${other.hash} is ${other.fn}, the blob is ${digest.fn}`);
}

/** A cheap check before any byte is read; the store checks the hash of the whole. */
function checkTotal(digest: Digest, chunks: readonly Digest[]): void {
  let total = 0;
  for (const { sizeBytes } of chunks) total += sizeBytes;
  if (total !== digest.sizeBytes) {
    throw new StatusError('INVALID_ARGUMENT', `the chunks have ${total} bytes together, the blob ${digest.sizeBytes}`);
  }
}
