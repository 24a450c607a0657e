/** Batches, promises, trees, capabilities, headers and canonical form: P15 to P19, P22, P23. */
import { create, toBinary } from '@bufbuild/protobuf';
import type { Digest } from '../../../protos/digest.ts';
import {
  Capabilities,
  Compressor_Value,
  ContentAddressableStorage,
  type Directory,
  DirectorySchema,
  SymlinkAbsolutePathStrategy_Value,
} from '../../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { ByteStream } from '../../../protos/gen/google/bytestream/bytestream_pb.ts';
import { execute, failureOf, putAction, treeOf } from '../actions.ts';
import { type Context, openContext } from '../context.ts';
import {
  absentDigest,
  byBytes,
  digestOf,
  isMissing,
  mustBeOk,
  mustRefuse,
  put,
  putMessage,
  putTree,
  readBlob,
  readName,
  type TreeSpec,
  wire,
  wireFn,
  writeBlob,
  writeName,
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
          ...base(context),
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
          ...base(context),
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
        const limit = batchLimit(context);
        if (limit > 64 * 1024 * 1024) throw new NotApplicable(`the limit of ${limit} bytes is too high to try`);
        const send = (total: number) => {
          const blobs = [context.fresh(Math.floor(total / 2)), context.fresh(Math.ceil(total / 2))];
          return context.client.unary(cas.batchUpdateBlobs, {
            ...base(context),
            requests: blobs.map((data) => ({ digest: wire(digestOf(context.fn, data)), data })),
          });
        };
        if (limited(context)) mustBeOk(check, `${limit} bytes, the limit`, await send(limit));
        const codes = limited(context) ? (['INVALID_ARGUMENT', 'RESOURCE_EXHAUSTED'] as const) : (['OK'] as const);
        const above = await send(limit + 2);
        if (limited(context)) mustRefuse(check, 'above the limit', above, ...codes);
        else check.choice(`no limit advertised; ${limit + 2} bytes: ${above.code}`);
      }),
      part('a read above the limit', async (context, check) => {
        const limit = batchLimit(context);
        if (limit > 64 * 1024 * 1024) throw new NotApplicable(`the limit of ${limit} bytes is too high to try`);
        const digests: Digest[] = [];
        for (let index = 0; index < 3; index++) digests.push(await put(context, context.fresh(Math.ceil(limit * 0.7))));
        const reply = await context.client.unary(cas.batchReadBlobs, { ...base(context), digests: digests.map(wire) });
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
            ...base(context),
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
          ...base(context),
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
            ...base(context),
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
          ...base(context),
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
        const reply = await context.client.unary(cas.findMissingBlobs, base(context));
        if (mustBeOk(check, 'no digests', reply)) {
          check.must(reply.response?.missingBlobDigests.length === 0, 'something is missing');
        }
      }),
      part('a large request', async (context, check) => {
        const digest = absentDigest(context);
        const count = 60_000;
        const blobDigests = Array.from({ length: count }, (_, index) => ({
          hash: index.toString(16).padStart(8, '0') + digest.hash.slice(8),
          sizeBytes: 100n,
        }));
        const reply = await context.client.unary(cas.findMissingBlobs, { ...base(context), blobDigests });
        if (reply.code === 'RESOURCE_EXHAUSTED') return check.choice('more than 4 MiB of digests: RESOURCE_EXHAUSTED');
        if (!mustBeOk(check, `${count} digests`, reply)) return;
        check.must(reply.response?.missingBlobDigests.length === count, 'not all are listed');
      }),
      part('asking keeps a blob', ['control'], async (context, check) => {
        const blobBytes = 1024 * 1024;
        await using server = await control(context).start({ cacheSizeBytes: 32 * blobBytes });
        const small = await openContext(server.target, { seed: 17 });
        try {
          const kept = await put(small, small.fresh(blobBytes));
          const others: Digest[] = [];
          for (let index = 0; index < 60; index++) {
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
  {
    id: 'P18',
    title: 'GetTree',
    says: 'Pages of the directories below a root; a missing subtree is left out, a missing root is NOT_FOUND.',
    source: 'REAPI, GetTree',
    parts: [
      part('whole and in pages', async (context, check) => {
        const spec: TreeSpec = Object.fromEntries(
          Array.from({ length: 25 }, (_, index) => [
            `d${index}`,
            { dir: { [`f${index}`]: `${context.fresh(4).toString('hex')}` } },
          ]),
        );
        const root = await putTree(context, spec);
        const whole = await tree(context, root, 0);
        if (!mustBeOk(check, 'whole', whole)) return;
        const hashes = hashesOf(context, whole.directories);
        check.must(hashes.has(root.hash), 'the root is not among them');
        check.must(hashes.size === 26, `${hashes.size} of 26 directories`);
        if (hashesOf(context, whole.directories.slice(0, 1)).has(root.hash) === false)
          check.choice('the root does not come first');
        const paged = new Map<string, number>();
        let pageToken = '';
        let pages = 0;
        do {
          const reply = await context.client.collect(cas.getTree, {
            ...base(context),
            rootDigest: wire(root),
            pageSize: 10,
            pageToken,
          });
          if (!mustBeOk(check, `page ${pages + 1}`, reply)) return;
          for (const message of reply.messages) {
            check.must(message.directories.length <= 10, `${message.directories.length} directories in a page of 10`);
            for (const hash of hashesOf(context, message.directories)) paged.set(hash, (paged.get(hash) ?? 0) + 1);
          }
          const next = reply.messages.at(-1)?.nextPageToken ?? '';
          check.must(next === '' || next !== pageToken, 'the token does not move');
          pageToken = next;
          pages += 1;
        } while (pageToken !== '' && pages < 30);
        check.must(paged.size === 26, `${paged.size} of 26 directories over ${pages} calls`);
        check.saw(`${pages} calls of at most 10 directories`);
      }),
      part('a token starts where the page ended', async (context, check) => {
        const spec = Object.fromEntries(
          Array.from({ length: 12 }, (_, index) => [`d${index}`, { dir: { f: context.fresh(4).toString('hex') } }]),
        );
        const root = await putTree(context, spec);
        const first = await context.client.collect(cas.getTree, {
          ...base(context),
          rootDigest: wire(root),
          pageSize: 5,
        });
        const [page] = first.messages;
        if (!page || page.nextPageToken === '') {
          return check.choice(
            first.messages.length > 1 ? 'all pages in one stream' : 'page_size is not kept, one page for all',
          );
        }
        const before = hashesOf(context, page.directories);
        const rest = await context.client.collect(cas.getTree, {
          ...base(context),
          rootDigest: wire(root),
          pageSize: 100,
          pageToken: page.nextPageToken,
        });
        if (!mustBeOk(check, 'with the token', rest)) return;
        const after = hashesOf(
          context,
          rest.messages.flatMap((message) => message.directories),
        );
        check.must(
          new Set([...before, ...after]).size === 13,
          `${before.size} + ${after.size} directories do not make 13`,
        );
        check.must(
          [...before].every((hash) => !after.has(hash)),
          'directories of the first page come again',
        );
      }),
      part('a token that is none', async (context, check) => {
        const root = await putTree(context, { d: { dir: {} } });
        const reply = await context.client.collect(cas.getTree, {
          ...base(context),
          rootDigest: wire(root),
          pageToken: 'not a token of yours',
        });
        mustRefuse(check, 'a made-up token', reply, 'INVALID_ARGUMENT', 'OK');
      }),
      part('a missing subtree', async (context, check) => {
        const lost = absentDigest(context);
        const kept = await putTree(context, { file: 'x' });
        const root = await putMessage(context, DirectorySchema, {
          directories: [
            { name: 'a', digest: wire(lost) },
            { name: 'b', digest: wire(kept) },
          ],
        });
        const reply = await tree(context, root, 0);
        if (!mustBeOk(check, 'a root with a missing subtree', reply)) return;
        const hashes = hashesOf(context, reply.directories);
        check.must(hashes.has(root.hash) && hashes.has(kept.hash), `only ${hashes.size} of 2 directories`);
      }),
      part('a missing root', async (context, check) => {
        mustRefuse(check, 'GetTree', await tree(context, absentDigest(context), 0), 'NOT_FOUND');
      }),
      part('a root that is no Directory', async (context, check) => {
        const root = await put(context, Buffer.concat([Buffer.from([0xff, 0xff, 0xff]), context.fresh()]));
        mustRefuse(
          check,
          'GetTree',
          await tree(context, root, 0),
          'INVALID_ARGUMENT',
          'FAILED_PRECONDITION',
          'NOT_FOUND',
        );
      }),
      part('a shared and a deep tree', async (context, check) => {
        let root = await putTree(context, { leaf: context.fresh(8).toString('hex') });
        for (let depth = 0; depth < 40; depth++) {
          const digest = wire(root);
          root = await putMessage(context, DirectorySchema, {
            directories: [
              { name: 'a', digest },
              { name: 'b', digest },
            ],
          });
        }
        // Two to the fortieth paths lead to forty-one directories.
        const reply = await tree(context, root, 0);
        if (reply.code === 'OK') {
          check.must(
            hashesOf(context, reply.directories).size === 41,
            `${hashesOf(context, reply.directories).size} of 41 directories`,
          );
          check.must(reply.directories.length < 10_000, `${reply.directories.length} directories were sent`);
        } else mustRefuse(check, 'a tree of 2^40 paths', reply, 'RESOURCE_EXHAUSTED', 'INVALID_ARGUMENT');
      }),
    ],
  },
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
        if (!limited(context)) throw new NotApplicable('no max_batch_total_size_bytes');
        const limit = batchLimit(context);
        if (limit > 64 * 1024 * 1024) throw new NotApplicable(`the limit of ${limit} bytes is too high to try`);
        const size = 16 * 1024;
        const blobs = Array.from({ length: Math.floor(limit / size) }, () => context.fresh(size));
        const requests = blobs.map((data) => ({ digest: wire(digestOf(context.fn, data)), data }));
        const reply = await context.client.unary(cas.batchUpdateBlobs, { ...base(context), requests });
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
  {
    id: 'P23',
    title: 'Directories in canonical form',
    says: 'Entries are sorted by the bytes of their names, names are unique single segments.',
    source: 'REAPI, message Directory',
    parts: [
      part('inputs sorted by bytes', ['execution'], async (context, check) => {
        // Ordered by UTF-16 units these two names change places.
        const done = await execute(
          context,
          await putAction(context, { script: 'cat *', inputs: { '\uff61': 'a', '\u{1f600}': 'b' } }),
        );
        if (mustBeOk(check, 'names beyond the basic plane', failureOf(done))) {
          check.must(done.result?.exitCode === 0, done.summary);
        }
      }),
      part('outputs sorted by bytes', ['execution'], async (context, check) => {
        const names = ['\uff61', '\u{1f600}', 'a', 'B', 'a-b', 'a.b'];
        const script = `mkdir out && cd out && touch ${names.map((name) => `'${name}'`).join(' ')}`;
        const done = await execute(context, await putAction(context, { script, outputPaths: ['out'] }));
        const listed = (await treeOf(context, done, 'out'))?.tree.root?.files.map((file) => file.name);
        const expected = names.toSorted(byBytes);
        check.must(
          JSON.stringify(listed) === JSON.stringify(expected),
          `${listed?.join(' ')} instead of ${expected.join(' ')}`,
        );
      }),
      part('not sorted', ['execution'], async (context, check) => {
        const file = wire(await put(context, Buffer.from('x')));
        const code = await runRoot(context, {
          files: [
            { name: 'b', digest: file },
            { name: 'a', digest: file },
          ],
        });
        if (code === 'OK') check.choice('unsorted entries are tolerated');
        else check.must(code === 'INVALID_ARGUMENT' || code === 'FAILED_PRECONDITION', `unsorted entries: ${code}`);
      }),
      part('names that cannot be', ['execution'], async (context, check) => {
        const file = wire(await put(context, Buffer.from('x')));
        const empty = wire(digestOf(context.fn, Buffer.alloc(0)));
        const bad: [string, Parameters<typeof runRoot>[1]][] = [
          [
            'a name twice',
            {
              files: [
                { name: 'a', digest: file },
                { name: 'a', digest: file },
              ],
            },
          ],
          [
            'a file and a directory of one name',
            { files: [{ name: 'a', digest: file }], directories: [{ name: 'a', digest: empty }] },
          ],
          [
            'a file and a link of one name',
            { files: [{ name: 'a', digest: file }], symlinks: [{ name: 'a', target: 'b' }] },
          ],
          ['..', { files: [{ name: '..', digest: file }] }],
          ['.', { directories: [{ name: '.', digest: empty }] }],
          ['a path', { files: [{ name: 'a/b', digest: file }] }],
          ['an empty name', { files: [{ name: '', digest: file }] }],
          ['a path that leads out', { files: [{ name: '../../escaped', digest: file }] }],
          ['a zero byte', { files: [{ name: 'a\0b', digest: file }] }],
        ];
        for (const [what, root] of bad) {
          const code = await runRoot(context, root);
          check.must(code === 'INVALID_ARGUMENT' || code === 'FAILED_PRECONDITION', `${what}: ${code}`);
        }
      }),
    ],
  },
];

function base(context: Context) {
  return { instanceName: context.instance, digestFunction: wireFn(context.fn) };
}

function limited(context: Context): boolean {
  return (context.capabilities.cacheCapabilities?.maxBatchTotalSizeBytes ?? 0n) > 0n;
}

function batchLimit(context: Context): number {
  return Number(context.capabilities.cacheCapabilities?.maxBatchTotalSizeBytes ?? 0n) || messageCapBytes;
}

export function control(context: Context) {
  if (!context.control) throw new NotApplicable('needs control of the server');
  return context.control;
}

function header(resourceName: string) {
  return { 'build.bazel.remote.execution.v2.resource-name': resourceName };
}

async function tree(context: Context, root: Digest, pageSize: number) {
  const reply = await context.client.collect(cas.getTree, { ...base(context), rootDigest: wire(root), pageSize });
  return { ...reply, directories: reply.messages.flatMap((message) => message.directories) };
}

function hashesOf(context: Context, directories: readonly Directory[]): Set<string> {
  return new Set(directories.map((directory) => digestOf(context.fn, toBinary(DirectorySchema, directory)).hash));
}

async function runRoot(context: Context, root: Parameters<typeof create<typeof DirectorySchema>>[1]): Promise<string> {
  const inputRoot = await putMessage(context, DirectorySchema, root ?? {});
  return failureOf(await execute(context, await putAction(context, { inputRoot }))).code;
}
