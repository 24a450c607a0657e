import { zstdCompressSync, zstdDecompressSync } from 'node:zlib';
import { create, toBinary } from '@bufbuild/protobuf';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { limits } from '../../../node/reapi/limits.ts';
import {
  type Digest,
  digestFunctionNames,
  digestFunctions,
  emptyDigest,
  toWireDigest,
} from '../../../protos/digest.ts';
import {
  ActionResultSchema,
  Compressor_Value,
  DigestFunction_Value,
  type Directory,
  DirectorySchema,
} from '../../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { codeName } from '../../../protos/status.ts';
import { blobOf, type Cache, codeOf, noise, startCache } from './harness.ts';

let cache: Cache;
beforeAll(async () => {
  cache = await startCache();
});
afterAll(() => cache[Symbol.asyncDispose]());

let seed = 5000;
const fresh = (length: number, fn: Digest['fn'] = 'sha256') => {
  seed += 1;
  return blobOf(noise(length, seed), fn);
};
const wire = (digest: Digest) => toWireDigest(digest);
const codesOf = (responses: readonly { status?: { code: number } | undefined }[]) =>
  responses.map(({ status }) => codeName(status?.code ?? 0));

describe('FindMissingBlobs', () => {
  test('names what is not held, once, in order; the empty blob never', async () => {
    const held = fresh(10);
    await cache.store.blobs.putMany([held]);
    const [first, second] = [fresh(10).digest, fresh(20).digest];
    const blobDigests = [first, held.digest, second, first, emptyDigest('sha256'), { ...held.digest, sizeBytes: 11 }];
    const response = await cache.cas.findMissingBlobs({ blobDigests: blobDigests.map(wire) });
    expect(response.missingBlobDigests).toEqual([first, second, { ...held.digest, sizeBytes: 11 }].map(wire));
    expect((await cache.cas.findMissingBlobs({})).missingBlobDigests).toEqual([]);
  });

  test('takes more digests than fit in 4 MiB, but answers in no larger message', async () => {
    const held = { hash: emptyDigest('sha256').hash, sizeBytes: 0n };
    const absent = (count: number) =>
      Array.from({ length: count }, (_, index) => ({
        hash: index.toString(16).padStart(64, '0'),
        sizeBytes: BigInt(index + 1),
      }));
    const many = [...absent(50_000), ...Array.from({ length: 20_000 }, () => held)];
    const { missingBlobDigests } = await cache.cas.findMissingBlobs({ blobDigests: many });
    expect(missingBlobDigests).toHaveLength(50_000);
    await expect(cache.cas.findMissingBlobs({ blobDigests: absent(70_000) })).rejects.toMatchObject({
      code: 'RESOURCE_EXHAUSTED',
      message: expect.stringContaining('ask for fewer'),
    });
  });

  test.each([
    ['upper case', { hash: 'A'.repeat(64), sizeBytes: 1n }],
    ['too short', { hash: 'ab', sizeBytes: 1n }],
    ['a path', { hash: '../'.repeat(21) + 'a', sizeBytes: 1n }],
    ['a negative size', { hash: 'a'.repeat(64), sizeBytes: -1n }],
  ])('refuses %s', async (_what, digest) => {
    expect(await codeOf(cache.cas.findMissingBlobs({ blobDigests: [digest] }))).toBe('INVALID_ARGUMENT');
  });

  test('refuses functions that are not advertised', async () => {
    const call = cache.cas.findMissingBlobs({
      blobDigests: [{ hash: 'a'.repeat(64), sizeBytes: 1n }],
      digestFunction: DigestFunction_Value.SHA256TREE,
    });
    expect(await codeOf(call)).toBe('INVALID_ARGUMENT');
  });

  test('a SHA256 blob is not a BLAKE3 blob', async () => {
    const bytes = noise(100, 4711);
    const sha256 = blobOf(bytes, 'sha256');
    const blake3 = blobOf(bytes, 'blake3');
    await cache.store.blobs.putMany([sha256]);
    const find = async (digest: Digest, fn: Digest['fn']) =>
      (await cache.cas.findMissingBlobs({ blobDigests: [wire(digest)], digestFunction: digestFunctions[fn].wire }))
        .missingBlobDigests.length;
    expect(await find(sha256.digest, 'sha256')).toBe(0);
    expect(await find(sha256.digest, 'blake3')).toBe(1);
    expect(await find(blake3.digest, 'blake3')).toBe(1);
  });
});

