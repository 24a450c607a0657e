/** What the server says of itself, and a header: P19 and P22. */
import {
  Capabilities,
  ContentAddressableStorage,
  SymlinkAbsolutePathStrategy_Value,
} from '../../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { ByteStream } from '../../../protos/gen/google/bytestream/bytestream_pb.ts';
import { batchLimitBytes } from '../context.ts';
import {
  absentDigest,
  digestOf,
  isMissing,
  mustBeOk,
  mustRefuse,
  put,
  readBlob,
  readName,
  requestBase,
  wire,
  writeBlob,
  writeName,
} from '../fixtures.ts';
import { NotApplicable, type Rule, part } from '../rule.ts';

const cas = ContentAddressableStorage.method;

export const capabilityRules: readonly Rule[] = [
  {
    id: 'P19',
    title: 'Capabilities are kept',
    says: 'What is advertised works, limits hold, and versions and enumerations are coherent.',
    source: 'REAPI, GetCapabilities',
    parts: [
      part('versions', async (context, check) => {
        const { lowApiVersion: low, highApiVersion: high, deprecatedApiVersion: deprecated } = context.capabilities;
        check.must(low !== undefined && high !== undefined, 'low_api_version and high_api_version are not both set');
        const number = (version: typeof low) => (version ? version.major * 1000 + version.minor : 0);
        check.must(number(low) <= number(high), 'low_api_version is above high_api_version');
        if (deprecated)
          check.must(number(deprecated) <= number(low), 'deprecated_api_version is above low_api_version');
        check.saw(`versions ${low?.major}.${low?.minor} to ${high?.major}.${high?.minor}`);
      }),
      part('digest functions', async (context, check) => {
        const { cacheCapabilities: cache, executionCapabilities: execution } = context.capabilities;
        check.must((cache?.digestFunctions.length ?? 0) > 0, 'no digest function is advertised');
        check.must(!(cache?.digestFunctions as number[] | undefined)?.includes(0), 'UNKNOWN is advertised');
        for (const fn of context.functions) {
          const digest = await put(context, context.fresh(), fn);
          check.must(!(await isMissing(context, digest)), `${fn}: stored, but missing`);
        }
        if (!execution?.execEnabled) return;
        check.must(execution.digestFunction !== 0, 'the singular digest_function is UNKNOWN');
        if (execution.digestFunctions.length > 0) {
          check.must(
            execution.digestFunctions.includes(execution.digestFunction),
            'the singular digest_function is not in the list',
          );
        }
      }),
      part('enumerations', async (context, check) => {
        const cache = context.capabilities.cacheCapabilities;
        const strategy = cache?.symlinkAbsolutePathStrategy ?? 0;
        check.must(strategy !== SymlinkAbsolutePathStrategy_Value.UNKNOWN, 'symlink_absolute_path_strategy is UNKNOWN');
        for (const range of context.capabilities.executionCapabilities?.executionPriorityCapabilities?.priorities ??
          []) {
          check.must(range.minPriority <= range.maxPriority, 'a range of priorities is upside down');
        }
        for (const property of context.capabilities.executionCapabilities?.supportedNodeProperties ?? []) {
          check.must(/^(mtime|unix_mode)$/.test(property), `"${property}" among supported_node_properties`);
        }
      }),
      part('the largest blob', async (context, check) => {
        const max = context.capabilities.cacheCapabilities?.maxCasBlobSizeBytes ?? 0n;
        if (max === 0n) throw new NotApplicable('no max_cas_blob_size_bytes');
        const digest = { ...absentDigest(context), sizeBytes: Number(max) + 1 };
        const upload = context.client.upload(ByteStream.method.write, { deadlineMs: 10_000 });
        await upload.send({ resourceName: writeName(context, digest), data: context.fresh() });
        mustRefuse(check, 'a blob above max_cas_blob_size_bytes', await upload.reply, 'INVALID_ARGUMENT');
      }),
      part('a full batch fits into a message', async (context, check) => {
        const limit = batchLimitBytes(context);
        if (limit === undefined) throw new NotApplicable('no max_batch_total_size_bytes');
        if (limit > 64 * 1024 * 1024) throw new NotApplicable(`the limit of ${limit} bytes is too high to try`);
        const size = 16 * 1024;
        const blobs = Array.from({ length: Math.floor(limit / size) }, () => context.fresh(size));
        const requests = blobs.map((data) => ({ digest: wire(digestOf(context.fn, data)), data }));
        const reply = await context.client.unary(cas.batchUpdateBlobs, { ...requestBase(context), requests });
        mustBeOk(check, `${blobs.length} blobs of ${size} bytes`, reply);
      }),
      part('an unknown instance', async (context, check) => {
        const reply = await context.client.unary(Capabilities.method.getCapabilities, {
          instanceName: 'no/such/instance',
        });
        if (reply.code === 'OK') check.choice('any instance name is served');
        else mustRefuse(check, 'GetCapabilities', reply, 'NOT_FOUND', 'INVALID_ARGUMENT', 'PERMISSION_DENIED');
      }),
    ],
  },
  {
    id: 'P22',
    title: 'The resource-name header',
    says: 'When the header is sent on a ByteStream call it must equal the name in the message; otherwise INVALID_ARGUMENT.',
    source: 'REAPI, ContentAddressableStorage, resource-name header (2.12)',
    parts: [
      part('equal', async (context, check) => {
        const bytes = context.fresh();
        const digest = digestOf(context.fn, bytes);
        const upload = writeName(context, digest);
        mustBeOk(check, 'Write', await writeBlob(context, upload, bytes, { metadata: header(upload) }));
        const name = readName(context, digest);
        mustBeOk(check, 'Read', await readBlob(context, name, { metadata: header(name) }));
        const status = await context.client.unary(
          ByteStream.method.queryWriteStatus,
          { resourceName: upload },
          { metadata: header(upload) },
        );
        check.must(status.code === 'OK' || status.code === 'UNIMPLEMENTED', `QueryWriteStatus: ${status.code}`);
      }),
      part('different', async (context, check) => {
        const bytes = context.fresh();
        const digest = digestOf(context.fn, bytes);
        const upload = writeName(context, digest);
        const metadata = header(readName(context, absentDigest(context)));
        mustRefuse(check, 'Write', await writeBlob(context, upload, bytes, { metadata }), 'INVALID_ARGUMENT');
        await put(context, bytes);
        mustRefuse(check, 'Read', await readBlob(context, readName(context, digest), { metadata }), 'INVALID_ARGUMENT');
        const status = await context.client.unary(
          ByteStream.method.queryWriteStatus,
          { resourceName: upload },
          { metadata },
        );
        mustRefuse(check, 'QueryWriteStatus', status, 'INVALID_ARGUMENT', 'UNIMPLEMENTED');
      }),
    ],
  },
];

function header(resourceName: string) {
  return { 'build.bazel.remote.execution.v2.resource-name': resourceName };
}
