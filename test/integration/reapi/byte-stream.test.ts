import { constants, zstdCompressSync, zstdDecompressSync } from 'node:zlib';
import { create, toBinary } from '@bufbuild/protobuf';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { requestMetadataHeader, resourceNameHeader } from '../../../node/reapi/grpc-metadata.ts';
import { digestFunctionNames, emptyDigest, toWireDigest } from '../../../protos/digest.ts';
import { RequestMetadataSchema } from '../../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { until } from '../../support/until.ts';
import {
  blobOf,
  type Cache,
  codeOf,
  inPieces,
  noise,
  readAll,
  readName,
  startCache,
  writeName,
  writes,
} from './harness.ts';

let cache: Cache;
beforeAll(async () => {
  cache = await startCache();
});
afterAll(() => cache[Symbol.asyncDispose]());

let seed = 100;
/** A blob nobody has yet. */
const fresh = (length: number) => {
  seed += 1;
  return blobOf(noise(length, seed));
};
const missing = async (digest: ReturnType<typeof blobOf>['digest']) =>
  (await cache.cas.findMissingBlobs({ blobDigests: [toWireDigest(digest)] })).missingBlobDigests.length === 1;

/** Requests that stay open after `pieces`, until `close` is called. */
function openWrite(name: string, pieces: Parameters<typeof writes>[1]) {
  const closing = Promise.withResolvers<void>();
  async function* requests() {
    yield* writes(name, pieces);
    await closing.promise;
  }
  return { requests: requests(), close: closing.resolve };
}

describe('Read', () => {
  test('of the empty blob gives nothing, plain and as zstd, for every function', async () => {
    for (const fn of digestFunctionNames) {
      expect(await readAll(cache, readName(emptyDigest(fn)))).toHaveLength(0);
      expect(zstdDecompressSync(await readAll(cache, readName(emptyDigest(fn), 'zstd')))).toHaveLength(0);
    }
  });

  test.each([10, 3_000_000])('honours offset and limit in a blob of %d bytes', async (length) => {
    const { bytes, digest } = fresh(length);
    await cache.store.blobs.putMany([{ digest, bytes }]);
    const name = readName(digest);
    const part = async (offset: number, limit: number) =>
      (await readAll(cache, name, { offset, limit })).equals(
        Buffer.from(limit === 0 ? bytes.subarray(offset) : bytes.subarray(offset, offset + limit)),
      );
    expect(await part(0, 0)).toBe(true);
    expect(await part(3, 0)).toBe(true);
    expect(await part(3, 5)).toBe(true);
    expect(await part(length - 2, 100)).toBe(true);
    expect(await readAll(cache, name, { offset: length })).toHaveLength(0);
    expect(await codeOf(readAll(cache, name, { offset: length + 1 }))).toBe('OUT_OF_RANGE');
    expect(await codeOf(readAll(cache, name, { offset: -1 }))).toBe('OUT_OF_RANGE');
    expect(await codeOf(readAll(cache, name, { limit: -1 }))).toBe('INVALID_ARGUMENT');
    const zstd = readName(digest, 'zstd');
    expect(zstdDecompressSync(await readAll(cache, zstd, { offset: 4 })).equals(bytes.subarray(4))).toBe(true);
    expect(await codeOf(readAll(cache, zstd, { limit: 1 }))).toBe('INVALID_ARGUMENT');
    expect(cache.store.readers()).toBe(0);
  });

  test('of a missing blob, or one with another size, is NOT_FOUND', async () => {
    const { bytes, digest } = fresh(10);
    await cache.store.blobs.putMany([{ digest, bytes }]);
    expect(await codeOf(readAll(cache, readName({ ...digest, sizeBytes: 11 })))).toBe('NOT_FOUND');
    expect(await codeOf(readAll(cache, readName(fresh(300_000).digest)))).toBe('NOT_FOUND');
  });

  test('refuses upload names, foreign names and a header that names something else', async () => {
    const { digest } = fresh(10);
    expect(await codeOf(readAll(cache, writeName(digest)))).toBe('INVALID_ARGUMENT');
    expect(await codeOf(readAll(cache, 'some/log'))).toBe('NOT_FOUND');
    const name = readName(emptyDigest('sha256'));
    const read = async (header: string) => {
      for await (const _ of cache.byteStream.read(
        { resourceName: name },
        { headers: { [resourceNameHeader]: header } },
      ));
    };
    expect(await codeOf(read(name))).toBe('OK');
    expect(await codeOf(read('blobs/other'))).toBe('INVALID_ARGUMENT');
  });

  test('a reader that stops midway lets go of the blob', async () => {
    const { bytes, digest } = fresh(20_000_000);
    await cache.store.blobs.putMany([{ digest, bytes }]);
    for await (const _ of cache.byteStream.read({ resourceName: readName(digest) })) break;
    await until(() => cache.store.readers() === 0);
  });
});

