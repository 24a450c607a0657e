/**
 * ContentAddressableStorage without its chunking methods (split-splice.ts).
 *
 * @see REAPI v2.12, service ContentAddressableStorage
 */
import { create, toBinary } from '@bufbuild/protobuf';
import { type Digest, fromWireDigest, isEmptyDigest, toWireDigest } from '../../protos/digest.ts';
import {
  BatchReadBlobsResponse_ResponseSchema,
  BatchReadBlobsResponseSchema,
  type BatchUpdateBlobsRequest_Request,
  BatchUpdateBlobsResponse_ResponseSchema,
  BatchUpdateBlobsResponseSchema,
  Compressor_Value,
  type ContentAddressableStorage,
  type Digest as WireDigest,
  type DigestFunction_Value,
  FindMissingBlobsResponseSchema,
} from '../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { StatusError } from '../../protos/status.ts';
import type { BlobStore } from '../storage/blob-store.ts';
import { createGetTree } from './get-tree.ts';
import { toWireStatus } from './grpc-status.ts';
import type { ServiceHandlers } from './handler.ts';
import type { InstanceCheck } from './instances.ts';
import { limits } from './limits.ts';
import { compressBlob, decompressBlob } from './zstd.ts';

type CasHandlers = ServiceHandlers<typeof ContentAddressableStorage>;

export function createCas(
  blobs: BlobStore,
  checkInstance: InstanceCheck,
  maxBlobBytes: number,
): Omit<CasHandlers, 'splitBlob' | 'spliceBlob'> {
  return {
    async findMissingBlobs(request, { signal }) {
      checkInstance(request.instanceName);
      const digests = request.blobDigests.map((digest) => fromWireDigest(digest, request.digestFunction));
      const missing = digests.length === 0 ? [] : await blobs.missing(digests, { signal });
      const response = create(FindMissingBlobsResponseSchema, { missingBlobDigests: missing.map(toWireDigest) });
      if (
        missing.length > limits.missingSurelyFit &&
        toBinary(FindMissingBlobsResponseSchema, response).byteLength > limits.responseBytesMax
      ) {
        const reason = `${missing.length} blobs are missing, more than fit in a message; ask for fewer at once`;
        throw new StatusError('RESOURCE_EXHAUSTED', reason);
      }
      return response;
    },

    async batchUpdateBlobs(request, { signal }) {
      checkInstance(request.instanceName);
      checkBatchUpdate(request.requests);
      const failures = new Map<number, unknown>();
      const accepted: { index: number; digest: Digest; bytes: Uint8Array }[] = [];
      request.requests.forEach((entry, index) => {
        try {
          accepted.push({ index, ...readEntry(entry, request.digestFunction, maxBlobBytes) });
        } catch (error) {
          failures.set(index, error);
        }
      });
      const outcomes = accepted.length === 0 ? [] : await blobs.putMany(accepted, { signal });
      outcomes.forEach((error, position) => {
        if (error) failures.set((accepted[position] as { index: number }).index, error);
      });
      return create(BatchUpdateBlobsResponseSchema, {
        responses: request.requests.map(({ digest }, index) =>
          create(BatchUpdateBlobsResponse_ResponseSchema, {
            ...(digest && { digest }),
            status: toWireStatus(failures.get(index)),
          }),
        ),
      });
    },

    async batchReadBlobs(request, { signal }) {
      checkInstance(request.instanceName);
      let totalBytes = 0;
      for (const { sizeBytes } of request.digests) totalBytes += Math.max(0, Number(sizeBytes));
      checkBatchBytes(totalBytes, 'read');
      if (request.digests.length > limits.batchReadBlobsMax) {
        const reason = `batch read of ${request.digests.length} blobs; at most ${limits.batchReadBlobsMax}: split it`;
        throw new StatusError('INVALID_ARGUMENT', reason);
      }
      const zstd = request.acceptableCompressors.includes(Compressor_Value.ZSTD);
      let roomBytes: number = limits.responseBytesMax;
      const responses = [];
      // What is not here is asked of other members; several at once travel together.
      const ahead: Promise<Uint8Array | undefined>[] = [];
      for (const [at, wire] of request.digests.entries()) {
        while (ahead.length < limits.batchReadsAhead && at + ahead.length < request.digests.length) {
          ahead.push(readAt(at + ahead.length));
        }
        const response = create(BatchReadBlobsResponse_ResponseSchema, { digest: wire });
        responses.push(response);
        roomBytes -= entryOverheadBytes + wire.hash.length;
        try {
          const bytes = await ahead.shift();
          if (!bytes) throw new StatusError('NOT_FOUND', `blob ${wire.hash}/${wire.sizeBytes} is not held here`);
          const packed = zstd && bytes.byteLength >= compressibleBytesMin ? compressBlob(bytes) : undefined;
          const data = packed && packed.byteLength < bytes.byteLength ? packed : bytes;
          if (data.byteLength > roomBytes) {
            throw new StatusError('RESOURCE_EXHAUSTED', 'no room left in the response; ask for this blob again');
          }
          roomBytes -= data.byteLength;
          response.data = data;
          response.compressor = data === packed ? Compressor_Value.ZSTD : Compressor_Value.IDENTITY;
          response.status = toWireStatus(undefined);
        } catch (error) {
          response.status = toWireStatus(error);
        }
      }
      return create(BatchReadBlobsResponseSchema, { responses });

      function readAt(at: number): Promise<Uint8Array | undefined> {
        const reading = (async () => {
          const digest = fromWireDigest(request.digests[at] as WireDigest, request.digestFunction);
          return await blobs.get(digest, { signal });
        })();
        // It is looked at in its turn.
        reading.catch(() => {});
        return reading;
      }
    },

    getTree: createGetTree(blobs, checkInstance),
  };
}

