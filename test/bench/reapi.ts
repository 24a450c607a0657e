/** Calls per second and bytes per second of a whole node, beside a bare http2 server asked by the same client. */
import { type ChildProcess, fork } from 'node:child_process';
import { hash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdir, open, rm, stat, writeFile } from 'node:fs/promises';
import type { ClientHttp2Session } from 'node:http2';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type DescMessage, type MessageInitShape, create, toBinary } from '@bufbuild/protobuf';
import { digestOf, hashBytes } from '../../protos/hasher.ts';
import { toWireDigest } from '../../protos/digest.ts';
import {
  ActionResultSchema,
  ActionSchema,
  BatchUpdateBlobsRequestSchema,
  BatchUpdateBlobsResponseSchema,
  CommandSchema,
  FindMissingBlobsRequestSchema,
  FindMissingBlobsResponseSchema,
  GetActionResultRequestSchema,
  UpdateActionResultRequestSchema,
} from '../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import {
  ReadRequestSchema,
  ReadResponseSchema,
  WriteRequestSchema,
  WriteResponseSchema,
} from '../../protos/gen/google/bytestream/bytestream_pb.ts';
import { type Row, paired, perSecond, secondsOf } from './measure.ts';
import { call, frame, openSession } from './wire.ts';

const cas = '/build.bazel.remote.execution.v2.ContentAddressableStorage';
const cache = '/build.bazel.remote.execution.v2.ActionCache';
const stream = '/google.bytestream.ByteStream';
const concurrency = 64;
const seconds = 2;
const largeBytes = 256 * 1024 * 1024;
const chunkBytes = 1024 * 1024;
const smallCount = 10_000;
const smallBytes = 1024;
/** As many small blobs as one message of under 4 MiB takes. */
const smallPerBatch = 2_500;

function framed<S extends DescMessage>(schema: S, init: MessageInitShape<S>): Buffer {
  return frame(toBinary(schema, create(schema, init)));
}

interface Reference {
  readonly session: ClientHttp2Session;
  answer(path: string, bytes: Buffer, times?: number): Promise<void>;
  close(): void;
}

async function startReference(): Promise<Reference> {
  const child: ChildProcess = fork(fileURLToPath(new URL('./reference-server.ts', import.meta.url)));
  const [{ port }] = (await once(child, 'message')) as [{ port: number }];
  const session = openSession(`127.0.0.1:${port}`);
  return {
    session,
    async answer(path, bytes, times = 1) {
      child.send({ path, frame: bytes.toString('base64'), times });
      await once(child, 'message');
    },
    close() {
      session.destroy();
      child.disconnect();
    },
  };
}

