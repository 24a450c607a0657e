/** The cache half of REAPI over a store: everything but Execution and Operations. */
import {
  ActionCache as ActionCacheService,
  Capabilities,
  ContentAddressableStorage,
} from '../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { ByteStream } from '../../protos/gen/google/bytestream/bytestream_pb.ts';
import type { ActionCache } from '../storage/action-cache.ts';
import type { BlobStore, LocalBlobStore } from '../storage/blob-store.ts';
import { createActionCache } from './action-cache.ts';
import { createByteStream } from './byte-stream.ts';
import { createCapabilities } from './capabilities.ts';
import { createCas } from './cas.ts';
import { type BoundService, bindService, type LogStreams } from './handler.ts';
import { checkInstances } from './instances.ts';
import { createSplitSplice } from './split-splice.ts';
import { splitWriteRequest } from './write-request.ts';

export interface CacheServicesOptions {
  readonly blobs: BlobStore & Pick<LocalBlobStore, 'putChunked'>;
  readonly actions: ActionCache;
  /** The largest blob taken; advertised, and at most what the store can ever hold. */
  readonly maxBlobBytes: number;
  /** Instance names that are served; all by default. */
  readonly instances?: readonly string[];
  /** Present when Execution is served beside these; advertised. */
  readonly execution?: { readonly supportedNodeProperties: readonly string[] };
  /** Output of running actions, for ByteStream.Read. */
  readonly logStreams?: LogStreams;
}

export function createCacheServices(options: CacheServicesOptions): BoundService[] {
  const { blobs, actions, maxBlobBytes } = options;
  const checkInstance = checkInstances(options.instances);
  return [
    bindService(Capabilities, createCapabilities(checkInstance, options)),
    bindService(ContentAddressableStorage, {
      ...createCas(blobs, checkInstance, maxBlobBytes),
      ...createSplitSplice(blobs, checkInstance, maxBlobBytes),
    }),
    bindService(ActionCacheService, createActionCache(blobs, actions, checkInstance)),
    bindService(ByteStream, createByteStream(blobs, checkInstance, options), { write: splitWriteRequest }),
  ];
}