/** Tags, lengths, size and status of one response, without the hash. */
const entryOverheadBytes = 40;
/** Below, a frame costs more than it saves. */
const compressibleBytesMin = 128;

function checkBatchUpdate(entries: readonly BatchUpdateBlobsRequest_Request[]): void {
  let sentBytes = 0;
  let unpackedBytes = 0;
  for (const { data, compressor, digest } of entries) {
    sentBytes += data.byteLength;
    if (compressor !== Compressor_Value.IDENTITY) unpackedBytes += Math.max(0, Number(digest?.sizeBytes ?? 0));
  }
  checkBatchBytes(sentBytes, 'update');
  if (unpackedBytes > limits.batchUnpackedBytesMax) {
    throw new StatusError(
      'INVALID_ARGUMENT',
      `batch of ${unpackedBytes} bytes once unpacked; the limit is ${limits.batchUnpackedBytesMax}: use ByteStream`,
    );
  }
}

function checkBatchBytes(bytes: number, what: 'read' | 'update'): void {
  if (bytes <= limits.batchBytesMax) return;
  throw new StatusError(
    'INVALID_ARGUMENT',
    `batch ${what} of ${bytes} bytes; the limit is ${limits.batchBytesMax}: split it, or use ByteStream`,
  );
}

/** A blob of a batch with its uncompressed bytes. Throws INVALID_ARGUMENT. */
function readEntry(
  { digest: wire, data, compressor }: BatchUpdateBlobsRequest_Request,
  fn: DigestFunction_Value,
  maxBlobBytes: number,
): { digest: Digest; bytes: Uint8Array } {
  const digest = fromWireDigest(wire, fn);
  if (digest.sizeBytes > maxBlobBytes) {
    throw new StatusError('INVALID_ARGUMENT', `blob of ${digest.sizeBytes} bytes; the limit is ${maxBlobBytes}`);
  }
  if (compressor === Compressor_Value.IDENTITY) {
    if (data.byteLength !== digest.sizeBytes) {
      const reason = `blob ${digest.hash}: ${data.byteLength} bytes of data for a size of ${digest.sizeBytes}`;
      throw new StatusError('INVALID_ARGUMENT', reason);
    }
    return { digest, bytes: data };
  }
  if (compressor !== Compressor_Value.ZSTD) {
    throw new StatusError('INVALID_ARGUMENT', `compressor ${compressor} is not supported; use IDENTITY or ZSTD`);
  }
  // Some clients compress the empty blob to no bytes at all.
  if (isEmptyDigest(digest) && data.byteLength === 0) return { digest, bytes: data };
  return { digest, bytes: decompressBlob(data, digest.sizeBytes) };
}