/** Measures the node at `address`; `scratchDir` is on the disk the node's data is on. */
export async function benchReapi(address: string, scratchDir: string): Promise<Row[]> {
  const reference = await startReference();
  const node = openSession(address);
  const rows: Row[] = [];
  try {
    // GetActionResult: a result with five outputs, all of them stored.
    const outputs = Array.from({ length: 5 }, () => randomBytes(2000));
    const command = toBinary(CommandSchema, create(CommandSchema, { arguments: ['true'] }));
    const action = toBinary(
      ActionSchema,
      create(ActionSchema, {
        commandDigest: toWireDigest(digestOf('sha256', command)),
        inputRootDigest: toWireDigest(digestOf('sha256', new Uint8Array())),
      }),
    );
    await call(node, `${cas}/BatchUpdateBlobs`, [
      framed(BatchUpdateBlobsRequestSchema, {
        requests: [...outputs, command, action].map((data) => ({
          digest: toWireDigest(digestOf('sha256', data)),
          data,
        })),
      }),
    ]);
    const actionDigest = toWireDigest(digestOf('sha256', action));
    const result = create(ActionResultSchema, {
      outputFiles: outputs.map((data, index) => ({
        path: `bazel-out/k8-fastbuild/bin/some/package/out${index}.o`,
        digest: toWireDigest(digestOf('sha256', data)),
      })),
      executionMetadata: { worker: 'bench' },
    });
    await call(node, `${cache}/UpdateActionResult`, [
      framed(UpdateActionResultRequestSchema, { actionDigest, actionResult: result }),
    ]);
    const getResult = framed(GetActionResultRequestSchema, { actionDigest });
    await reference.answer(`${cache}/GetActionResult`, framed(ActionResultSchema, result));
    rows.push(
      await paired(
        'GetActionResult, 5 outputs',
        'calls/s',
        'bare http2',
        () => perSecond(() => call(node, `${cache}/GetActionResult`, [getResult]), concurrency, seconds),
        () => perSecond(() => call(reference.session, `${cache}/GetActionResult`, [getResult]), concurrency, seconds),
      ),
    );

    // FindMissingBlobs: 100 digests, half of them stored.
    const held = Array.from({ length: 50 }, () => randomBytes(500));
    await call(node, `${cas}/BatchUpdateBlobs`, [
      framed(BatchUpdateBlobsRequestSchema, {
        requests: held.map((data) => ({ digest: toWireDigest(digestOf('sha256', data)), data })),
      }),
    ]);
    const absent = Array.from({ length: 50 }, () => toWireDigest(digestOf('sha256', randomBytes(500))));
    const find = framed(FindMissingBlobsRequestSchema, {
      blobDigests: [...held.map((data) => toWireDigest(digestOf('sha256', data))), ...absent],
    });
    await reference.answer(
      `${cas}/FindMissingBlobs`,
      framed(FindMissingBlobsResponseSchema, { missingBlobDigests: absent }),
    );
    rows.push(
      await paired(
        'FindMissingBlobs, 100 digests',
        'calls/s',
        'bare http2',
        () => perSecond(() => call(node, `${cas}/FindMissingBlobs`, [find]), concurrency, seconds),
        () => perSecond(() => call(reference.session, `${cas}/FindMissingBlobs`, [find]), concurrency, seconds),
      ),
    );

    // ByteStream.Write: another blob each time; the reference hashes nothing and keeps nothing.
    const large = randomBytes(largeBytes);
    let serial = 0;
    await reference.answer(`${stream}/Write`, framed(WriteResponseSchema, { committedSize: BigInt(largeBytes) }));
    const write = async (session: ClientHttp2Session) => {
      large.writeUInt32BE(++serial, 0);
      const name = `uploads/${crypto.randomUUID()}/blobs/${hashBytes('sha256', large)}/${largeBytes}`;
      const took = await secondsOf(() => call(session, `${stream}/Write`, writeFrames(name, large)));
      return largeBytes / 1e6 / took;
    };
    rows.push(
      await paired(
        'ByteStream.Write, 256 MiB',
        'MB/s',
        'bare http2',
        () => write(node),
        () => write(reference.session),
      ),
    );
    rows.push(
      await paired(
        'ByteStream.Write, 256 MiB',
        'MB/s',
        'SHA-256, write and fsync of a file',
        () => write(node),
        async () => {
          const path = join(scratchDir, 'copy');
          const took = await secondsOf(async () => {
            await using file = await open(path, 'w');
            for (let at = 0; at < largeBytes; at += chunkBytes) {
              await file.write(large.subarray(at, at + chunkBytes));
            }
            hash('sha256', large);
            await file.sync();
          });
          await rm(path);
          return largeBytes / 1e6 / took;
        },
      ),
    );

    // ByteStream.Read of the blob written last.
    const readName = `blobs/${hashBytes('sha256', large)}/${largeBytes}`;
    const read = framed(ReadRequestSchema, { resourceName: readName });
    await call(node, `${stream}/Write`, writeFrames(`uploads/${crypto.randomUUID()}/${readName}`, large));
    await reference.answer(
      `${stream}/Read`,
      framed(ReadResponseSchema, { data: large.subarray(0, chunkBytes) }),
      largeBytes / chunkBytes,
    );
    const readAll = async (session: ClientHttp2Session) => {
      let bytes = 0;
      const took = await secondsOf(async () => {
        bytes = await call(session, `${stream}/Read`, [read]);
      });
      if (bytes < largeBytes) throw new Error(`read ${bytes} of ${largeBytes} bytes`);
      return largeBytes / 1e6 / took;
    };
    rows.push(
      await paired(
        'ByteStream.Read, 256 MiB',
        'MB/s',
        'bare http2',
        () => readAll(node),
        () => readAll(reference.session),
      ),
    );

    // BatchUpdateBlobs: 10,000 new blobs of 1 KiB; the references receive them, or write them as plain files without any sync.
    await reference.answer(`${cas}/BatchUpdateBlobs`, framed(BatchUpdateBlobsResponseSchema, {}));
    const batches = () => {
      const blobs = Array.from({ length: smallCount }, () => randomBytes(smallBytes));
      const frames: Buffer[] = [];
      for (let at = 0; at < smallCount; at += smallPerBatch) {
        frames.push(
          framed(BatchUpdateBlobsRequestSchema, {
            requests: blobs
              .slice(at, at + smallPerBatch)
              .map((data) => ({ digest: toWireDigest(digestOf('sha256', data)), data })),
          }),
        );
      }
      return { blobs, frames };
    };
    const update = async (session: ClientHttp2Session) => {
      const { frames } = batches();
      const took = await secondsOf(() =>
        Promise.all(frames.map((one) => call(session, `${cas}/BatchUpdateBlobs`, [one]))),
      );
      return smallCount / took;
    };
    rows.push(
      await paired(
        'BatchUpdateBlobs, 10,000 of 1 KiB',
        'blobs/s',
        'bare http2',
        () => update(node),
        () => update(reference.session),
      ),
    );
    rows.push(
      await paired(
        'BatchUpdateBlobs, 10,000 of 1 KiB',
        'blobs/s',
        'one plain file each, no sync',
        () => update(node),
        async () => {
          const { blobs } = batches();
          const dir = join(scratchDir, 'files');
          await mkdir(dir);
          const took = await secondsOf(async () => {
            for (let at = 0; at < smallCount; at += 100) {
              await Promise.all(blobs.slice(at, at + 100).map((blob, i) => writeFile(join(dir, String(at + i)), blob)));
            }
          });
          if ((await stat(join(dir, String(smallCount - 1)))).size !== smallBytes) throw new Error('short file');
          await rm(dir, { recursive: true });
          return smallCount / took;
        },
      ),
    );
    return rows;
  } finally {
    node.destroy();
    reference.close();
  }
}

function* writeFrames(resourceName: string, bytes: Uint8Array): Generator<Buffer> {
  for (let at = 0; at < bytes.byteLength; at += chunkBytes) {
    yield framed(WriteRequestSchema, {
      resourceName: at === 0 ? resourceName : '',
      writeOffset: BigInt(at),
      data: bytes.subarray(at, at + chunkBytes),
      finishWrite: at + chunkBytes >= bytes.byteLength,
    });
  }
}
