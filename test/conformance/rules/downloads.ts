/** Downloads as streams, and blobs in every form: P13 and P14. */
import {
  Compressor_Value,
  ContentAddressableStorage,
} from '../../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import type { Outcome } from '../client.ts';
import {
  digestOf,
  isMissing,
  mustBeOk,
  mustRefuse,
  put,
  readBlob,
  readName,
  wire,
  wireFn,
  writeBlob,
  writeName,
  zstd,
} from '../fixtures.ts';
import { type Rule, part } from '../rule.ts';

export const downloadRules: readonly Rule[] = [
  {
    id: 'P13',
    title: 'read_offset and read_limit',
    says: 'Any part of a blob can be read; a limit gives exactly that many bytes, an offset beyond the end is OUT_OF_RANGE.',
    source: 'google.bytestream, ByteStream.Read; REAPI, compressed downloads',
    parts: [
      part('ranges', async (context, check) => {
        const bytes = context.fresh(300_000);
        const name = readName(context, await put(context, bytes));
        const ranges: [number, number][] = [
          [0, 0],
          [0, 1],
          [0, 300_000],
          [0, 300_001],
          [100_000, 0],
          [100_000, 100_000],
          [299_999, 5],
          [300_000, 0],
          [300_000, 10],
          [1, 65_536],
        ];
        for (const [offset, limit] of ranges) {
          const reply = await readBlob(context, name, { offset, limit });
          if (!mustBeOk(check, `offset ${offset} limit ${limit}`, reply)) continue;
          const expected = bytes.subarray(offset, limit === 0 ? undefined : offset + limit);
          check.must(
            reply.bytes.equals(expected),
            `offset ${offset} limit ${limit}: ${reply.bytes.byteLength} bytes instead of these ${expected.byteLength}`,
          );
        }
      }),
      part('outside', async (context, check) => {
        const name = readName(context, await put(context, context.fresh(1000)));
        mustRefuse(check, 'offset -1', await readBlob(context, name, { offset: -1 }), 'OUT_OF_RANGE');
        mustRefuse(check, 'one past the end', await readBlob(context, name, { offset: 1001 }), 'OUT_OF_RANGE');
        const negative = await readBlob(context, name, { limit: -1 });
        mustRefuse(check, 'limit -1', negative, 'INVALID_ARGUMENT', 'OUT_OF_RANGE');
      }),
      part('compressed', ['zstd'], async (context, check) => {
        const bytes = context.fresh(300_000);
        const name = readName(context, await put(context, bytes), { compressor: 'zstd' });
        for (const offset of [0, 1, 100_000, 300_000]) {
          const reply = await readBlob(context, name, { offset });
          if (!mustBeOk(check, `zstd offset ${offset}`, reply)) continue;
          const content = await zstd.decompress(reply.bytes);
          check.must(content?.equals(bytes.subarray(offset)) ?? false, `zstd offset ${offset}: other bytes`);
        }
        mustRefuse(check, 'zstd with a limit', await readBlob(context, name, { limit: 10 }), 'INVALID_ARGUMENT');
        mustRefuse(check, 'zstd past the end', await readBlob(context, name, { offset: 300_001 }), 'OUT_OF_RANGE');
      }),
      part('what is not there', async (context, check) => {
        const digest = digestOf(context.fn, context.fresh());
        mustRefuse(check, 'identity', await readBlob(context, readName(context, digest)), 'NOT_FOUND');
        if (context.lacks(['zstd'])) return;
        mustRefuse(
          check,
          'zstd',
          await readBlob(context, readName(context, digest, { compressor: 'zstd' })),
          'NOT_FOUND',
        );
      }),
    ],
  },
  {
    id: 'P14',
    title: 'Every blob in every form',
    says: 'A blob can be read plain and in each advertised compressor, whichever way it came.',
    source: 'REAPI, ContentAddressableStorage, compression',
    parts: [
      part('in each way, out each way', ['zstd'], async (context, check) => {
        const bytes = Buffer.concat([context.fresh(100_000), Buffer.alloc(500_000, 'pattern')]);
        const half = bytes.byteLength / 2;
        const zstdStream = (content: Buffer) => async (unique: Buffer) =>
          writeBlob(context, writeName(context, digestOf(context.fn, unique), { compressor: 'zstd' }), content);
        const ways: [string, (unique: Buffer) => Promise<Pick<Outcome, 'code' | 'message'>>][] = [
          ['plain', (unique) => writeBlob(context, writeName(context, digestOf(context.fn, unique)), unique)],
          ['zstd', (unique) => zstdStream(zstd.compress(unique))(unique)],
          ['zstd without content size', (unique) => zstdStream(zstd.compressUnsized(unique))(unique)],
          [
            'several zstd frames',
            (unique) => {
              const frames = [unique.subarray(0, half), unique.subarray(half)].map(zstd.compress);
              return zstdStream(Buffer.concat(frames))(unique);
            },
          ],
        ];
        for (const [way, upload] of ways) {
          const unique = Buffer.concat([context.fresh(8), bytes]);
          if (!mustBeOk(check, `${way}: upload`, await upload(unique))) continue;
          const digest = digestOf(context.fn, unique);
          const plain = await readBlob(context, readName(context, digest));
          check.must(
            plain.code === 'OK' && plain.bytes.equals(unique),
            `${way}: other bytes when read plain (${plain.code})`,
          );
          const packed = await readBlob(context, readName(context, digest, { compressor: 'zstd' }));
          const content = packed.code === 'OK' ? await zstd.decompress(packed.bytes) : undefined;
          check.must(content?.equals(unique) ?? false, `${way}: other bytes when read as zstd (${packed.code})`);
        }
      }),
      part('batches', ['batch-zstd'], async (context, check) => {
        const bytes = Buffer.concat([context.fresh(1000), Buffer.alloc(20_000)]);
        const digest = digestOf(context.fn, bytes);
        const request = { instanceName: context.instance, digestFunction: wireFn(context.fn) };
        const update = await context.client.unary(ContentAddressableStorage.method.batchUpdateBlobs, {
          ...request,
          requests: [{ digest: wire(digest), data: zstd.compress(bytes), compressor: Compressor_Value.ZSTD }],
        });
        check.must((update.response?.responses[0]?.status?.code ?? 0) === 0, `upload: ${update.code}`);
        const plain = await readBlob(context, readName(context, digest));
        check.must(plain.code === 'OK' && plain.bytes.equals(bytes), `other bytes when read plain (${plain.code})`);
        const reply = await context.client.unary(ContentAddressableStorage.method.batchReadBlobs, {
          ...request,
          digests: [wire(digest)],
        });
        check.must(Buffer.from(reply.response?.responses[0]?.data ?? []).equals(bytes), 'other bytes in a plain batch');
      }),
      part('a bomb', ['zstd'], async (context, check) => {
        const digest = { ...digestOf(context.fn, context.fresh()), sizeBytes: 1000 };
        const bomb = zstd.compress(Buffer.alloc(64 * 1024 * 1024));
        const reply = await writeBlob(context, writeName(context, digest, { compressor: 'zstd' }), bomb);
        mustRefuse(check, '64 MiB under a digest of 1000 bytes', reply, 'INVALID_ARGUMENT');
      }),
      part('garbage behind the frame', ['zstd'], async (context, check) => {
        const bytes = context.fresh(1000);
        const digest = digestOf(context.fn, bytes);
        const content = Buffer.concat([zstd.compress(bytes), Buffer.from('garbage')]);
        const reply = await writeBlob(context, writeName(context, digest, { compressor: 'zstd' }), content);
        mustRefuse(check, 'trailing garbage', reply, 'INVALID_ARGUMENT');
        check.must(await isMissing(context, digest), 'stored all the same');
      }),
    ],
  },
];
