/** Blobs out of chunks and into chunks: P20 and P21. */
import type { Digest } from '../../../protos/digest.ts';
import {
  ChunkingFunction_Value,
  ContentAddressableStorage,
} from '../../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import type { Context } from '../context.ts';
import { chunkSizes } from '../fastcdc.ts';
import {
  absentDigest,
  digestOf,
  fetchBlob,
  isMissing,
  mustBeOk,
  mustRefuse,
  put,
  readBlob,
  readName,
  sameDigest,
  wire,
  wireFn,
} from '../fixtures.ts';
import { NotApplicable, type Rule, part } from '../rule.ts';

const cas = ContentAddressableStorage.method;

export const chunkingRules: readonly Rule[] = [
  {
    id: 'P20',
    title: 'SpliceBlob verifies',
    says: 'The chunks are put together and hashed; a missing chunk is NOT_FOUND, another digest INVALID_ARGUMENT.',
    source: 'REAPI, SpliceBlob (2.12)',
    parts: [
      part('in order', ['splice'], async (context, check) => {
        const pieces = [context.fresh(1000), context.fresh(70_000), context.fresh(10)];
        const chunks = await store(context, pieces);
        const whole = digestOf(context.fn, Buffer.concat(pieces));
        const reply = await splice(context, whole, chunks);
        if (!mustBeOk(check, 'three chunks', reply)) return;
        check.must(sameDigest(reply.response?.blobDigest, whole), 'answered with another digest');
        check.must(
          (await fetchBlob(context, whole))?.equals(Buffer.concat(pieces)) ?? false,
          'the blob cannot be read',
        );
      }),
      part('swapped, repeated, cut', ['splice'], async (context, check) => {
        const pieces = [context.fresh(1000), context.fresh(2000)];
        const [first, second] = (await store(context, pieces)) as [Digest, Digest];
        const whole = digestOf(context.fn, Buffer.concat(pieces));
        mustRefuse(check, 'swapped chunks', await splice(context, whole, [second, first]), 'INVALID_ARGUMENT');
        mustRefuse(check, 'a chunk too few', await splice(context, whole, [first]), 'INVALID_ARGUMENT');
        mustRefuse(
          check,
          'a chunk too many',
          await splice(context, whole, [first, second, second]),
          'INVALID_ARGUMENT',
        );
        const longer = { ...whole, sizeBytes: whole.sizeBytes + 1 };
        mustRefuse(check, 'another total size', await splice(context, longer, [first, second]), 'INVALID_ARGUMENT');
        check.must(await isMissing(context, whole), 'visible after wrong splices');
        const twice = digestOf(context.fn, Buffer.concat([pieces[0] as Buffer, pieces[0] as Buffer]));
        mustBeOk(check, 'one chunk twice', await splice(context, twice, [first, first]));
      }),
      part('a missing chunk', ['splice'], async (context, check) => {
        const pieces = [context.fresh(1000), context.fresh(2000)];
        const [first] = (await store(context, pieces.slice(0, 1))) as [Digest];
        const whole = digestOf(context.fn, Buffer.concat(pieces));
        const lost = digestOf(context.fn, pieces[1] as Buffer);
        mustRefuse(check, 'one of two', await splice(context, whole, [first, lost]), 'NOT_FOUND');
      }),
      part('a blob that exists', ['splice'], async (context, check) => {
        const pieces = [context.fresh(1000), context.fresh(2000)];
        const chunks = await store(context, pieces);
        const whole = await put(context, Buffer.concat(pieces));
        const reply = await splice(context, whole, chunks);
        if (reply.code === 'ALREADY_EXISTS') check.choice('an existing blob: ALREADY_EXISTS');
        else mustBeOk(check, 'an existing blob', reply);
      }),
      part('a chunk made of chunks', ['splice'], async (context, check) => {
        const pieces = [context.fresh(1000), context.fresh(2000), context.fresh(3000)];
        const chunks = await store(context, pieces);
        const inner = digestOf(context.fn, Buffer.concat(pieces.slice(0, 2)));
        mustBeOk(check, 'the inner blob', await splice(context, inner, chunks.slice(0, 2)));
        const whole = digestOf(context.fn, Buffer.concat(pieces));
        mustBeOk(check, 'the outer blob', await splice(context, whole, [inner, chunks[2] as Digest]));
        check.must((await fetchBlob(context, whole)) !== undefined, 'the outer blob cannot be read');
      }),
      part('no chunks', ['splice'], async (context, check) => {
        mustBeOk(check, 'the empty blob', await splice(context, digestOf(context.fn, Buffer.alloc(0)), []));
        const other = absentDigest(context);
        mustRefuse(check, 'another blob', await splice(context, other, []), 'INVALID_ARGUMENT');
      }),
      part('no digest', ['splice'], async (context, check) => {
        const chunk = await put(context, context.fresh());
        const reply = await context.client.unary(cas.spliceBlob, {
          instanceName: context.instance,
          chunkDigests: [wire(chunk)],
          digestFunction: wireFn(context.fn),
        });
        mustRefuse(check, 'blob_digest unset', reply, 'INVALID_ARGUMENT');
      }),
    ],
  },
  {
    id: 'P21',
    title: 'SplitBlob',
    says: 'The chunks are in the CAS when they are named, and put together they are the blob; FastCDC cuts where it is published to.',
    source: 'REAPI, SplitBlob and FastCdc2020Params (2.12)',
    parts: [
      part('chunks make the blob', ['split'], async (context, check) => {
        const bytes = context.fresh(largeBytes(context));
        const blob = await put(context, bytes);
        for (const chunkingFunction of [ChunkingFunction_Value.UNKNOWN, ChunkingFunction_Value.FAST_CDC_2020]) {
          const reply = await split(context, blob, chunkingFunction);
          if (!mustBeOk(check, `function ${chunkingFunction}`, reply)) continue;
          const chunks = (reply.response?.chunkDigests ?? []).map((digest) => ({
            fn: context.fn,
            hash: digest.hash,
            sizeBytes: Number(digest.sizeBytes),
          }));
          const read = await Promise.all(chunks.map((digest) => readBlob(context, readName(context, digest))));
          const whole = Buffer.concat(read.map((chunk) => chunk.bytes));
          check.must(
            whole.equals(bytes),
            `function ${chunkingFunction}: ${chunks.length} chunks that do not make the blob`,
          );
          check.saw(`function ${chunkingFunction}: ${chunks.length} chunks of ${bytes.byteLength} bytes`);
        }
      }),
      part('FastCDC boundaries', ['split'], async (context, check) => {
        const params = context.capabilities.cacheCapabilities?.fastCdc2020Params;
        if (!params) throw new NotApplicable('no fast_cdc_2020_params');
        const avgBytes = Number(params.avgChunkSizeBytes);
        for (const bytes of [
          context.fresh(avgBytes * 12 + 1),
          Buffer.alloc(avgBytes * 9, 7),
          context.fresh(avgBytes * 4),
        ]) {
          const reply = await split(context, await put(context, bytes), ChunkingFunction_Value.FAST_CDC_2020);
          if (!mustBeOk(check, `${bytes.byteLength} bytes`, reply)) continue;
          const sizes = (reply.response?.chunkDigests ?? []).map((digest) => Number(digest.sizeBytes));
          const expected = chunkSizes(bytes, { avgBytes, seed: params.seed });
          check.must(sizes.join() === expected.join(), `cut into ${sizes.join()} instead of ${expected.join()}`);
        }
      }),
      part('a small blob', ['split'], async (context, check) => {
        const blob = await put(context, context.fresh(1000));
        const reply = await split(context, blob, ChunkingFunction_Value.UNKNOWN);
        if (!mustBeOk(check, '1000 bytes', reply)) return;
        const chunks = reply.response?.chunkDigests ?? [];
        check.must(
          chunks.length === 1 && sameDigest(chunks[0], blob),
          `${chunks.length} chunks instead of the blob itself`,
        );
      }),
      part('a missing blob', ['split'], async (context, check) => {
        const reply = await split(context, absentDigest(context), ChunkingFunction_Value.UNKNOWN);
        mustRefuse(check, 'an absent blob', reply, 'NOT_FOUND');
      }),
    ],
  },
];

/** Large enough for several chunks of what is advertised. */
function largeBytes(context: Context): number {
  const params = context.capabilities.cacheCapabilities;
  return (
    Number(params?.fastCdc2020Params?.avgChunkSizeBytes ?? params?.repMaxCdcParams?.minChunkSizeBytes ?? 524_288n) * 10
  );
}

function store(context: Context, pieces: readonly Buffer[]): Promise<Digest[]> {
  return Promise.all(pieces.map((piece) => put(context, piece)));
}

function splice(context: Context, blob: Digest, chunks: readonly Digest[]) {
  return context.client.unary(cas.spliceBlob, {
    instanceName: context.instance,
    blobDigest: wire(blob),
    chunkDigests: chunks.map(wire),
    digestFunction: wireFn(context.fn),
  });
}

function split(context: Context, blob: Digest, chunkingFunction: ChunkingFunction_Value) {
  return context.client.unary(cas.splitBlob, {
    instanceName: context.instance,
    blobDigest: wire(blob),
    digestFunction: wireFn(context.fn),
    chunkingFunction,
  });
}
