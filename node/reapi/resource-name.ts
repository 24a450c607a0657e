/**
 * ByteStream resource names.
 *
 *     read:  {instance/}blobs/{function/}{hash}/{size}{/metadata}
 *            {instance/}compressed-blobs/{compressor}/{function/}{hash}/{size}{/metadata}
 *     write: {instance/}uploads/{uuid}/ followed by one of these
 *
 * The instance is what stands before the first reserved word from the left, so metadata may hold any words. The function
 * stands for those that were added after REAPI 2.0 (BLAKE3); for the older ones it is left out, and tolerated.
 *
 * @see REAPI v2.12, service ContentAddressableStorage
 */
import {
  type Digest,
  type DigestFunction,
  digestFunctionNames,
  digestPath,
  makeDigest,
  resolveDigestFunction,
} from '../../protos/digest.ts';
import { DigestFunction_Value } from '../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { StatusError } from '../../protos/status.ts';

export type Compressor = 'identity' | 'zstd';

export interface BlobName {
  /** May be empty or of several segments. */
  readonly instance: string;
  /** How the bytes travel; the digest is always of the uncompressed blob. */
  readonly compressor: Compressor;
  readonly digest: Digest;
}

export interface UploadName extends BlobName {
  readonly uuid: string;
}

const reservedWords = new Set([
  'blobs',
  'uploads',
  'actions',
  'actionResults',
  'operations',
  'capabilities',
  'compressed-blobs',
]);

/** The name of a blob to read; `undefined` for a name without any reserved word. Throws INVALID_ARGUMENT. */
export function parseReadName(name: string): BlobName | undefined {
  const segments = name.split('/');
  const word = segments.findIndex((segment) => reservedWords.has(segment));
  if (name === '') throw invalid(name, 'it is empty');
  if (word === -1) return undefined;
  if (segments[word] === 'uploads') throw invalid(name, 'a name with "uploads" is for writing');
  return parseBlobName(name, segments, word, parseInstance(name, segments, word));
}

/** The name of an upload. Throws INVALID_ARGUMENT. */
export function parseWriteName(name: string): UploadName {
  const segments = name.split('/');
  const word = segments.findIndex((segment) => reservedWords.has(segment));
  if (word === -1 || segments[word] !== 'uploads') {
    throw invalid(name, 'a name for writing is {instance}/uploads/{uuid}/blobs/{hash}/{size}');
  }
  const instance = parseInstance(name, segments, word);
  const uuid = segments[word + 1] ?? '';
  if (uuid === '' || reservedWords.has(uuid)) throw invalid(name, 'the uuid is missing after "uploads"');
  return { uuid, ...parseBlobName(name, segments, word + 2, instance) };
}

export function formatReadName({ instance, compressor, digest }: BlobName): string {
  const kind = compressor === 'identity' ? 'blobs' : `compressed-blobs/${compressor}`;
  return `${instance === '' ? '' : `${instance}/`}${kind}/${digestPath(digest)}`;
}

export function formatWriteName({ instance, uuid, ...blob }: UploadName): string {
  return `${instance === '' ? '' : `${instance}/`}uploads/${uuid}/${formatReadName({ ...blob, instance: '' })}`;
}

/** Whether `name` can be an instance name: segments that are neither empty nor reserved, or nothing at all. */
export function isInstanceName(name: string): boolean {
  return name === '' || name.split('/').every((segment) => segment !== '' && !reservedWords.has(segment));
}

function parseInstance(name: string, segments: readonly string[], end: number): string {
  const instance = segments.slice(0, end);
  if (instance.includes('')) throw invalid(name, 'it has an empty segment');
  return instance.join('/');
}

/** Parses from the word `blobs` or `compressed-blobs`, which must stand at `word`. */
function parseBlobName(name: string, segments: readonly string[], word: number, instance: string): BlobName {
  let next = word + 1;
  let compressor: Compressor = 'identity';
  if (segments[word] === 'compressed-blobs') {
    if (segments[next] !== 'zstd') {
      throw invalid(
        name,
        `compressor "${shown(segments[next] ?? '')}" is not supported; use zstd, or blobs/ for identity`,
      );
    }
    compressor = 'zstd';
    next += 1;
  } else if (segments[word] !== 'blobs') {
    throw invalid(name, 'expected "blobs" or "compressed-blobs"');
  }
  const first = segments[next] ?? '';
  const named = digestFunctionNames.find((fn) => fn === first);
  if (named) next += 1;
  else if (/^[a-z][a-z0-9]*$/.test(first) && !/^[0-9a-f]{32,}$/.test(first)) {
    const supported = digestFunctionNames.join(', ');
    throw invalid(name, `"${shown(first)}" is neither a hash nor a digest function; supported are ${supported}`);
  }
  const hash = segments[next] ?? '';
  const size = segments[next + 1] ?? '';
  if (!/^(?:0|[1-9]\d{0,15})$/.test(size)) throw invalid(name, `"${shown(size)}" is not a size in bytes`);
  const fn: DigestFunction = named ?? resolveDigestFunction(DigestFunction_Value.UNKNOWN, hash);
  return { instance, compressor, digest: makeDigest(fn, hash, Number(size)) };
}

function invalid(name: string, reason: string): StatusError {
  return new StatusError('INVALID_ARGUMENT', `resource name "${shown(name)}": ${reason}`);
}

function shown(text: string): string {
  return text.length > 300 ? `${text.slice(0, 300)}…` : text;
}