describe('batches', () => {
  test('each blob gets its own status', async () => {
    const [good, packed, wrong, short] = [fresh(100), fresh(5000), fresh(100), fresh(100)];
    const { responses } = await cache.cas.batchUpdateBlobs({
      requests: [
        { digest: wire(good.digest), data: good.bytes },
        { digest: wire(packed.digest), data: zstdCompressSync(packed.bytes), compressor: Compressor_Value.ZSTD },
        { digest: wire(wrong.digest), data: good.bytes },
        { digest: wire({ ...short.digest, sizeBytes: 101 }), data: short.bytes },
        { digest: wire(good.digest), data: good.bytes, compressor: Compressor_Value.DEFLATE },
        { digest: wire(good.digest), data: good.bytes },
        { digest: wire(emptyDigest('sha256')) },
        { data: good.bytes },
      ],
    });
    const bad = 'INVALID_ARGUMENT';
    expect(codesOf(responses)).toEqual(['OK', 'OK', bad, bad, bad, 'OK', 'OK', bad]);

    const absent = fresh(10);
    const read = await cache.cas.batchReadBlobs({
      digests: [good, packed, absent, good, { digest: emptyDigest('sha256') }].map(({ digest }) => wire(digest)),
    });
    expect(codesOf(read.responses)).toEqual(['OK', 'OK', 'NOT_FOUND', 'OK', 'OK']);
    expect(Buffer.from(read.responses[1]?.data ?? []).equals(packed.bytes)).toBe(true);
    expect(read.responses[4]?.data).toHaveLength(0);
  });

  test('works for every function', async () => {
    for (const fn of digestFunctionNames) {
      const { bytes, digest } = fresh(50, fn);
      const digestFunction = digestFunctions[fn].wire;
      const update = await cache.cas.batchUpdateBlobs({
        requests: [{ digest: wire(digest), data: bytes }],
        digestFunction,
      });
      expect(codesOf(update.responses)).toEqual(['OK']);
      const read = await cache.cas.batchReadBlobs({ digests: [wire(digest)], digestFunction });
      expect(Buffer.from(read.responses[0]?.data ?? []).equals(bytes)).toBe(true);
    }
  });

  test('compresses only for those who accept it', async () => {
    const text = blobOf('potluck '.repeat(1000));
    await cache.store.blobs.putMany([text]);
    const read = async (acceptable: Compressor_Value[]) =>
      (await cache.cas.batchReadBlobs({ digests: [wire(text.digest)], acceptableCompressors: acceptable }))
        .responses[0];
    const plain = await read([Compressor_Value.DEFLATE]);
    expect(plain?.compressor).toBe(Compressor_Value.IDENTITY);
    const packed = await read([Compressor_Value.ZSTD]);
    expect(packed?.compressor).toBe(Compressor_Value.ZSTD);
    expect(zstdDecompressSync(packed?.data ?? new Uint8Array()).toString()).toBe('potluck '.repeat(1000));
  });

  test('a total at the limit passes, one byte more is refused as a whole', async () => {
    const { bytes, digest } = fresh(limits.batchBytesMax);
    const { responses } = await cache.cas.batchUpdateBlobs({ requests: [{ digest: wire(digest), data: bytes }] });
    expect(codesOf(responses)).toEqual(['OK']);
    expect(codesOf((await cache.cas.batchReadBlobs({ digests: [wire(digest)] })).responses)).toEqual(['OK']);
    const more = fresh(1);
    const requests = [
      { digest: wire(digest), data: bytes },
      { digest: wire(more.digest), data: more.bytes },
    ];
    expect(await codeOf(cache.cas.batchUpdateBlobs({ requests }))).toBe('INVALID_ARGUMENT');
    const digests = [wire(digest), wire(more.digest)];
    expect(await codeOf(cache.cas.batchReadBlobs({ digests }))).toBe('INVALID_ARGUMENT');
  });

  test('a response never exceeds 4 MiB: what has no room says so', async () => {
    const blobs = Array.from({ length: 40 }, () => fresh(99_000));
    await cache.store.blobs.putMany(blobs);
    const digests = Array.from({ length: 4_000 }, () => wire(emptyDigest('sha256')));
    digests.push(...blobs.map(({ digest }) => wire(digest)));
    const { responses } = await cache.cas.batchReadBlobs({ digests });
    const codes = codesOf(responses);
    expect(codes.slice(0, 4_000).every((code) => code === 'OK')).toBe(true);
    expect(new Set(codes)).toEqual(new Set(['OK', 'RESOURCE_EXHAUSTED']));
  });

  test('a bomb is refused', async () => {
    const { digest } = fresh(100);
    const data = zstdCompressSync(Buffer.alloc(50_000_000));
    const { responses } = await cache.cas.batchUpdateBlobs({
      requests: [{ digest: wire(digest), data, compressor: Compressor_Value.ZSTD }],
    });
    expect(codesOf(responses)).toEqual(['INVALID_ARGUMENT']);
  });
});

