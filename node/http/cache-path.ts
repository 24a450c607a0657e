/**
 * Paths of the HTTP cache: `/{instance}/ac/{hash}` and `/{instance}/cas/{hash}`. The instance may be empty or of several
 * segments. The digest function follows from the length of the hash; BLAKE3, as long as SHA256, is a segment of its own:
 * `/cas/blake3/{hash}`.
 */
import { type Digest, digestFunctions, makeDigest, resolveDigestFunction } from '../../protos/digest.ts';
import { DigestFunction_Value } from '../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { StatusError } from '../../protos/status.ts';

export interface CachePath {
  readonly kind: 'ac' | 'cas';
  readonly instance: string;
  readonly fn: Digest['fn'];
  readonly hash: string;
}

/** `undefined` for a path of another form. Throws INVALID_ARGUMENT when the hash is none. */
export function parseCachePath(path: string): CachePath | undefined {
  const match = /^\/(?:(.+)\/)?(ac|cas)\/(blake3\/)?([^/]+)$/.exec(path);
  if (!match) return undefined;
  const [, rawInstance = '', kind, named, hash = ''] = match;
  const wire = named ? digestFunctions.blake3.wire : DigestFunction_Value.UNKNOWN;
  const { fn } = makeDigest(resolveDigestFunction(wire, hash), hash, 0);
  const instance = decoded(rawInstance);
  return { kind: kind as CachePath['kind'], instance, fn, hash };
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch (cause) {
    throw new StatusError('INVALID_ARGUMENT', `the path segment "${text}" is not percent-encoded text`, { cause });
  }
}
