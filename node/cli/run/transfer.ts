/** Moves blobs between this machine and a server's CAS. */
import { randomUUID } from 'node:crypto';
import { open, readFile } from 'node:fs/promises';
import {
  type Digest,
  digestKey,
  digestPath,
  fromWireDigest,
  isEmptyDigest,
  toWireDigest,
} from '../../../protos/digest.ts';
import {
  ContentAddressableStorage,
  DigestFunction_Value,
} from '../../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { ByteStream } from '../../../protos/gen/google/bytestream/bytestream_pb.ts';
import { createHasher } from '../../../protos/hasher.ts';
import { codeName, StatusError } from '../../../protos/status.ts';
import type { GrpcConnection } from '../../reapi/grpc.ts';
import type { LocalBlob } from './inputs.ts';
import * as limits from './limits.ts';
import { forEachLimited } from '../../../sandbox/concurrency.ts';

/** A server, the instance name asked for, and what it takes. */
export interface Remote {
  readonly connection: GrpcConnection;
  readonly instance: string;
  /** Largest sum of blobs in one batch. */
  readonly batchBytesMax: number;
}

export interface UploadReport {
  readonly blobs: number;
  readonly bytes: number;
}

/** Uploads those of `blobs` that the server lacks. Throws a StatusError at the first that it refuses. */
export async function uploadMissing(
  remote: Remote,
  blobs: readonly LocalBlob[],
  options: { readonly signal: AbortSignal; readonly onProgress?: (report: UploadReport) => void },
): Promise<UploadReport> {
  const wanted = await missingOf(remote, blobs, options.signal);
  let sent = { blobs: 0, bytes: 0 };
  const done = (batch: readonly LocalBlob[]): void => {
    const bytes = batch.reduce((sum, { digest }) => sum + digest.sizeBytes, 0);
    sent = { blobs: sent.blobs + batch.length, bytes: sent.bytes + bytes };
    options.onProgress?.(sent);
  };
  await forEachLimited([...batches(wanted, remote.batchBytesMax)], limits.transfersAtOnce, async (batch) => {
    const [first] = batch;
    if (first && travelsAlone(first, remote.batchBytesMax)) await writeStream(remote, first, options.signal);
    else await writeBatch(remote, batch, options.signal);
    done(batch);
  });
  return sent;
}

async function missingOf(remote: Remote, blobs: readonly LocalBlob[], signal: AbortSignal): Promise<LocalBlob[]> {
  const cas = remote.connection.client(ContentAddressableStorage);
  const missing: LocalBlob[] = [];
  for (let start = 0; start < blobs.length; start += limits.digestsPerQuery) {
    const asked = blobs.slice(start, start + limits.digestsPerQuery);
    const answer = await cas.findMissingBlobs(
      {
        instanceName: remote.instance,
        blobDigests: asked.map(({ digest }) => toWireDigest(digest)),
        digestFunction: DigestFunction_Value.SHA256,
      },
      { signal, timeoutMs: limits.callTimeoutMs },
    );
    const keys = new Set(
      answer.missingBlobDigests.map((digest) => digestKey(fromWireDigest(digest, DigestFunction_Value.SHA256))),
    );
    missing.push(...asked.filter(({ digest }) => keys.has(digestKey(digest))));
  }
  return missing;
}

/** Large blobs alone, small ones together up to the limit of a batch. */
function* batches(blobs: readonly LocalBlob[], batchBytesMax: number): Iterable<LocalBlob[]> {
  let batch: LocalBlob[] = [];
  let batchBytes = 0;
  for (const blob of blobs) {
    if (travelsAlone(blob, batchBytesMax)) {
      yield [blob];
      continue;
    }
    const bytes = blob.digest.sizeBytes + limits.batchEntryBytes;
    if (batchBytes + bytes > batchBytesMax) {
      yield batch;
      [batch, batchBytes] = [[], 0];
    }
    batch.push(blob);
    batchBytes += bytes;
  }
  if (batch.length > 0) yield batch;
}

function travelsAlone({ digest }: LocalBlob, batchBytesMax: number): boolean {
  return digest.sizeBytes > Math.min(limits.batchedBlobBytesMax, batchBytesMax - limits.batchEntryBytes);
}