test('a batch read of more blobs than an answer has room for is refused', async () => {
  const digests = Array.from({ length: limits.batchReadBlobsMax + 1 }, () => wire(emptyDigest('sha256')));
  expect(await codeOf(cache.cas.batchReadBlobs({ digests }))).toBe('INVALID_ARGUMENT');
});

test('an instance name of unreasonable length is refused', async () => {
  const instanceName = 'x'.repeat(limits.instanceNameCharsMax + 1);
  expect(await codeOf(cache.cas.findMissingBlobs({ instanceName }))).toBe('INVALID_ARGUMENT');
});

describe('GetTree', () => {
  /** A root over `width` directories, each over the same leaf. */
  const tree = async (width: number) => {
    const put = async (directory: Directory) => {
      const blob = blobOf(toBinary(DirectorySchema, directory));
      await cache.store.blobs.putMany([blob]);
      return wire(blob.digest);
    };
    seed += 1;
    const leaf = await put(
      create(DirectorySchema, { files: [{ name: `leaf${seed}`, digest: wire(emptyDigest('sha256')) }] }),
    );
    const children = [];
    for (let index = 0; index < width; index += 1) {
      const name = `d${String(index).padStart(4, '0')}`;
      const child = create(DirectorySchema, {
        directories: [{ name: 'leaf', digest: leaf }],
        symlinks: [{ name: 'link', target: name }],
      });
      children.push({ name, digest: await put(child) });
    }
    return { root: await put(create(DirectorySchema, { directories: children })), children };
  };
  type Wire = ReturnType<typeof wire>;
  const pages = async (rootDigest: Wire, pageSize = 0, pageToken = '') => {
    const all = [];
    for await (const page of cache.cas.getTree({ rootDigest, pageSize, pageToken })) all.push(page);
    return all;
  };

  test('gives every directory once, root first', async () => {
    const { root } = await tree(3);
    const [page, ...more] = await pages(root);
    expect(more).toEqual([]);
    expect(page?.directories).toHaveLength(5);
    expect(page?.directories[0]?.directories).toHaveLength(3);
    expect(page?.nextPageToken).toBe('');
  });

  test('pages, and goes on from any token', async () => {
    const { root } = await tree(10);
    const all = await pages(root, 5);
    expect(all.map(({ directories }) => directories.length)).toEqual([5, 5, 2]);
    const again = await pages(root, 5, all[0]?.nextPageToken);
    expect(again).toEqual(all.slice(1));
    expect(await codeOf(pages(root, 5, 'nonsense'))).toBe('INVALID_ARGUMENT');
    expect(await codeOf(pages(root, -1))).toBe('INVALID_ARGUMENT');
  });

  test('leaves out what is missing; a missing root is NOT_FOUND, a root that is no Directory INVALID_ARGUMENT', async () => {
    const { root, children } = await tree(4);
    const lost = children[1]?.digest as Wire;
    cache.store.lose({ fn: 'sha256', hash: lost.hash, sizeBytes: Number(lost.sizeBytes) });
    expect((await pages(root))[0]?.directories).toHaveLength(5);
    expect(await codeOf(pages(wire(fresh(10).digest)))).toBe('NOT_FOUND');
    const nonsense = blobOf(Buffer.from('ffffffff', 'hex'));
    await cache.store.blobs.putMany([nonsense]);
    expect(await codeOf(pages(wire(nonsense.digest)))).toBe('INVALID_ARGUMENT');
  });

  test('the empty directory is a tree of one', async () => {
    expect(await pages(wire(emptyDigest('sha256')))).toMatchObject([{ directories: [{ files: [] }] }]);
  });
});

