/**
 * The process that crash.test.ts kills: writes to a store without end and appends to its standard output, a file, one line
 * for each acknowledgement: `blob NAME SIZE`, `list NAME SIZE` (a blob of chunks) or `result NAME EXIT`.
 *
 * Arguments: data directory, size limit in bytes, a name that no other run had.
 */
import { writeSync } from 'node:fs';
import { create } from '@bufbuild/protobuf';
import { openStore } from '../../node/storage/open-store.ts';
import { toWireDigest } from '../../protos/digest.ts';
import { ActionResultSchema } from '../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { type Blob, chunksOf } from '../contract/blobs.ts';
import { namedBlob, namedChunks } from './content.ts';

const [dataDir = '', sizeLimit = '', runName = ''] = process.argv.slice(2);
const store = await openStore({ dataDir, sizeLimitBytes: Number(sizeLimit) });
let isHeard = false;
const sizes = [10, 3_000, 8_000, 9_000, 70_000, 600_000];

function acknowledge(kind: 'blob' | 'list' | 'result', name: string, value: number): void {
  writeSync(1, `${kind} ${name} ${value}\n`);
  if (!isHeard) process.send?.('acknowledged');
  isHeard = true;
}

async function write(worker: number): Promise<never> {
  for (let round = 0; ; round++) {
    const names = Array.from({ length: 5 }, (_, at) => `${runName}/${worker}/${round}/${at}`);
    const blobs = names.map((name, at) => namedBlob(name, sizes[(worker + round + at) % sizes.length] ?? 1));
    if (round % 2 === 0) {
      await store.blobs.putMany(blobs);
    } else {
      await Promise.all(blobs.map(({ digest, bytes }) => store.blobs.put(digest, chunksOf(bytes, 65_536))));
    }
    blobs.forEach(({ digest }, at) => acknowledge('blob', names[at] ?? '', digest.sizeBytes));

    const action = namedBlob(`${runName}/${worker}/${round}`, 20).digest;
    const outputFiles = blobs.map(({ digest }, at) => ({ path: `${at}`, digest: toWireDigest(digest) }));
    await store.actions
      .put({ instance: 'crash', action }, create(ActionResultSchema, { outputFiles, exitCode: round }))
      .then(
        () => acknowledge('result', `${runName}/${worker}/${round}`, round),
        (error: { code?: string }) => {
          // Under pressure an output may be gone before its result comes.
          if (error.code !== 'FAILED_PRECONDITION') throw error;
        },
      );
    await store.actions.get({ instance: 'crash', action });
  }
}

/** Blobs of chunks, most of which were files before. */
async function writeLists(): Promise<never> {
  for (let round = 0; ; round++) {
    const name = `${runName}/list/${round}`;
    const { whole, chunks } = namedChunks(name);
    if (round % 2 === 0) {
      await store.blobs.put(whole.digest, chunksOf(whole.bytes, 65_536));
      acknowledge('list', name, whole.digest.sizeBytes);
    }
    if (round % 4 === 1) await receive(whole, name);
    await store.blobs.putMany(chunks);
    const digests = chunks.map(({ digest }) => digest);
    await store.blobs.putChunked(whole.digest, digests).then(
      () => acknowledge('list', name, whole.digest.sizeBytes),
      (error: { code?: string }) => {
        // Under pressure a chunk may be gone by now.
        if (error.code !== 'NOT_FOUND') throw error;
      },
    );
  }
}

/** The second half first. */
async function receive({ digest, bytes }: Blob, name: string): Promise<void> {
  await using arrival = await store.blobs.arrive(digest);
  const middle = digest.sizeBytes / 2;
  await arrival.write(middle, [bytes.subarray(middle)]);
  await arrival.write(0, [bytes.subarray(0, middle)]);
  await arrival.finish();
  acknowledge('list', name, digest.sizeBytes);
}

await Promise.all([writeLists(), ...Array.from({ length: 6 }, (_, worker) => write(worker))]);