async function writeBatch(remote: Remote, batch: readonly LocalBlob[], signal: AbortSignal): Promise<void> {
  const requests = await Promise.all(
    batch.map(async ({ digest, content }) => ({
      digest: toWireDigest(digest),
      data: 'bytes' in content ? content.bytes : await readFile(content.path, { signal }),
    })),
  );
  const answer = await remote.connection
    .client(ContentAddressableStorage)
    .batchUpdateBlobs(
      { instanceName: remote.instance, requests, digestFunction: DigestFunction_Value.SHA256 },
      { signal, timeoutMs: limits.callTimeoutMs },
    );
  for (const { digest, status } of answer.responses) {
    if (!status?.code) continue;
    const blob = batch.find((one) => one.digest.hash === digest?.hash);
    throw new StatusError(codeName(status.code), `${blob ? nameOf(blob) : 'a blob'}: ${status.message}`);
  }
}

async function writeStream(remote: Remote, blob: LocalBlob, signal: AbortSignal): Promise<void> {
  const { digest } = blob;
  const resourceName = `${prefix(remote)}uploads/${randomUUID()}/blobs/${digestPath(digest)}`;
  async function* requests() {
    let offset = 0;
    for await (const data of chunksOf(blob)) {
      yield { resourceName: offset === 0 ? resourceName : '', writeOffset: BigInt(offset), data };
      offset += data.byteLength;
    }
    yield { resourceName: offset === 0 ? resourceName : '', writeOffset: BigInt(offset), finishWrite: true };
  }
  const answer = await remote.connection.client(ByteStream).write(requests(), { signal });
  if (Number(answer.committedSize) !== digest.sizeBytes) {
    throw new StatusError(
      'DATA_LOSS',
      `${nameOf(blob)}: the server took ${answer.committedSize} of ${digest.sizeBytes} bytes`,
    );
  }
}

async function* chunksOf({ content }: LocalBlob): AsyncIterable<Uint8Array> {
  if ('bytes' in content) {
    for (let start = 0; start < content.bytes.byteLength; start += limits.chunkBytes) {
      yield content.bytes.subarray(start, start + limits.chunkBytes);
    }
    return;
  }
  await using file = await open(content.path);
  yield* file.createReadStream({ highWaterMark: limits.chunkBytes, autoClose: false }) as AsyncIterable<Buffer>;
}

function nameOf({ content, digest }: LocalBlob): string {
  return 'path' in content ? `${content.path} (it may have changed meanwhile)` : `blob ${digest.hash}`;
}

/** The bytes of a blob in order, checked: throws DATA_LOSS at the end when they are not those of the digest. */
export async function* readBlob(remote: Remote, digest: Digest, signal: AbortSignal): AsyncIterable<Uint8Array> {
  if (isEmptyDigest(digest)) return;
  const hasher = await createHasher(digest.fn);
  let seenBytes = 0;
  const resourceName = `${prefix(remote)}blobs/${digestPath(digest)}`;
  for await (const { data } of remote.connection.client(ByteStream).read({ resourceName }, { signal })) {
    hasher.update(data);
    seenBytes += data.byteLength;
    if (seenBytes > digest.sizeBytes) break;
    yield data;
  }
  if (seenBytes !== digest.sizeBytes || hasher.hex() !== digest.hash) {
    throw new StatusError('DATA_LOSS', `blob ${digest.hash}: the server sent other bytes`);
  }
}

/** A whole blob of at most `maxBytes`. */
export async function readSmallBlob(
  remote: Remote,
  digest: Digest,
  maxBytes: number,
  signal: AbortSignal,
): Promise<Uint8Array> {
  if (digest.sizeBytes > maxBytes) {
    throw new StatusError(
      'RESOURCE_EXHAUSTED',
      `blob ${digest.hash}: ${digest.sizeBytes} bytes are too much to read at once`,
    );
  }
  const chunks: Uint8Array[] = [];
  for await (const chunk of readBlob(remote, digest, signal)) chunks.push(chunk);
  return Buffer.concat(chunks);
}

function prefix(remote: Remote): string {
  return remote.instance === '' ? '' : `${remote.instance}/`;
}
