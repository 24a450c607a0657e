/** Fetches the content of http, https and file URIs into a local file, checked against what the client expects. */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { open, stat } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { StatusError } from '../../protos/status.ts';

/** Checksums as Subresource Integrity writes them: any of these may match. */
export type Checksums = readonly { readonly algorithm: string; readonly base64: string }[];

/** `sha256-…`, `sha384-…` or `sha512-…`, several separated by spaces; `undefined` when none is of these. */
export function parseChecksums(sri: string): Checksums | undefined {
  const matches = [...sri.matchAll(/(?:^|\s)(sha256|sha384|sha512)-([A-Za-z0-9+/]+={0,2})(?:\?\S*)?(?=\s|$)/g)];
  return matches.length === 0
    ? undefined
    : matches.map(([, algorithm, base64]) => ({ algorithm: algorithm as string, base64: base64 as string }));
}

/**
 * Writes the content of `uri` to the new file `path`. Throws NOT_FOUND, PERMISSION_DENIED or UNAVAILABLE for what the
 * origin says, ABORTED when no checksum matches, RESOURCE_EXHAUSTED beyond `bytesMax`.
 */
export async function download(
  uri: string,
  path: string,
  options: { readonly checksums: Checksums | undefined; readonly bytesMax: number; readonly signal: AbortSignal },
): Promise<void> {
  const { checksums, bytesMax, signal } = options;
  const hashes = (checksums ?? []).map((expected) => ({ ...expected, hash: createHash(expected.algorithm) }));
  const content = await openOrigin(uri, signal);
  await using file = await open(path, 'wx');
  let total = 0;
  try {
    for await (const chunk of content) {
      total += chunk.byteLength;
      if (total > bytesMax) throw new StatusError('RESOURCE_EXHAUSTED', `${uri} has more than ${bytesMax} bytes`);
      for (const { hash } of hashes) hash.update(chunk);
      await file.appendFile(chunk);
    }
  } catch (error) {
    throw toFetchError(uri, error);
  }
  if (hashes.length > 0 && !hashes.some(({ hash, base64 }) => hash.digest('base64') === base64)) {
    throw new StatusError('ABORTED', `${uri}: the content does not have the expected checksum`);
  }
}

async function openOrigin(uri: string, signal: AbortSignal): Promise<AsyncIterable<Uint8Array>> {
  const scheme = URL.canParse(uri) ? new URL(uri).protocol : undefined;
  try {
    if (scheme === 'file:') {
      const path = fileURLToPath(uri);
      if (!(await stat(path)).isFile()) throw new StatusError('NOT_FOUND', `${uri} is no regular file`);
      return createReadStream(path, { signal });
    }
    if (scheme === 'http:' || scheme === 'https:') {
      const response = await fetch(uri, { signal });
      if (!response.ok) {
        await response.body?.cancel();
        throw new StatusError(codeOf(response.status), `${uri}: the server answers ${response.status}`);
      }
      return response.body ?? emptyBody();
    }
  } catch (error) {
    throw toFetchError(uri, error);
  }
  throw new StatusError('NOT_FOUND', `${uri} was not pushed, and only http, https and file URIs are fetched`);
}

async function* emptyBody(): AsyncGenerator<Uint8Array> {}

function codeOf(httpStatus: number): 'PERMISSION_DENIED' | 'NOT_FOUND' | 'UNAVAILABLE' {
  if (httpStatus === 401 || httpStatus === 403) return 'PERMISSION_DENIED';
  return httpStatus >= 500 || httpStatus === 429 ? 'UNAVAILABLE' : 'NOT_FOUND';
}

function toFetchError(uri: string, error: unknown): unknown {
  if (error instanceof StatusError || !(error instanceof Error)) return error;
  if (error.name === 'AbortError' || error.name === 'TimeoutError') return error;
  const { code } = error as NodeJS.ErrnoException;
  if (code === 'ENOSPC') return error;
  if (code === 'ENOENT' || code === 'ENOTDIR') return new StatusError('NOT_FOUND', `${uri} does not exist`);
  if (code === 'EACCES' || code === 'EPERM') return new StatusError('PERMISSION_DENIED', `${uri} may not be read`);
  const cause = error.cause instanceof Error ? `: ${error.cause.message}` : '';
  return new StatusError('UNAVAILABLE', `${uri}: ${error.message}${cause}`, { cause: error });
}
