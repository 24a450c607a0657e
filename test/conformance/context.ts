/** What every part of a rule is given: the target, what it says it can do, and content nobody stored before. */
import { createCipheriv, createHash } from 'node:crypto';
import { type DigestFunction, digestFunctionNames, digestFunctions } from '../../protos/digest.ts';
import {
  ActionCache,
  Capabilities,
  Compressor_Value,
  ContentAddressableStorage,
  DigestFunction_Value,
  type ServerCapabilities,
} from '../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { StatusError } from '../../protos/status.ts';
import { type Client, connect } from './client.ts';
import type { Control } from './control.ts';
import { type Need, NotApplicable } from './rule.ts';

/** How long an address may take to answer before it counts as unreachable. */
const reachDeadlineMs = 10_000;

export interface Target {
  /** `host:port` of the gRPC server. */
  readonly grpc: string;
  /** `host:port` of the HTTP cache, when there is one. */
  readonly http?: string | undefined;
  readonly instance: string;
}

export interface Context extends Target {
  readonly client: Client;
  readonly capabilities: ServerCapabilities;
  /** The advertised digest functions that this suite can compute; never empty. */
  readonly functions: readonly DigestFunction[];
  /** The function that rules use when they are not about functions. */
  readonly fn: DigestFunction;
  /** Lets rules start, kill and restart servers of their own; absent on a bare target. */
  readonly control?: Control | undefined;
  /** Bytes that were not stored before; the same for the same seed and order of asking. */
  fresh(sizeBytes?: number): Buffer;
  /** Why a part with these needs does not apply, or `undefined`. */
  lacks(needs: readonly Need[]): string | undefined;
}

/** Connects and reads the capabilities. Throws UNAVAILABLE when nothing there speaks the protocol. */
export async function openContext(
  target: Target,
  options: { readonly seed: number; readonly control?: Control | undefined },
): Promise<Context> {
  const client = connect(target.grpc);
  const reply = await client.unary(
    Capabilities.method.getCapabilities,
    { instanceName: target.instance },
    { deadlineMs: reachDeadlineMs },
  );
  if (!reply.response) {
    client.close();
    throw new StatusError(
      'UNAVAILABLE',
      `${target.grpc} does not answer GetCapabilities for instance "${target.instance}": ${reply.code} ${reply.message}`,
    );
  }
  const capabilities = reply.response;
  const advertised = new Set(capabilities.cacheCapabilities?.digestFunctions ?? [DigestFunction_Value.SHA256]);
  const functions = digestFunctionNames.filter((fn) => advertised.has(digestFunctions[fn].wire));
  const [fn] = functions;
  if (!fn) {
    client.close();
    throw new StatusError('UNAVAILABLE', `${target.grpc} advertises no digest function that this suite can compute`);
  }
  const instances = (await servesOtherInstances(client, fn))
    ? undefined
    : 'serves no instance that it was not set up for';
  const reasons: Record<Need, string | undefined> = {
    execution: capabilities.executionCapabilities?.execEnabled ? undefined : 'exec_enabled is false',
    'update-action-cache': capabilities.cacheCapabilities?.actionCacheUpdateCapabilities?.updateEnabled
      ? undefined
      : 'update_enabled is false',
    zstd: capabilities.cacheCapabilities?.supportedCompressors.includes(Compressor_Value.ZSTD)
      ? undefined
      : 'ZSTD is not among supported_compressors',
    'batch-zstd': capabilities.cacheCapabilities?.supportedBatchUpdateCompressors.includes(Compressor_Value.ZSTD)
      ? undefined
      : 'ZSTD is not among supported_batch_update_compressors',
    blake3: functions.includes('blake3') ? undefined : 'BLAKE3 is not among digest_functions',
    instances,
    http: target.http ? undefined : 'no HTTP address was given (--http)',
    split: capabilities.cacheCapabilities?.splitBlobSupport ? undefined : 'split_blob_support is false',
    splice: capabilities.cacheCapabilities?.spliceBlobSupport ? undefined : 'splice_blob_support is false',
    control: options.control ? undefined : 'needs control of the server (start, kill -9, small cache)',
  };
  return {
    ...target,
    client,
    capabilities,
    functions,
    fn,
    control: options.control,
    fresh: freshBytes(options.seed),
    lacks: (needs) => needs.map((need) => reasons[need]).find((reason) => reason !== undefined),
  };
}

/** Control of servers, for parts that need it. */
export function controlOf(context: Context): Control {
  if (!context.control) throw new NotApplicable('needs control of the server');
  return context.control;
}

export function batchLimitBytes(context: Context): number | undefined {
  return Number(context.capabilities.cacheCapabilities?.maxBatchTotalSizeBytes ?? 0n) || undefined;
}

async function servesOtherInstances(client: Client, fn: DigestFunction): Promise<boolean> {
  const facts = digestFunctions[fn];
  const digest = { hash: 'ab'.repeat(facts.hexLength / 2), sizeBytes: 1n };
  for (const instanceName of ['conformance', 'conformance/b/c']) {
    const cas = await client.unary(ContentAddressableStorage.method.findMissingBlobs, {
      instanceName,
      blobDigests: [digest],
      digestFunction: facts.wire,
    });
    const ac = await client.unary(ActionCache.method.getActionResult, {
      instanceName,
      actionDigest: digest,
      digestFunction: facts.wire,
    });
    if (cas.code !== 'OK' || ac.code !== 'NOT_FOUND') return false;
  }
  return true;
}

/** A stream of incompressible bytes out of a seed. */
function freshBytes(seed: number): (sizeBytes?: number) => Buffer {
  const key = createHash('sha256').update(`potluck conformance ${seed}`).digest();
  const stream = createCipheriv('aes-256-ctr', key, Buffer.alloc(16));
  return (sizeBytes = 100) => stream.update(Buffer.alloc(sizeBytes));
}
