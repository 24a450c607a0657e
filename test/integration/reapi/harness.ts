/** A server on a free port with the cache services over a store of its own, and clients for it. */
import { randomUUID } from 'node:crypto';
import { type CacheServicesOptions, createCacheServices } from '../../../node/reapi/cache-services.ts';
import { type CallReport, connectGrpc, type GrpcConnection, serveGrpc } from '../../../node/reapi/grpc.ts';
import { type Compressor, formatReadName, formatWriteName } from '../../../node/reapi/resource-name.ts';
import type { Digest } from '../../../protos/digest.ts';
import {
  ActionCache,
  Capabilities,
  ContentAddressableStorage,
} from '../../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { ByteStream } from '../../../protos/gen/google/bytestream/bytestream_pb.ts';
import { digestOf } from '../../../protos/hasher.ts';
import { type Code, StatusError } from '../../../protos/status.ts';
import { openObservedStore } from './observed-store.ts';

export async function startCache(options: Partial<CacheServicesOptions> = {}) {
  const store = await openObservedStore();
  const reports: CallReport[] = [];
  const server = await serveGrpc({
    listen: ['127.0.0.1:0'],
    services: createCacheServices({
      blobs: store.blobs,
      actions: store.actions,
      maxBlobBytes: 1024 ** 3,
      ...options,
    }),
    onCall: (report) => reports.push(report),
  });
  const [address] = server.addresses as [string];
  const connections: GrpcConnection[] = [];
  const connect = () => {
    const connection = connectGrpc(address);
    connections.push(connection);
    return connection;
  };
  const connection = connect();
  return {
    address,
    store,
    server,
    reports,
    connect,
    cas: connection.client(ContentAddressableStorage),
    actionCache: connection.client(ActionCache),
    capabilities: connection.client(Capabilities),
    byteStream: connection.client(ByteStream),
    async [Symbol.asyncDispose]() {
      for (const open of connections) open.close();
      await server.close();
      await store[Symbol.asyncDispose]();
    },
  };
}

export type Cache = Awaited<ReturnType<typeof startCache>>;

/** Bytes that do not compress, the same for the same seed. */
export function noise(length: number, seed = 1): Uint8Array {
  const words = new Uint32Array(Math.ceil(length / 4));
  let state = seed >>> 0 || 1;
  for (let index = 0; index < words.length; index += 1) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    words[index] = state;
  }
  return new Uint8Array(words.buffer, 0, length);
}

export function blobOf(bytes: Uint8Array | string, fn: Digest['fn'] = 'sha256') {
  const content = typeof bytes === 'string' ? Buffer.from(bytes) : bytes;
  return { bytes: content, digest: digestOf(fn, content) };
}

export function readName(digest: Digest, compressor: Compressor = 'identity', instance = ''): string {
  return formatReadName({ instance, compressor, digest });
}

export function writeName(digest: Digest, compressor: Compressor = 'identity', instance = ''): string {
  return formatWriteName({ instance, uuid: randomUUID(), compressor, digest });
}

export interface Piece {
  data?: Uint8Array;
  offset?: number;
  finish?: boolean;
  /** The upload's name by default in the first piece, and empty afterwards. */
  name?: string;
}

/** Requests of one Write call; offsets are counted on unless given. */
export async function* writes(name: string, pieces: readonly Piece[]) {
  let offset = pieces[0]?.offset ?? 0;
  for (const [index, piece] of pieces.entries()) {
    yield {
      resourceName: piece.name ?? (index === 0 ? name : ''),
      writeOffset: BigInt(piece.offset ?? offset),
      data: piece.data ?? new Uint8Array(),
      finishWrite: piece.finish ?? false,
    };
    offset += piece.data?.byteLength ?? 0;
  }
}

/** `bytes` in pieces of `pieceBytes`, the last with finish_write. */
export function inPieces(bytes: Uint8Array, pieceBytes: number): Piece[] {
  const pieces: Piece[] = [];
  for (let at = 0; at < bytes.byteLength; at += pieceBytes) pieces.push({ data: bytes.subarray(at, at + pieceBytes) });
  (pieces.at(-1) as Piece).finish = true;
  return pieces;
}

export async function readAll(
  cache: Pick<Cache, 'byteStream'>,
  resourceName: string,
  { offset = 0, limit = 0 }: { offset?: number; limit?: number } = {},
): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  const request = { resourceName, readOffset: BigInt(offset), readLimit: BigInt(limit) };
  for await (const { data } of cache.byteStream.read(request)) chunks.push(data);
  return Buffer.concat(chunks);
}

/** The code a call fails with; `OK` when it does not. */
export async function codeOf(call: Promise<unknown>): Promise<Code> {
  try {
    await call;
    return 'OK';
  } catch (error) {
    if (error instanceof StatusError) return error.code;
    throw error;
  }
}
