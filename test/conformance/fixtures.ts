/** Blobs, resource names and directories as rules need them. */
import { create, toBinary } from '@bufbuild/protobuf';
import type { DescMessage, MessageInitShape } from '@bufbuild/protobuf';
import { randomUUID } from 'node:crypto';
import * as zlib from 'node:zlib';
import { type Digest, type DigestFunction, digestFunctions, digestPath } from '../../protos/digest.ts';
import {
  ContentAddressableStorage,
  type DigestFunction_Value,
  type DirectoryNodeSchema,
  DirectorySchema,
  type FileNodeSchema,
  type SymlinkNodeSchema,
  type Digest as WireDigest,
} from '../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { ByteStream, type WriteResponse } from '../../protos/gen/google/bytestream/bytestream_pb.ts';
import { digestOf as hashed } from '../../protos/hasher.ts';
import { type Code, StatusError } from '../../protos/status.ts';
import type { CallOptions, Outcome, Reply } from './client.ts';
import type { Context } from './context.ts';
import type { Check } from './rule.ts';

/** Blobs up to this size are stored by BatchUpdateBlobs, larger ones by ByteStream. */
const batchedBytes = 256 * 1024;
const chunkBytes = 64 * 1024;

export const digestOf = hashed;

export function wire(digest: Digest): { hash: string; sizeBytes: bigint } {
  return { hash: digest.hash, sizeBytes: BigInt(digest.sizeBytes) };
}

export function wireFn(fn: DigestFunction): DigestFunction_Value {
  return digestFunctions[fn].wire;
}

export function sameDigest(a: WireDigest | undefined, b: Digest): boolean {
  return a?.hash === b.hash && Number(a.sizeBytes) === b.sizeBytes;
}

export interface NameOptions {
  readonly instance?: string;
  readonly compressor?: string;
  readonly uuid?: string;
  /** What follows the size, with its leading slash. */
  readonly suffix?: string;
}

export function writeName(context: Context, digest: Digest, options: NameOptions = {}): string {
  const { compressor, uuid = randomUUID(), suffix = '' } = options;
  const kind = compressor === undefined ? 'blobs' : `compressed-blobs/${compressor}`;
  return `${prefix(options.instance ?? context.instance)}uploads/${uuid}/${kind}/${digestPath(digest)}${suffix}`;
}

export function readName(context: Context, digest: Digest, options: Omit<NameOptions, 'uuid'> = {}): string {
  const { compressor, suffix = '' } = options;
  const kind = compressor === undefined ? 'blobs' : `compressed-blobs/${compressor}`;
  return `${prefix(options.instance ?? context.instance)}${kind}/${digestPath(digest)}${suffix}`;
}

function prefix(instance: string): string {
  return instance === '' ? '' : `${instance}/`;
}

/** The fields that most requests begin with. */
export function requestBase(context: Context): { instanceName: string; digestFunction: DigestFunction_Value } {
  return { instanceName: context.instance, digestFunction: wireFn(context.fn) };
}

/** Stores bytes; throws when the target refuses, for nothing that follows would mean anything. */
export async function put(context: Context, bytes: Uint8Array, fn = context.fn): Promise<Digest> {
  const digest = digestOf(fn, bytes);
  if (bytes.byteLength > batchedBytes) {
    const reply = await writeBlob(context, writeName(context, digest), bytes);
    if (reply.code !== 'OK') throw new StatusError(reply.code, `storing ${digestPath(digest)}: ${reply.message}`);
    return digest;
  }
  const reply = await context.client.unary(ContentAddressableStorage.method.batchUpdateBlobs, {
    instanceName: context.instance,
    requests: [{ digest: wire(digest), data: bytes }],
    digestFunction: wireFn(fn),
  });
  const status = reply.response?.responses[0]?.status?.code ?? 0;
  if (!reply.response || status !== 0) {
    throw new StatusError(
      reply.response ? 'INTERNAL' : reply.code,
      `storing ${digestPath(digest)}: ${reply.response?.responses[0]?.status?.message ?? reply.message}`,
    );
  }
  return digest;
}

export function putMessage<D extends DescMessage>(
  context: Context,
  schema: D,
  message: MessageInitShape<D>,
  fn = context.fn,
): Promise<Digest> {
  return put(context, toBinary(schema, create(schema, message)), fn);
}

