/** Batches and promises: P15 to P17. */
import type { Digest } from '../../../protos/digest.ts';
import {
  Compressor_Value,
  ContentAddressableStorage,
} from '../../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { batchLimitBytes, controlOf, openContext } from '../context.ts';
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
  zstd,
} from '../fixtures.ts';
import { NotApplicable, type Rule, part } from '../rule.ts';

const cas = ContentAddressableStorage.method;
/** What gRPC receivers take by default; a batch limit of 0 means "no other limit". */
const messageCapBytes = 4 * 1024 * 1024;

export const batchRules: readonly Rule[] = [
  {
    id: 'P15',
    title: 'Limits of a batch',
    says: 'Above the advertised total the call is INVALID_ARGUMENT; below it each blob has its own status and the call is OK.',
    source: 'REAPI, BatchUpdateBlobs and BatchReadBlobs',
    parts: [
      part('good, corrupt and repeated together', async (context, check) => {
        const good = context.fresh();
        const corrupt = context.fresh();
        const digests = [digestOf(context.fn, good), digestOf(context.fn, corrupt)] as const;
        const reply = await context.client.unary(cas.batchUpdateBlobs, {
          ...requestBase(context),
          requests: [
            { digest: wire(digests[0]), data: good },
            { digest: wire(digests[1]), data: context.fresh() },
            { digest: wire(digests[0]), data: good },
          ],
        });
        if (!mustBeOk(check, 'the call', reply)) return;
        const entries = reply.response?.responses ?? [];
        for (const { digest, status } of entries) {
          const expected = digest?.hash === digests[1].hash ? 3 : 0;
          check.must(
            (status?.code ?? 0) === expected,
            `${digest?.hash.slice(0, 8)}: ${status?.code ?? 0}, not ${expected}`,
          );
        }
        const named = new Set(entries.map((entry) => entry.digest?.hash));
        check.must(named.size === 2, `${named.size} of 2 digests answered`);
        check.must(await isMissing(context, digests[1]), 'the corrupt one is there');
        check.must(!(await isMissing(context, digests[0])), 'the good one is not there');
      }),
      part('present, absent and repeated together', async (context, check) => {
        const present = await put(context, context.fresh());
        const absent = absentDigest(context);
        const reply = await context.client.unary(cas.batchReadBlobs, {
          ...requestBase(context),
          digests: [present, absent, present].map(wire),
        });
        if (!mustBeOk(check, 'the call', reply)) return;
        for (const { digest, status, data } of reply.response?.responses ?? []) {
          const found = digest?.hash === present.hash;
          check.must((status?.code ?? 0) === (found ? 0 : 5), `${found ? 'present' : 'absent'}: ${status?.code ?? 0}`);
          check.must(data.byteLength === (found ? present.sizeBytes : 0), `${data.byteLength} bytes`);
        }
        check.must((reply.response?.responses.length ?? 0) >= 2, 'not every digest is answered');
      }),
      part('an update at the limit and above it', async (context, check) => {
        const limit = batchLimitBytes(context) ?? messageCapBytes;
        const advertised = batchLimitBytes(context) !== undefined;
        if (limit > 64 * 1024 * 1024) throw new NotApplicable(`the limit of ${limit} bytes is too high to try`);
        const send = (total: number) => {
          const blobs = [context.fresh(Math.floor(total / 2)), context.fresh(Math.ceil(total / 2))];
          return context.client.unary(cas.batchUpdateBlobs, {
            ...requestBase(context),
            requests: blobs.map((data) => ({ digest: wire(digestOf(context.fn, data)), data })),
          });
        };
        if (advertised) mustBeOk(check, `${limit} bytes, the limit`, await send(limit));
        const codes = advertised ? (['INVALID_ARGUMENT', 'RESOURCE_EXHAUSTED'] as const) : (['OK'] as const);
        const above = await send(limit + 2);
        if (advertised) mustRefuse(check, 'above the limit', above, ...codes);
        else check.choice(`no limit advertised; ${limit + 2} bytes: ${above.code}`);
      }),
      part('a read above the limit', async (context, check) => {
        const limit = batchLimitBytes(context) ?? messageCapBytes;
        if (limit > 64 * 1024 * 1024) throw new NotApplicable(`the limit of ${limit} bytes is too high to try`);
        const digests: Digest[] = [];
        for (let index = 0; index < 3; index++) digests.push(await put(context, context.fresh(Math.ceil(limit * 0.7))));
        const reply = await context.client.unary(cas.batchReadBlobs, {
          ...requestBase(context),
          digests: digests.map(wire),
        });
        if (reply.code !== 'OK') {
          mustRefuse(check, 'the call', reply, 'INVALID_ARGUMENT', 'RESOURCE_EXHAUSTED');
          return;
        }
        const sent = (reply.response?.responses ?? []).reduce((sum, entry) => sum + entry.data.byteLength, 0);
        check.must(sent <= Math.max(limit, messageCapBytes), `a response of ${sent} bytes for a limit of ${limit}`);
        check.choice('refused blob by blob');
      }),
    ],
  },
  {
    id: 'P16',
    title: 'Compression in batches',
    says: 'Uploads use advertised compressors, downloads one that the client accepts or none; the digest is that of the plain bytes.',
    source: 'REAPI, BatchUpdateBlobs and BatchReadBlobs',
    parts: [
      part('download', async (context, check) => {
        const bytes = Buffer.alloc(50_000, context.fresh(10));
        const digest = wire(await put(context, bytes));
        for (const acceptableCompressors of [
          [],
          [Compressor_Value.ZSTD],
          [Compressor_Value.DEFLATE, Compressor_Value.BROTLI],
        ]) {
          const reply = await context.client.unary(cas.batchReadBlobs, {
            ...requestBase(context),
            digests: [digest],
            acceptableCompressors,
          });
          if (!mustBeOk(check, `accepting ${acceptableCompressors.join(' ')}`, reply)) continue;
          const entry = reply.response?.responses[0];
          const used = entry?.compressor ?? Compressor_Value.IDENTITY;
          const accepted = used === Compressor_Value.IDENTITY || (acceptableCompressors as number[]).includes(used);
          check.must(accepted, `compressor ${used} was not asked for`);
          const data = Buffer.from(entry?.data ?? []);
          const plain = used === Compressor_Value.ZSTD ? await zstd.decompress(data) : data;
          if (used <= Compressor_Value.ZSTD)
            check.must(plain?.equals(bytes) ?? false, `compressor ${used}: other bytes`);
          if (acceptableCompressors[0] === Compressor_Value.ZSTD) check.saw(`zstd accepted: compressor ${used} used`);
        }
      }),
      part('upload', ['batch-zstd'], async (context, check) => {
        const bytes = Buffer.alloc(50_000, context.fresh(10));
        const digest = digestOf(context.fn, bytes);
        const wrong = context.fresh();
        const reply = await context.client.unary(cas.batchUpdateBlobs, {
          ...requestBase(context),
          requests: [
            { digest: wire(digest), data: zstd.compress(bytes), compressor: Compressor_Value.ZSTD },
            { digest: wire(digestOf(context.fn, wrong)), data: wrong, compressor: Compressor_Value.ZSTD },
          ],
        });
        if (!mustBeOk(check, 'the call', reply)) return;
        const [first, second] = reply.response?.responses ?? [];
        check.must((first?.status?.code ?? 0) === 0, `zstd: ${first?.status?.code} ${first?.status?.message}`);
        check.must(second?.status?.code === 3, `bytes that are not zstd: ${second?.status?.code ?? 0}`);
        check.must(!(await isMissing(context, digest)), 'missing afterwards');
      }),
      part('a compressor that is not advertised', async (context, check) => {
        const supported = context.capabilities.cacheCapabilities?.supportedBatchUpdateCompressors ?? [];
        const candidates = [Compressor_Value.DEFLATE, Compressor_Value.BROTLI, 77].filter(
          (value) => !(supported as number[]).includes(value),
        );
        for (const compressor of candidates) {
          const bytes = context.fresh();
          const reply = await context.client.unary(cas.batchUpdateBlobs, {
            ...requestBase(context),
            requests: [
              { digest: wire(digestOf(context.fn, bytes)), data: bytes, compressor: compressor as Compressor_Value },
            ],
          });
          const entry = reply.response?.responses[0]?.status?.code ?? 0;
          if (reply.code === 'INVALID_ARGUMENT') check.choice(`compressor ${compressor}: the whole call is refused`);
          else
            check.must(reply.code === 'OK' && entry === 3, `compressor ${compressor}: ${reply.code}, entry ${entry}`);
        }
      }),
    ],
  },
  {
    id: 'P17',
    title: 'Not missing is a promise',
    says: 'What FindMissingBlobs leaves out can be read now, and its life is lengthened.',
    source: 'REAPI, FindMissingBlobs',
    parts: [
      part('present means readable', async (context, check) => {
        const digests: Digest[] = [];
        for (let index = 0; index < 20; index++) digests.push(await put(context, context.fresh(100 + index * 1000)));
        const absent = absentDigest(context);
        const reply = await context.client.unary(cas.findMissingBlobs, {
          ...requestBase(context),
          blobDigests: [...digests, absent, absent, ...digests].map(wire),
        });
        if (!mustBeOk(check, 'with repeated digests', reply)) return;
        const missing = new Set(reply.response?.missingBlobDigests.map((digest) => digest.hash));
        check.must(missing.has(absent.hash), 'what is absent is not listed');
        for (const digest of digests) {
          check.must(!missing.has(digest.hash), 'what was stored is listed');
          const read = await readBlob(context, readName(context, digest));
          check.must(read.code === 'OK', `not listed as missing, but Read says ${read.code}`);
        }
        const listed = reply.response?.missingBlobDigests.length ?? 0;
        if (listed > 1) check.choice('a repeated digest is listed each time');
      }),
      part('an empty request', async (context, check) => {
        const reply = await context.client.unary(cas.findMissingBlobs, requestBase(context));
        if (mustBeOk(check, 'no digests', reply)) {
          check.must(reply.response?.missingBlobDigests.length === 0, 'something is missing');
        }
      }),
      part('a large request', async (context, check) => {
        const digest = absentDigest(context);
        // Of the latter neither request nor answer fits in a message of 4 MiB.
        for (const count of [40_000, 60_000]) {
          const blobDigests = Array.from({ length: count }, (_, index) => ({
            hash: index.toString(16).padStart(8, '0') + digest.hash.slice(8),
            sizeBytes: 100n,
          }));
          const reply = await context.client.unary(cas.findMissingBlobs, { ...requestBase(context), blobDigests });
          if (reply.code === 'RESOURCE_EXHAUSTED') check.choice(`${count} digests: RESOURCE_EXHAUSTED`);
          else if (mustBeOk(check, `${count} digests`, reply)) {
            check.must(reply.response?.missingBlobDigests.length === count, `not all ${count} are listed`);
          }
        }
      }),
      part('asking keeps a blob', ['control'], async (context, check) => {
        const blobBytes = 512 * 1024;
        await using server = await controlOf(context).start({ cacheSizeBytes: 32 * blobBytes });
        const small = await openContext(server.target, { seed: 17 });
        try {
          const kept = await put(small, small.fresh(blobBytes));
          const others: Digest[] = [];
          for (let index = 0; index < 45; index++) {
            others.push(await put(small, small.fresh(blobBytes)));
            check.must(
              !(await isMissing(small, kept)),
              `gone after ${index + 1} other blobs although asked for each time`,
            );
          }
          const gone = (await Promise.all(others.map((digest) => isMissing(small, digest)))).filter(Boolean).length;
          check.must(gone > 0, 'nothing was evicted from a store of half the size');
          check.saw(`${gone} of ${others.length} others evicted`);
        } finally {
          small.client.close();
        }
      }),
    ],
  },
];
