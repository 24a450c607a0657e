/** Uploads as streams: P6 to P12. */
import { randomUUID } from 'node:crypto';
import { RequestMetadataSchema } from '../../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { create, toBinary } from '@bufbuild/protobuf';
import { ByteStream, type WriteRequest } from '../../../protos/gen/google/bytestream/bytestream_pb.ts';
import type { Reply } from '../client.ts';
import type { Context } from '../context.ts';
import { digestOf, isMissing, mustBeOk, mustRefuse, put, writeBlob, writeName, zstd } from '../fixtures.ts';
import { type Rule, part } from '../rule.ts';

const stream = ByteStream.method;
/** More than any window of HTTP/2 that a server would open at once. */
const largeBytes = 8 * 1024 * 1024;

type Message = Partial<Pick<WriteRequest, 'resourceName' | 'writeOffset' | 'finishWrite' | 'data'>>;

export const uploadRules: readonly Rule[] = [
  {
    id: 'P6',
    title: 'One uuid may serve several uploads',
    says: 'The uuid alone does not name an upload; the whole resource name does.',
    source: 'REAPI, ContentAddressableStorage, naming of ByteStream resources',
    parts: [
      part('two at once', async (context, check) => {
        const uuid = randomUUID();
        const blobs = [context.fresh(200_000), context.fresh(150_000)];
        const names = blobs.map((bytes) => writeName(context, digestOf(context.fn, bytes), { uuid }));
        const uploads = names.map(() => context.client.upload(stream.write));
        for (const offset of [0, 100_000]) {
          for (const [index, upload] of uploads.entries()) {
            const bytes = blobs[index] as Buffer;
            await upload.send({
              resourceName: offset === 0 ? (names[index] as string) : '',
              writeOffset: BigInt(offset),
              data: bytes.subarray(offset, offset + 100_000),
              finishWrite: offset > 0,
            });
          }
        }
        for (const [index, upload] of uploads.entries()) {
          upload.halfClose();
          mustBeOk(check, `upload ${index + 1}`, await upload.reply);
          check.must(
            !(await isMissing(context, digestOf(context.fn, blobs[index] as Buffer))),
            `blob ${index + 1} is missing`,
          );
        }
      }),
      part('one after another', async (context, check) => {
        const uuid = randomUUID();
        for (const bytes of [context.fresh(), context.fresh()]) {
          const digest = digestOf(context.fn, bytes);
          mustBeOk(check, 'upload', await writeBlob(context, writeName(context, digest, { uuid }), bytes));
          check.must(!(await isMissing(context, digest)), 'the blob is missing');
        }
      }),
    ],
  },
  {
    id: 'P7',
    title: 'An upload of what is there ends at once',
    says: 'When the blob exists, or comes to exist meanwhile, the upload ends without error and tells the full size (-1 when compressed).',
    source: 'REAPI, ContentAddressableStorage, uploads',
    parts: [
      part('the blob exists', async (context, check) => {
        const bytes = context.fresh(largeBytes);
        const digest = await put(context, bytes);
        const reply = await firstMessageOnly(context, writeName(context, digest), bytes);
        if (mustBeOk(check, 'after the first message', reply)) {
          check.must(
            reply.response?.committedSize === BigInt(largeBytes),
            `committed_size ${reply.response?.committedSize}`,
          );
        }
      }),
      part('the blob exists, compressed', ['zstd'], async (context, check) => {
        const bytes = context.fresh(largeBytes);
        const digest = await put(context, bytes);
        const name = writeName(context, digest, { compressor: 'zstd' });
        const reply = await firstMessageOnly(context, name, zstd.compress(bytes));
        if (mustBeOk(check, 'after the first message', reply)) {
          check.must(reply.response?.committedSize === -1n, `committed_size ${reply.response?.committedSize}, not -1`);
        }
      }),
      part('another upload wins', async (context, check) => {
        const bytes = context.fresh(largeBytes);
        const digest = digestOf(context.fn, bytes);
        const slow = context.client.upload(stream.write);
        await slow.send({ resourceName: writeName(context, digest), data: bytes.subarray(0, 65_536) });
        mustBeOk(check, 'the fast one', await writeBlob(context, writeName(context, digest), bytes));
        for (let at = 65_536; at < bytes.byteLength; at += 65_536) {
          const data = bytes.subarray(at, at + 65_536);
          if (!(await slow.send({ writeOffset: BigInt(at), data, finishWrite: at + 65_536 >= bytes.byteLength })))
            break;
        }
        slow.halfClose();
        const reply = await slow.reply;
        if (mustBeOk(check, 'the slow one', reply)) {
          check.must(
            reply.response?.committedSize === BigInt(largeBytes),
            `committed_size ${reply.response?.committedSize}`,
          );
        }
      }),
    ],
  },
  {
    id: 'P8',
    title: 'Wrong content is refused',
    says: 'When the upload is complete and its digest is another, the answer is INVALID_ARGUMENT and nothing becomes visible.',
    source: 'REAPI, ContentAddressableStorage, uploads',
    parts: [
      part('uploads', async (context, check) => {
        const bytes = context.fresh(100_000);
        const digest = digestOf(context.fn, bytes);
        const flipped = Buffer.from(bytes);
        flipped[50_000] = (flipped[50_000] as number) ^ 1;
        const wrong: [string, Buffer][] = [
          ['a flipped byte', flipped],
          ['one byte short', bytes.subarray(0, -1)],
          ['one byte too many', Buffer.concat([bytes, Buffer.from('x')])],
          ['nothing', Buffer.alloc(0)],
        ];
        for (const [what, content] of wrong) {
          mustRefuse(check, what, await writeBlob(context, writeName(context, digest), content), 'INVALID_ARGUMENT');
          check.must(await isMissing(context, digest), `${what}: visible afterwards`);
        }
        mustBeOk(check, 'the right bytes after that', await writeBlob(context, writeName(context, digest), bytes));
      }),
      part('compressed uploads', ['zstd'], async (context, check) => {
        const bytes = context.fresh(100_000);
        const digest = digestOf(context.fn, bytes);
        const flipped = Buffer.from(bytes);
        flipped[50_000] = (flipped[50_000] as number) ^ 1;
        for (const [what, content] of [
          ['a flipped byte', zstd.compress(flipped)],
          ['not zstd', bytes],
          ['a truncated frame', zstd.compress(bytes).subarray(0, -10)],
        ] as const) {
          const name = writeName(context, digest, { compressor: 'zstd' });
          mustRefuse(check, what, await writeBlob(context, name, content), 'INVALID_ARGUMENT');
          check.must(await isMissing(context, digest), `${what}: visible afterwards`);
        }
      }),
    ],
  },
  {
    id: 'P9',
    title: 'committed_size of a compressed upload',
    says: 'Not said for an upload that ran to its end; the compressed count, the size of the blob and -1 are all in use.',
    source: 'REAPI, ContentAddressableStorage, compressed uploads',
    parts: [
      part('by tool', ['zstd'], async (context, check) => {
        const taken: string[] = [];
        for (const toolName of ['', 'bazel', 'siso', 'reclient']) {
          const bytes = Buffer.concat([context.fresh(100), Buffer.alloc(100_000)]);
          const compressed = zstd.compress(bytes);
          const name = writeName(context, digestOf(context.fn, bytes), { compressor: 'zstd' });
          const metadata = toBinary(
            RequestMetadataSchema,
            create(RequestMetadataSchema, { toolDetails: { toolName } }),
          );
          const reply = await writeBlob(context, name, compressed, {
            metadata: { 'build.bazel.remote.execution.v2.requestmetadata-bin': metadata },
          });
          if (!mustBeOk(check, `tool "${toolName}"`, reply)) continue;
          const known = new Map([
            [BigInt(compressed.byteLength), 'the compressed count'],
            [BigInt(bytes.byteLength), 'the size of the blob'],
            [-1n, '-1'],
          ]).get(reply.response?.committedSize ?? 0n);
          check.must(known !== undefined, `tool "${toolName}": committed_size ${reply.response?.committedSize}`);
          taken.push(`${toolName || 'no tool'}: ${known}`);
        }
        check.choice(taken.join('; '));
      }),
    ],
  },
  {
    id: 'P10',
    title: 'write_offset of a compressed upload',
    says: 'The first offset counts uncompressed bytes, later ones add the compressed bytes sent since.',
    source: 'REAPI, ContentAddressableStorage, compressed uploads',
    parts: [
      part('right offsets', ['zstd'], async (context, check) => {
        const bytes = context.fresh(200_000);
        const name = writeName(context, digestOf(context.fn, bytes), { compressor: 'zstd' });
        mustBeOk(check, 'several messages', await writeBlob(context, name, zstd.compress(bytes)));
      }),
      part('a wrong later offset', ['zstd'], async (context, check) => {
        const bytes = context.fresh(200_000);
        const digest = digestOf(context.fn, bytes);
        const compressed = zstd.compress(bytes);
        const reply = await writeMessages(context, [
          { resourceName: writeName(context, digest, { compressor: 'zstd' }), data: compressed.subarray(0, 50_000) },
          { writeOffset: 49_999n, data: compressed.subarray(50_000), finishWrite: true },
        ]);
        mustRefuse(check, 'an offset one too low', reply, 'INVALID_ARGUMENT', 'OUT_OF_RANGE');
        check.must(await isMissing(context, digest), 'stored all the same');
      }),
      part('a first offset with nothing before', ['zstd'], async (context, check) => {
        const bytes = context.fresh(200_000);
        const digest = digestOf(context.fn, bytes);
        const name = writeName(context, digest, { compressor: 'zstd' });
        const reply = await writeBlob(context, name, zstd.compress(bytes.subarray(1000)), { offset: 1000 });
        mustRefuse(check, 'offset 1000', reply, 'INVALID_ARGUMENT', 'OUT_OF_RANGE', 'UNIMPLEMENTED');
        check.must(await isMissing(context, digest), 'stored all the same');
      }),
    ],
  },
  {
    id: 'P11',
    title: 'The order of a Write',
    says: 'The first message names the resource, later ones repeat the name or leave it out, offsets follow what was committed, nothing follows finish_write.',
    source: 'google.bytestream, ByteStream.Write',
    parts: [
      part('no name', async (context, check) => {
        const reply = await writeMessages(context, [{ data: context.fresh(), finishWrite: true }]);
        mustRefuse(check, 'a first message without a name', reply, 'INVALID_ARGUMENT');
      }),
      part('no message', async (context, check) => {
        mustRefuse(check, 'a stream of nothing', await writeMessages(context, []), 'INVALID_ARGUMENT');
      }),
      part('the name again', async (context, check) => {
        const bytes = context.fresh(1000);
        const resourceName = writeName(context, digestOf(context.fn, bytes));
        const reply = await writeMessages(context, [
          { resourceName, data: bytes.subarray(0, 500) },
          { resourceName, writeOffset: 500n, data: bytes.subarray(500), finishWrite: true },
        ]);
        mustBeOk(check, 'the same name twice', reply);
      }),
      part('another name', async (context, check) => {
        const bytes = context.fresh(1000);
        const digest = digestOf(context.fn, bytes);
        const reply = await writeMessages(context, [
          { resourceName: writeName(context, digest), data: bytes.subarray(0, 500) },
          { resourceName: writeName(context, digest), writeOffset: 500n, data: bytes.subarray(500), finishWrite: true },
        ]);
        mustRefuse(check, 'another name later', reply, 'INVALID_ARGUMENT');
        check.must(await isMissing(context, digest), 'stored all the same');
      }),
      part('offsets', async (context, check) => {
        for (const [what, writeOffset] of [
          ['an offset too low', 400n],
          ['an offset too high', 600n],
          ['a negative offset', -1n],
        ] as const) {
          const bytes = context.fresh(1000);
          const digest = digestOf(context.fn, bytes);
          const reply = await writeMessages(context, [
            { resourceName: writeName(context, digest), data: bytes.subarray(0, 500) },
            { writeOffset, data: bytes.subarray(500), finishWrite: true },
          ]);
          mustRefuse(check, what, reply, 'INVALID_ARGUMENT', 'OUT_OF_RANGE', 'ABORTED');
          check.must(await isMissing(context, digest), `${what}: stored all the same`);
        }
      }),
      part('data after finish_write', async (context, check) => {
        const bytes = context.fresh(1000);
        const reply = await writeMessages(context, [
          { resourceName: writeName(context, digestOf(context.fn, bytes)), data: bytes, finishWrite: true },
          { writeOffset: 1000n, data: context.fresh(10), finishWrite: true },
        ]);
        if (reply.code === 'OK') check.choice('answered at finish_write, what follows is not looked at');
        else mustRefuse(check, 'data after finish_write', reply, 'INVALID_ARGUMENT', 'FAILED_PRECONDITION');
      }),
      part('an empty last message', async (context, check) => {
        const bytes = context.fresh(1000);
        const digest = digestOf(context.fn, bytes);
        const reply = await writeMessages(context, [
          { resourceName: writeName(context, digest), data: bytes },
          { writeOffset: 1000n, finishWrite: true },
        ]);
        if (mustBeOk(check, 'finish_write without data', reply)) {
          check.must(reply.response?.committedSize === 1000n, `committed_size ${reply.response?.committedSize}`);
        }
        check.must(!(await isMissing(context, digest)), 'the blob is missing');
      }),
      part('an empty message between', async (context, check) => {
        const bytes = context.fresh(1000);
        const reply = await writeMessages(context, [
          { resourceName: writeName(context, digestOf(context.fn, bytes)) },
          { data: bytes.subarray(0, 500) },
          { writeOffset: 500n },
          { writeOffset: 500n, data: bytes.subarray(500), finishWrite: true },
        ]);
        mustBeOk(check, 'messages without data', reply);
      }),
      part('a half-close without finish_write', async (context, check) => {
        const bytes = context.fresh(1000);
        const digest = digestOf(context.fn, bytes);
        const resourceName = writeName(context, digest);
        const reply = await writeMessages(context, [{ resourceName, data: bytes.subarray(0, 400) }]);
        check.must(reply.code !== 'UNKNOWN' && reply.code !== 'INTERNAL', `ended with ${reply.code} ${reply.message}`);
        check.must(await isMissing(context, digest), 'an unfinished upload is visible');
        const status = await context.client.unary(stream.queryWriteStatus, { resourceName });
        if (status.code === 'UNIMPLEMENTED') return check.choice('QueryWriteStatus is not served');
        if (status.code === 'NOT_FOUND') return check.choice('unfinished uploads are forgotten');
        if (!mustBeOk(check, 'QueryWriteStatus', status)) return;
        check.must(status.response?.complete === false, 'complete before finish_write');
        const committed = Number(status.response?.committedSize ?? 0n);
        check.must(committed === 0 || committed === 400, `committed_size ${committed} of 400 sent`);
        if (committed === 0) check.choice('unfinished uploads start over');
        const rest = bytes.subarray(committed);
        mustBeOk(check, 'resuming', await writeBlob(context, resourceName, rest, { offset: committed }));
        check.must(!(await isMissing(context, digest)), 'missing after it was resumed');
      }),
    ],
  },
  {
    id: 'P12',
    title: 'QueryWriteStatus',
    says: 'An unknown name is NOT_FOUND, the size never goes down, and complete comes after finish_write only.',
    source: 'google.bytestream, ByteStream.QueryWriteStatus',
    parts: [
      part('unknown', async (context, check) => {
        const resourceName = writeName(context, digestOf(context.fn, context.fresh()));
        const reply = await context.client.unary(stream.queryWriteStatus, { resourceName });
        mustRefuse(check, 'a name never written', reply, 'NOT_FOUND', 'UNIMPLEMENTED');
      }),
      part('malformed', async (context, check) => {
        const reply = await context.client.unary(stream.queryWriteStatus, { resourceName: 'not/a/name' });
        mustRefuse(check, 'a name that is none', reply, 'INVALID_ARGUMENT', 'NOT_FOUND', 'UNIMPLEMENTED');
      }),
      part('an existing blob', async (context, check) => {
        const digest = await put(context, context.fresh(1000));
        const reply = await context.client.unary(stream.queryWriteStatus, { resourceName: writeName(context, digest) });
        if (reply.code === 'UNIMPLEMENTED') return check.choice('not served');
        if (!mustBeOk(check, 'the status', reply)) return;
        check.must(reply.response?.complete === true, 'not complete');
        check.must(reply.response?.committedSize === 1000n, `committed_size ${reply.response?.committedSize}`);
      }),
      part('while writing', async (context, check) => {
        const bytes = context.fresh(1_000_000);
        const resourceName = writeName(context, digestOf(context.fn, bytes));
        const upload = context.client.upload(stream.write);
        let highest = 0n;
        for (let at = 0; at < bytes.byteLength; at += 250_000) {
          await upload.send({
            resourceName: at === 0 ? resourceName : '',
            writeOffset: BigInt(at),
            data: bytes.subarray(at, at + 250_000),
            finishWrite: false,
          });
          const reply = await context.client.unary(stream.queryWriteStatus, { resourceName });
          if (reply.code === 'UNIMPLEMENTED') {
            check.choice('not served');
            break;
          }
          if (reply.code === 'NOT_FOUND' && highest === 0n) continue;
          if (!mustBeOk(check, 'the status', reply)) break;
          const committed = reply.response?.committedSize ?? 0n;
          check.must(committed >= highest, `committed_size went from ${highest} to ${committed}`);
          check.must(committed <= BigInt(at + 250_000), `committed_size ${committed} before so much was sent`);
          check.must(reply.response?.complete === false, 'complete before finish_write');
          highest = committed;
        }
        await upload.send({ writeOffset: 1_000_000n, finishWrite: true });
        upload.halfClose();
        mustBeOk(check, 'the upload', await upload.reply);
        const reply = await context.client.unary(stream.queryWriteStatus, { resourceName });
        if (reply.code === 'UNIMPLEMENTED') return;
        check.must(reply.response?.complete === true, `not complete after finish_write: ${reply.code}`);
      }),
    ],
  },
];

async function writeMessages(
  context: Context,
  messages: readonly Message[],
): Promise<Reply<{ readonly committedSize: bigint }>> {
  const upload = context.client.upload(ByteStream.method.write);
  for (const message of messages) {
    if (!(await upload.send(message))) break;
  }
  upload.halfClose();
  return upload.reply;
}

/** Sends one message and then only waits: the answer must come without the rest. */
async function firstMessageOnly(
  context: Context,
  resourceName: string,
  bytes: Buffer,
): Promise<Reply<{ readonly committedSize: bigint }>> {
  const upload = context.client.upload(ByteStream.method.write, { deadlineMs: 10_000 });
  await upload.send({ resourceName, data: bytes.subarray(0, 65_536) });
  return upload.reply;
}