describe('Write', () => {
  test('stores what comes in one message, in many, and in an empty last one', async () => {
    const one = fresh(1000);
    const response = await cache.byteStream.write(writes(writeName(one.digest), inPieces(one.bytes, 1000)));
    expect(response.committedSize).toBe(1000n);
    const many = fresh(1_000_000);
    const pieces = [...inPieces(many.bytes, 70_000).map((piece) => ({ ...piece, finish: false })), { finish: true }];
    expect((await cache.byteStream.write(writes(writeName(many.digest), pieces))).committedSize).toBe(1_000_000n);
    expect(await readAll(cache, readName(one.digest))).toEqual(Buffer.from(one.bytes));
    expect((await readAll(cache, readName(many.digest))).equals(many.bytes)).toBe(true);
  });

  test('every upload form is readable in every form, in instances of any depth, under BLAKE3 too', async () => {
    for (const fn of ['sha256', 'blake3'] as const) {
      for (const up of ['identity', 'zstd'] as const) {
        const { bytes, digest } = blobOf(noise(400_000, (seed += 1)), fn);
        const sent = up === 'zstd' ? zstdCompressSync(bytes) : bytes;
        await cache.byteStream.write(writes(writeName(digest, up, 'a/b/c'), inPieces(sent, 50_000)));
        expect((await readAll(cache, readName(digest, 'identity', 'main'))).equals(bytes)).toBe(true);
        expect(zstdDecompressSync(await readAll(cache, readName(digest, 'zstd'))).equals(bytes)).toBe(true);
      }
    }
  });

  test('wrong content is INVALID_ARGUMENT and leaves nothing', async () => {
    for (const length of [1000, 600_000]) {
      const { bytes, digest } = fresh(length);
      const flipped = bytes.slice();
      flipped[5] = (flipped[5] as number) ^ 1;
      const longer = Buffer.concat([bytes, Buffer.of(0)]);
      for (const wrong of [flipped, bytes.subarray(1), longer]) {
        const name = writeName(digest);
        expect(await codeOf(cache.byteStream.write(writes(name, inPieces(wrong, 100_000))))).toBe('INVALID_ARGUMENT');
        expect(await codeOf(cache.byteStream.queryWriteStatus({ resourceName: name }))).toBe('NOT_FOUND');
      }
      expect(await missing(digest)).toBe(true);
    }
    await until(() => cache.store.puts() === 0);
  });

  test('takes zstd of several frames, without content size, and with skippable frames', async () => {
    const { bytes, digest } = fresh(500_000);
    const frame = (part: Uint8Array) => zstdCompressSync(part, { params: { [constants.ZSTD_c_contentSizeFlag]: 0 } });
    const skippable = Buffer.from('502a4d180300000061626300', 'hex').subarray(0, 11);
    const sent = Buffer.concat([
      frame(bytes.subarray(0, 300_000)),
      skippable,
      frame(bytes.subarray(300_000)),
      skippable,
    ]);
    const response = await cache.byteStream.write(writes(writeName(digest, 'zstd'), inPieces(sent, 60_001)));
    expect(response.committedSize).toBe(BigInt(sent.byteLength));
    expect(await missing(digest)).toBe(false);
  });

  test('refuses zstd that is cut off, followed by garbage, or larger than announced', async () => {
    const { bytes, digest } = fresh(300_000);
    const frame = zstdCompressSync(bytes);
    const bomb = zstdCompressSync(Buffer.alloc(100_000_000));
    for (const sent of [
      frame.subarray(0, -4),
      Buffer.concat([frame, Buffer.from('junk')]),
      bomb,
      Buffer.from('no zstd at all'),
    ]) {
      const code = await codeOf(cache.byteStream.write(writes(writeName(digest, 'zstd'), inPieces(sent, 100_000))));
      expect(code).toBe('INVALID_ARGUMENT');
    }
    expect(await missing(digest)).toBe(true);
  });

  test('tells Siso and reclient the size of a compressed upload, the others the bytes they sent', async () => {
    const commit = async (toolName: string) => {
      const { bytes, digest } = blobOf(`${toolName} `.repeat(1000));
      const metadata = toBinary(RequestMetadataSchema, create(RequestMetadataSchema, { toolDetails: { toolName } }));
      const sent = zstdCompressSync(bytes);
      const response = await cache.byteStream.write(writes(writeName(digest, 'zstd'), inPieces(sent, 1000)), {
        headers: { [requestMetadataHeader]: metadata },
      });
      return { committed: Number(response.committedSize), sent: sent.byteLength, size: bytes.byteLength };
    };
    const bazel = await commit('bazel');
    expect(bazel.committed).toBe(bazel.sent);
    const siso = await commit('siso');
    expect(siso.committed).toBe(siso.size);
  });

  test('an existing blob ends the call after the first message, whatever is announced to follow', async () => {
    const { bytes, digest } = fresh(2_000_000);
    await cache.store.blobs.putMany([{ digest, bytes }]);
    const plain = openWrite(writeName(digest), [{ data: bytes.subarray(0, 10) }]);
    expect((await cache.byteStream.write(plain.requests)).committedSize).toBe(2_000_000n);
    const zstd = openWrite(writeName(digest, 'zstd'), [{ data: bytes.subarray(0, 10) }]);
    expect((await cache.byteStream.write(zstd.requests)).committedSize).toBe(-1n);
    plain.close();
    zstd.close();
  });

  test('the slower of two uploads of one blob ends when the faster is done', async () => {
    for (const compressor of ['identity', 'zstd'] as const) {
      const { bytes, digest } = fresh(1_000_000);
      const name = writeName(digest, compressor);
      const data = compressor === 'zstd' ? zstdCompressSync(bytes).subarray(0, 50_000) : bytes.subarray(0, 50_000);
      const slow = openWrite(name, [{ data }]);
      const slowReply = cache.byteStream.write(slow.requests);
      await until(async () => (await codeOf(cache.byteStream.queryWriteStatus({ resourceName: name }))) === 'OK');
      await cache.byteStream.write(writes(writeName(digest), inPieces(bytes, 300_000)));
      expect((await slowReply).committedSize).toBe(compressor === 'zstd' ? -1n : 1_000_000n);
      slow.close();
    }
    await until(() => cache.store.puts() === 0);
  });

  test('one uuid serves two blobs at once', async () => {
    const blobs = [fresh(500_000), fresh(500_000)];
    const uuid = '6c9b5a5c-1df1-4d9c-9a44-6a3e1a4f0c11';
    await Promise.all(
      blobs.map(({ bytes, digest }) =>
        cache.byteStream.write(writes(`uploads/${uuid}/blobs/${digest.hash}/500000`, inPieces(bytes, 60_000))),
      ),
    );
    for (const { digest } of blobs) expect(await missing(digest)).toBe(false);
  });

  test('refuses requests that do not follow one another', async () => {
    const { bytes, digest } = fresh(1000);
    const half = { data: bytes.subarray(0, 500) };
    const rest = { data: bytes.subarray(500), finish: true };
    const name = writeName(digest);
    const code = (...pieces: Parameters<typeof writes>[1]) => codeOf(cache.byteStream.write(writes(name, pieces)));
    expect(await codeOf(cache.byteStream.write(writes(name, [])))).toBe('INVALID_ARGUMENT');
    expect(await code({ ...half, offset: 7 })).toBe('INVALID_ARGUMENT');
    expect(await code(half, { ...rest, offset: 499 })).toBe('INVALID_ARGUMENT');
    expect(await code(half, { ...rest, name: writeName(digest) })).toBe('INVALID_ARGUMENT');
    expect(await code(half, { ...rest, name })).toBe('OK');
    const other = fresh(300_000);
    const after = [{ data: other.bytes, finish: true }, { data: Buffer.of(1) }];
    expect(await codeOf(cache.byteStream.write(writes(writeName(other.digest), after)))).toBe('INVALID_ARGUMENT');
  });

  test('refuses a blob beyond the advertised size', async () => {
    const digest = { ...fresh(10).digest, sizeBytes: 1024 ** 3 + 1 };
    expect(await codeOf(cache.byteStream.write(writes(writeName(digest), [{}])))).toBe('INVALID_ARGUMENT');
  });
});