/** Writes a whole blob under a resource name, in order, with finish_write on the last message. */
export async function writeBlob(
  context: Context,
  resourceName: string,
  bytes: Uint8Array,
  options: CallOptions & { readonly offset?: number; readonly finish?: boolean } = {},
): Promise<Reply<WriteResponse>> {
  const upload = context.client.upload(ByteStream.method.write, options);
  const { offset = 0, finish = true } = options;
  let at = 0;
  do {
    const data = bytes.subarray(at, at + chunkBytes);
    const last = at + data.byteLength >= bytes.byteLength;
    const sent = await upload.send({
      resourceName: at === 0 ? resourceName : '',
      writeOffset: BigInt(offset + at),
      finishWrite: finish && last,
      data,
    });
    if (!sent) break;
    at += data.byteLength;
  } while (at < bytes.byteLength);
  upload.halfClose();
  return upload.reply;
}

/** Reads a resource to its end. */
export async function readBlob(
  context: Context,
  resourceName: string,
  options: CallOptions & { readonly offset?: number | bigint; readonly limit?: number | bigint } = {},
): Promise<Outcome & { readonly bytes: Buffer }> {
  const reply = await context.client.collect(
    ByteStream.method.read,
    { resourceName, readOffset: BigInt(options.offset ?? 0), readLimit: BigInt(options.limit ?? 0) },
    options,
  );
  return { ...reply, bytes: Buffer.concat(reply.messages.map((message) => message.data)) };
}

/** The content of a blob, or `undefined` when it cannot be read whole and right. */
export async function fetchBlob(context: Context, digest: Digest): Promise<Buffer | undefined> {
  const { code, bytes } = await readBlob(context, readName(context, digest));
  return code === 'OK' && digestOf(digest.fn, bytes).hash === digest.hash ? bytes : undefined;
}

/** Which of `digests` the target says are missing, as `hash/size`. Throws when it answers anything but OK. */
export async function missing(
  context: Context,
  digests: readonly Digest[],
  options: { readonly instance?: string; readonly fn?: DigestFunction } = {},
): Promise<Set<string>> {
  const reply = await context.client.unary(ContentAddressableStorage.method.findMissingBlobs, {
    instanceName: options.instance ?? context.instance,
    blobDigests: digests.map(wire),
    digestFunction: wireFn(options.fn ?? digests[0]?.fn ?? context.fn),
  });
  if (!reply.response) throw new StatusError(reply.code, `FindMissingBlobs: ${reply.message}`);
  return new Set(reply.response.missingBlobDigests.map((digest) => `${digest.hash}/${digest.sizeBytes}`));
}

export async function isMissing(context: Context, digest: Digest): Promise<boolean> {
  return (await missing(context, [digest])).has(`${digest.hash}/${digest.sizeBytes}`);
}

/** The same size and function, but a hash that nothing has. */
export function absentDigest(context: Context, sizeBytes = 100, fn = context.fn): Digest {
  return digestOf(fn, context.fresh(sizeBytes));
}

export const zstd = {
  compress: (bytes: Uint8Array): Buffer => zlib.zstdCompressSync(bytes),
  /** One frame whose header does not tell the size of its content. */
  compressUnsized: (bytes: Uint8Array): Buffer =>
    zlib.zstdCompressSync(bytes, { params: { [zlib.constants.ZSTD_c_contentSizeFlag]: 0 } }),
  /** Every frame of `bytes`, or `undefined` when they are not whole zstd frames. */
  async decompress(bytes: Buffer): Promise<Buffer | undefined> {
    const out: Buffer[] = [];
    let rest = bytes;
    while (rest.byteLength > 0) {
      const frame = await firstFrame(rest);
      if (!frame || frame.consumed === 0) return undefined;
      out.push(frame.content);
      rest = rest.subarray(frame.consumed);
    }
    return Buffer.concat(out);
  },
};