describe('the action cache', () => {
  const actionDigest = () => wire(fresh(100).digest);

  test('gives back what was stored, by instance; anything else is NOT_FOUND', async () => {
    const digest = actionDigest();
    const actionResult = create(ActionResultSchema, { exitCode: 3, executionMetadata: { worker: 'w' } });
    await cache.actionCache.updateActionResult({ instanceName: 'a/b', actionDigest: digest, actionResult });
    const get = (instanceName: string, given = digest) =>
      cache.actionCache.getActionResult({ instanceName, actionDigest: given });
    expect(await get('a/b')).toEqual(actionResult);
    expect(await codeOf(get(''))).toBe('NOT_FOUND');
    expect(await codeOf(get('a/b', { ...digest, sizeBytes: digest.sizeBytes + 1n }))).toBe('NOT_FOUND');
    expect(await codeOf(get('blobs'))).toBe('INVALID_ARGUMENT');
  });

  test('a result with nothing set is a hit', async () => {
    const digest = actionDigest();
    await cache.actionCache.updateActionResult({ actionDigest: digest, actionResult: {} });
    expect(await cache.actionCache.getActionResult({ actionDigest: digest })).toEqual(create(ActionResultSchema));
  });

  test('inlines nothing unasked, and what is asked by name', async () => {
    const digest = actionDigest();
    const [one, two] = [blobOf('first'), blobOf('second')];
    await cache.store.blobs.putMany([two]);
    const updated = await cache.actionCache.updateActionResult({
      actionDigest: digest,
      actionResult: {
        stdoutRaw: Buffer.from('out'),
        stderrRaw: Buffer.from('err'),
        outputFiles: [
          { path: 'a/one', contents: one.bytes },
          { path: 'two', digest: wire(two.digest) },
        ],
      },
    });
    expect(updated.stdoutDigest).toEqual(wire(blobOf('out').digest));
    const plain = await cache.actionCache.getActionResult({ actionDigest: digest });
    expect(plain).toMatchObject({ stdoutRaw: new Uint8Array(), stderrRaw: new Uint8Array() });
    expect(plain.outputFiles.map(({ contents, digest: { hash } = { hash: '' } }) => [contents.length, hash])).toEqual([
      [0, one.digest.hash],
      [0, two.digest.hash],
    ]);
    const inlined = await cache.actionCache.getActionResult({
      actionDigest: digest,
      inlineStdout: true,
      inlineStderr: true,
      inlineOutputFiles: ['two', 'nowhere'],
    });
    expect(Buffer.from(inlined.stdoutRaw).toString()).toBe('out');
    expect(Buffer.from(inlined.stderrRaw).toString()).toBe('err');
    expect(inlined.outputFiles.map(({ contents }) => Buffer.from(contents).toString())).toEqual(['', 'second']);
    expect(inlined.stdoutDigest).toEqual(plain.stdoutDigest);
  });

  test('refuses to inline more than a message holds', async () => {
    const digest = actionDigest();
    const big = [fresh(3_000_000), fresh(3_000_000)];
    await cache.store.blobs.putMany(big);
    const outputFiles = big.map((blob, index) => ({ path: `f${index}`, digest: wire(blob.digest) }));
    await cache.actionCache.updateActionResult({ actionDigest: digest, actionResult: { outputFiles } });
    const result = await cache.actionCache.getActionResult({ actionDigest: digest, inlineOutputFiles: ['f0', 'f1'] });
    expect(result.outputFiles.map(({ contents }) => contents.length)).toEqual([3_000_000, 0]);
  });

  test.each([
    ['an absolute path', { outputFiles: [{ path: '/etc/passwd', digest: wire(emptyDigest('sha256')) }] }],
    ['a path that climbs', { outputSymlinks: [{ path: 'a/../../b', target: 'c' }] }],
    ['an absolute directory', { outputDirectories: [{ path: '/out', treeDigest: wire(emptyDigest('sha256')) }] }],
    ['a file without a digest', { outputFiles: [{ path: 'a' }] }],
    ['inlined bytes of another digest', { stdoutRaw: Buffer.from('x'), stdoutDigest: wire(blobOf('y').digest) }],
    [
      'inlined files of another digest',
      { outputFiles: [{ path: 'a', contents: Buffer.from('x'), digest: wire(blobOf('y').digest) }] },
    ],
  ])('refuses %s', async (_what, actionResult) => {
    const call = cache.actionCache.updateActionResult({ actionDigest: actionDigest(), actionResult });
    expect(await codeOf(call)).toBe('INVALID_ARGUMENT');
  });

  test('refuses a request without its parts', async () => {
    expect(await codeOf(cache.actionCache.getActionResult({}))).toBe('INVALID_ARGUMENT');
    expect(await codeOf(cache.actionCache.updateActionResult({ actionDigest: actionDigest() }))).toBe(
      'INVALID_ARGUMENT',
    );
  });
});