describe('a broken-off upload', () => {
  const status = (name: string) => cache.byteStream.queryWriteStatus({ resourceName: name });

  test('is unknown before, counts up, and is complete in the end', async () => {
    const { bytes, digest } = fresh(900_000);
    const name = writeName(digest);
    expect(await codeOf(status(name))).toBe('NOT_FOUND');
    const first = await cache.byteStream.write(writes(name, [{ data: bytes.subarray(0, 300_000) }]));
    expect(first.committedSize).toBe(300_000n);
    expect(await status(name)).toMatchObject({ committedSize: 300_000n, complete: false });

    const second = openWrite(name, [{ data: bytes.subarray(300_000, 600_000), offset: 300_000 }]);
    const leave = new AbortController();
    const cancelled = codeOf(cache.byteStream.write(second.requests, { signal: leave.signal }));
    await until(async () => (await status(name)).committedSize === 600_000n);
    leave.abort();
    expect(await cancelled).toBe('CANCELLED');
    second.close();
    expect(await status(name)).toMatchObject({ committedSize: 600_000n, complete: false });

    expect(await codeOf(cache.byteStream.write(writes(name, [{ data: bytes, offset: 5 }])))).toBe('INVALID_ARGUMENT');
    await cache.byteStream.write(writes(name, [{ data: bytes.subarray(600_000), offset: 600_000, finish: true }]));
    expect(await status(name)).toMatchObject({ committedSize: 900_000n, complete: true });
    expect((await readAll(cache, readName(digest))).equals(bytes)).toBe(true);
  });

  test('may be sent again from the start', async () => {
    const { bytes, digest } = fresh(900_000);
    const name = writeName(digest);
    await cache.byteStream.write(writes(name, [{ data: bytes.subarray(0, 500_001) }]));
    expect((await cache.byteStream.write(writes(name, inPieces(bytes, 123_456)))).committedSize).toBe(900_000n);
    expect((await readAll(cache, readName(digest))).equals(bytes)).toBe(true);
  });

  test('goes on compressed at the uncompressed offset', async () => {
    const { bytes, digest } = fresh(900_000);
    const name = writeName(digest, 'zstd');
    const whole = zstdCompressSync(bytes);
    await cache.byteStream.write(writes(name, [{ data: whole.subarray(0, 500_000) }]));
    const committed = Number((await status(name)).committedSize);
    expect(committed).toBeGreaterThan(0);
    expect(committed).toBeLessThan(900_000);
    const rest = inPieces(zstdCompressSync(bytes.subarray(committed)), 100_000);
    await cache.byteStream.write(writes(name, [{ ...rest[0], offset: committed }, ...rest.slice(1)]));
    expect((await readAll(cache, readName(digest))).equals(bytes)).toBe(true);
  });
});