function firstFrame(bytes: Buffer): Promise<{ content: Buffer; consumed: number } | undefined> {
  return new Promise((resolve) => {
    const stream = zlib.createZstdDecompress();
    const chunks: Buffer[] = [];
    stream.on('data', (chunk: Buffer) => chunks.push(chunk));
    stream.on('error', () => resolve(undefined));
    stream.on('end', () => resolve({ content: Buffer.concat(chunks), consumed: frameBytes(bytes) }));
    stream.end(bytes.subarray(0, frameBytes(bytes)));
  });
}

/** How many bytes the frame at the start of `bytes` takes (RFC 8878, section 3.1.1). */
function frameBytes(bytes: Buffer): number {
  if (bytes.byteLength < 6 || bytes.readUInt32LE(0) !== 0xfd2fb528) return 0;
  const descriptor = bytes[4] as number;
  const singleSegment = (descriptor & 0x20) !== 0;
  const sizeField = [singleSegment ? 1 : 0, 2, 4, 8][descriptor >> 6] as number;
  const dictionaryField = [0, 1, 2, 4][descriptor & 3] as number;
  let at = 5 + (singleSegment ? 0 : 1) + dictionaryField + sizeField;
  for (let last = false; !last; ) {
    if (at + 3 > bytes.byteLength) return 0;
    const header = bytes.readUIntLE(at, 3);
    last = (header & 1) === 1;
    at += 3 + (((header >> 1) & 3) === 1 ? 1 : header >> 3);
  }
  return at + ((descriptor & 4) === 0 ? 0 : 4);
}

/** A file, a link or a directory of an input tree. */
export type TreeEntry =
  | string
  | Uint8Array
  | { readonly link: string }
  | {
      readonly file: string | Uint8Array;
      readonly executable?: boolean;
      readonly unixMode?: number;
      readonly mtimeS?: number;
    }
  | { readonly dir: TreeSpec };
export type TreeSpec = { readonly [name: string]: TreeEntry };

export function byBytes(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a), Buffer.from(b));
}

/** Stores a directory with everything below it, in canonical form; returns the digest of its Directory. */
export async function putTree(context: Context, spec: TreeSpec, fn = context.fn): Promise<Digest> {
  const directory = {
    files: [] as MessageInitShape<typeof FileNodeSchema>[],
    directories: [] as MessageInitShape<typeof DirectoryNodeSchema>[],
    symlinks: [] as MessageInitShape<typeof SymlinkNodeSchema>[],
  };
  for (const [name, entry] of Object.entries(spec).toSorted(([a], [b]) => byBytes(a, b))) {
    if (typeof entry === 'string' || entry instanceof Uint8Array) {
      directory.files.push({ name, digest: wire(await put(context, Buffer.from(entry as string), fn)) });
    } else if ('link' in entry) {
      directory.symlinks.push({ name, target: entry.link });
    } else if ('dir' in entry) {
      directory.directories.push({ name, digest: wire(await putTree(context, entry.dir, fn)) });
    } else {
      const { file, executable = false, unixMode, mtimeS } = entry;
      directory.files.push({
        name,
        digest: wire(await put(context, Buffer.from(file as string), fn)),
        isExecutable: executable,
        ...(unixMode === undefined && mtimeS === undefined
          ? {}
          : {
              nodeProperties: {
                ...(unixMode === undefined ? {} : { unixMode }),
                ...(mtimeS === undefined ? {} : { mtime: { seconds: BigInt(mtimeS) } }),
              },
            }),
      });
    }
  }
  return putMessage(context, DirectorySchema, directory, fn);
}

/**
 * Checks how a call was refused. `codes[0]` is what the specification says or what a careful reading suggests; taking
 * one of the others is told as a choice, anything else (and success) is a violation.
 */
export function mustRefuse(
  check: Check,
  what: string,
  outcome: Pick<Outcome, 'code' | 'message'>,
  ...codes: Code[]
): void {
  const [first, ...others] = codes;
  if (outcome.code === first) return;
  if (others.includes(outcome.code)) check.choice(`${what}: ${outcome.code}`);
  else check.must(false, `${what}: expected ${codes.join(' or ')}, got ${outcome.code} ${outcome.message}`.trim());
}

export function mustBeOk(check: Check, what: string, outcome: Pick<Outcome, 'code' | 'message'>): boolean {
  check.must(outcome.code === 'OK', `${what}: expected OK, got ${outcome.code} ${outcome.message}`.trim());
  return outcome.code === 'OK';
}