describe('capabilities', () => {
  test('say what old and new clients look for', async () => {
    const { lowApiVersion, highApiVersion, cacheCapabilities, executionCapabilities } =
      await cache.capabilities.getCapabilities({});
    expect([lowApiVersion, highApiVersion]).toMatchObject([
      { major: 2, minor: 0 },
      { major: 2, minor: 12 },
    ]);
    expect(cacheCapabilities).toMatchObject({
      actionCacheUpdateCapabilities: { updateEnabled: true },
      splitBlobSupport: true,
      spliceBlobSupport: true,
      maxCasBlobSizeBytes: BigInt(1024 ** 3),
    });
    expect(cacheCapabilities?.digestFunctions).toContain(DigestFunction_Value.BLAKE3);
    expect(Number(cacheCapabilities?.maxBatchTotalSizeBytes)).toBeLessThan(4 * 1024 * 1024);
    expect(executionCapabilities).toBeUndefined();
  });

  test('with execution, the singular function is SHA256', async () => {
    await using other = await startCache({ execution: { supportedNodeProperties: [] }, instances: ['main', 'a/b'] });
    const capabilities = await other.capabilities.getCapabilities({ instanceName: 'a/b' });
    expect(capabilities.executionCapabilities).toMatchObject({
      digestFunction: DigestFunction_Value.SHA256,
      execEnabled: true,
    });
    expect(await codeOf(other.capabilities.getCapabilities({ instanceName: 'b' }))).toBe('INVALID_ARGUMENT');
    expect(await codeOf(other.capabilities.getCapabilities({}))).toBe('INVALID_ARGUMENT');
  });
});

