/**
 * What this server offers, as clients ask for it before anything else.
 *
 * Old clients need more than the newest text says: low version 2.0, a singular digest function that is SHA256, and
 * priority ranges although priorities are optional.
 */
import { create } from '@bufbuild/protobuf';
import { digestFunctionNames, digestFunctions } from '../../protos/digest.ts';
import {
  CacheCapabilitiesSchema,
  type Capabilities,
  Compressor_Value,
  DigestFunction_Value,
  ExecutionCapabilitiesSchema,
  ServerCapabilitiesSchema,
  SymlinkAbsolutePathStrategy_Value,
} from '../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import type { ServiceHandlers } from './handler.ts';
import type { InstanceCheck } from './instances.ts';
import { limits } from './limits.ts';

export interface CapabilitiesConfig {
  readonly maxBlobBytes: number;
  /** Absent when this server does not execute. */
  readonly execution?: { readonly supportedNodeProperties: readonly string[] };
}

export function createCapabilities(
  checkInstance: InstanceCheck,
  config: CapabilitiesConfig,
): ServiceHandlers<typeof Capabilities> {
  const digests = digestFunctionNames.map((fn) => digestFunctions[fn].wire);
  const { min, max } = limits.priorities;
  const priorities = { priorities: [{ minPriority: min, maxPriority: max }] };
  const capabilities = create(ServerCapabilitiesSchema, {
    lowApiVersion: { major: 2, minor: 0 },
    highApiVersion: { major: 2, minor: 12 },
    cacheCapabilities: create(CacheCapabilitiesSchema, {
      digestFunctions: digests,
      actionCacheUpdateCapabilities: { updateEnabled: true },
      cachePriorityCapabilities: priorities,
      maxBatchTotalSizeBytes: BigInt(limits.batchBytesMax),
      symlinkAbsolutePathStrategy: SymlinkAbsolutePathStrategy_Value.ALLOWED,
      supportedCompressors: [Compressor_Value.IDENTITY, Compressor_Value.ZSTD],
      supportedBatchUpdateCompressors: [Compressor_Value.IDENTITY, Compressor_Value.ZSTD],
      maxCasBlobSizeBytes: BigInt(config.maxBlobBytes),
      splitBlobSupport: true,
      spliceBlobSupport: true,
      fastCdc2020Params: { avgChunkSizeBytes: BigInt(limits.chunkAverageBytes), seed: 0 },
    }),
    ...(config.execution && {
      executionCapabilities: create(ExecutionCapabilitiesSchema, {
        digestFunction: DigestFunction_Value.SHA256,
        digestFunctions: digests,
        execEnabled: true,
        executionPriorityCapabilities: priorities,
        supportedNodeProperties: [...config.execution.supportedNodeProperties],
      }),
    }),
  });
  return {
    async getCapabilities(request) {
      checkInstance(request.instanceName);
      return capabilities;
    },
  };
}