describe('SplitBlob and SpliceBlob', () => {
  const put = async (bytes: Uint8Array) => {
    const blob = blobOf(bytes);
    await cache.store.blobs.putMany([blob]);
    return blob;
  };

  test('chunks of a split give the blob again, and similar blobs share most of them', async () => {
    const base = noise(12_000_000, 99);
    const edited = Buffer.concat([base.subarray(0, 5_000_000), Buffer.from('an insertion'), base.subarray(5_000_000)]);
    const lists = [];
    for (const bytes of [base, edited]) {
      const { digest } = await put(bytes);
      const { chunkDigests } = await cache.cas.splitBlob({ blobDigest: wire(digest) });
      expect(await cache.cas.splitBlob({ blobDigest: wire(digest) })).toMatchObject({ chunkDigests });
      expect((await cache.cas.findMissingBlobs({ blobDigests: chunkDigests })).missingBlobDigests).toEqual([]);
      lists.push(chunkDigests);
      cache.store.lose(digest);
      const spliced = await cache.cas.spliceBlob({ blobDigest: wire(digest), chunkDigests });
      expect(spliced.blobDigest).toEqual(wire(digest));
      expect(Buffer.from((await cache.store.blobs.get(digest)) ?? []).equals(bytes)).toBe(true);
    }
    const first = new Set(lists[0]?.map(({ hash }) => hash));
    const shared = lists[1]?.filter(({ hash }) => first.has(hash)).length ?? 0;
    expect(shared).toBeGreaterThanOrEqual((lists[1]?.length ?? 0) - 3);
  });

  test('a lost chunk is made again', async () => {
    const { digest } = await put(noise(9_000_000, 77));
    const { chunkDigests } = await cache.cas.splitBlob({ blobDigest: wire(digest) });
    const [lost] = chunkDigests as [(typeof chunkDigests)[0]];
    cache.store.lose({ fn: 'sha256', hash: lost.hash, sizeBytes: Number(lost.sizeBytes) });
    await cache.cas.splitBlob({ blobDigest: wire(digest) });
    expect((await cache.cas.findMissingBlobs({ blobDigests: chunkDigests })).missingBlobDigests).toEqual([]);
  });

  test('small blobs are one chunk, the empty one none, a missing one NOT_FOUND', async () => {
    const { digest } = await put(noise(2_000_000, 5));
    expect((await cache.cas.splitBlob({ blobDigest: wire(digest) })).chunkDigests).toEqual([wire(digest)]);
    expect((await cache.cas.splitBlob({ blobDigest: wire(emptyDigest('sha256')) })).chunkDigests).toEqual([]);
    expect(await codeOf(cache.cas.splitBlob({ blobDigest: wire(fresh(10).digest) }))).toBe('NOT_FOUND');
  });

  test('splicing verifies the whole', async () => {
    const [a, b] = [await put(noise(1000, 201)), await put(noise(1000, 202))];
    const whole = (...parts: (typeof a)[]) => blobOf(Buffer.concat(parts.map(({ bytes }) => bytes))).digest;
    const splice = (digest: Digest, ...chunks: { digest: Digest }[]) =>
      codeOf(
        cache.cas.spliceBlob({ blobDigest: wire(digest), chunkDigests: chunks.map((chunk) => wire(chunk.digest)) }),
      );
    expect(await splice(whole(a, b), b, a)).toBe('INVALID_ARGUMENT');
    expect(await splice(whole(a, b), a)).toBe('INVALID_ARGUMENT');
    expect(await splice(whole(a, b))).toBe('INVALID_ARGUMENT');
    expect(await splice(whole(a, b), a, fresh(1000))).toBe('NOT_FOUND');
    expect(await codeOf(cache.cas.spliceBlob({ chunkDigests: [wire(a.digest)] }))).toBe('INVALID_ARGUMENT');
    expect(await splice(whole(a, b), a, b)).toBe('OK');
    expect(await splice(whole(a, b), a, fresh(1000))).toBe('OK');
    expect(await splice(whole(a, b, a, b, a), { digest: whole(a, b) }, { digest: whole(a, b) }, a)).toBe('OK');
    expect(await splice(emptyDigest('sha256'))).toBe('OK');
  });
});
