/**
 * ActionCache: results by action, with file contents inlined only where a client asks.
 *
 * What is stored never holds inlined bytes: an upload's stdout, stderr and file contents become blobs first. The blobs of
 * the Action and its Command need not be there, because cache clients exist that have none.
 *
 * @see REAPI v2.12, service ActionCache
 */
import { toBinary } from '@bufbuild/protobuf';
import { type Digest, digestFunctions, fromWireDigest, isEmptyDigest, toWireDigest } from '../../protos/digest.ts';
import {
  type ActionCache as ActionCacheService,
  type ActionResult,
  ActionResultSchema,
  type Digest as WireDigest,
  type GetActionResultRequest,
} from '../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { digestOf } from '../../protos/hasher.ts';
import { StatusError } from '../../protos/status.ts';
import type { ActionCache } from '../storage/action-cache.ts';
import type { BlobStore } from '../storage/blob-store.ts';
import type { ServiceHandlers } from './handler.ts';
import type { InstanceCheck } from './instances.ts';
import { limits } from './limits.ts';

export function createActionCache(
  blobs: BlobStore,
  actions: ActionCache,
  checkInstance: InstanceCheck,
): ServiceHandlers<typeof ActionCacheService> {
  return {
    async getActionResult(request, { signal }) {
      checkInstance(request.instanceName);
      const action = fromWireDigest(request.actionDigest, request.digestFunction, 'action_digest');
      const result = await actions.get({ instance: request.instanceName, action }, { signal });
      if (!result) {
        throw new StatusError('NOT_FOUND', `no result for action ${action.hash}/${action.sizeBytes}`);
      }
      return inlineHints(blobs, action.fn, result, request, signal);
    },

    async updateActionResult(request, { signal }) {
      checkInstance(request.instanceName);
      const action = fromWireDigest(request.actionDigest, request.digestFunction, 'action_digest');
      const { actionResult } = request;
      if (!actionResult) throw new StatusError('INVALID_ARGUMENT', 'action_result is not set');
      const result = await storableResult(blobs, action.fn, actionResult, signal);
      await actions.put({ instance: request.instanceName, action }, result, { signal });
      return result;
    },
  };
}

export type InlineHints = Pick<GetActionResultRequest, 'inlineStdout' | 'inlineStderr' | 'inlineOutputFiles'>;

/**
 * The result with what `hints` ask for inlined, as far as the message stays within what receivers take: stdout first,
 * then stderr, then files. Digests stay set.
 */
export async function inlineHints(
  blobs: BlobStore,
  fn: Digest['fn'],
  result: ActionResult,
  hints: InlineHints,
  signal: AbortSignal,
): Promise<ActionResult> {
  const { inlineStdout, inlineStderr, inlineOutputFiles } = hints;
  if (!inlineStdout && !inlineStderr && inlineOutputFiles.length === 0) return result;
  let roomBytes = limits.responseBytesMax - toBinary(ActionResultSchema, result).byteLength;
  const content = async (wire: WireDigest | undefined) => {
    if (!wire || wire.sizeBytes > BigInt(roomBytes)) return new Uint8Array();
    const digest = fromWireDigest(wire, digestFunctions[fn].wire);
    if (isEmptyDigest(digest)) return new Uint8Array();
    const bytes = (await blobs.get(digest, { signal })) ?? new Uint8Array();
    roomBytes -= bytes.byteLength + fieldOverheadBytes;
    return bytes;
  };
  const inlined = { ...result };
  if (inlineStdout) inlined.stdoutRaw = await content(result.stdoutDigest);
  if (inlineStderr) inlined.stderrRaw = await content(result.stderrDigest);
  if (inlineOutputFiles.length > 0) {
    const wanted = new Set(inlineOutputFiles);
    inlined.outputFiles = [];
    for (const file of result.outputFiles) {
      inlined.outputFiles.push(wanted.has(file.path) ? { ...file, contents: await content(file.digest) } : file);
    }
  }
  return inlined;
}

/** Tag and length of the field, and what they add to the lengths of the messages around it. */
const fieldOverheadBytes = 16;

/** An uploaded result as it is stored: checked, its inlined bytes made blobs. Throws INVALID_ARGUMENT. */
export async function storableResult(
  blobs: Pick<BlobStore, 'putMany'>,
  fn: Digest['fn'],
  uploaded: ActionResult,
  signal: AbortSignal,
): Promise<ActionResult> {
  checkPaths(uploaded);
  const { result, inlined } = takeInlined(fn, uploaded);
  if (inlined.length > 0) {
    const failure = (await blobs.putMany(inlined, { signal })).find((outcome) => outcome !== undefined);
    if (failure) throw failure;
  }
  return result;
}

interface InlinedBlob {
  readonly digest: Digest;
  readonly bytes: Uint8Array;
}

/** Replaces inlined bytes by digests, and returns what must be stored for that. Throws INVALID_ARGUMENT. */
function takeInlined(fn: Digest['fn'], result: ActionResult): { result: ActionResult; inlined: InlinedBlob[] } {
  const inlined: InlinedBlob[] = [];
  const take = (bytes: Uint8Array, wire: WireDigest | undefined, what: string): { digest?: WireDigest } => {
    if (bytes.byteLength === 0) return wire ? { digest: wire } : {};
    const digest = digestOf(fn, bytes);
    if (wire && (wire.hash !== digest.hash || wire.sizeBytes !== BigInt(digest.sizeBytes))) {
      throw new StatusError('INVALID_ARGUMENT', `${what}: the inlined bytes do not have the digest ${wire.hash}`);
    }
    inlined.push({ digest, bytes });
    return { digest: toWireDigest(digest) };
  };
  const { stdoutDigest, stderrDigest, ...rest } = result;
  const stdout = take(result.stdoutRaw, stdoutDigest, 'stdout').digest;
  const stderr = take(result.stderrRaw, stderrDigest, 'stderr').digest;
  const outputFiles = result.outputFiles.map((file) => {
    const { digest } = take(file.contents, file.digest, file.path);
    if (!digest) throw new StatusError('INVALID_ARGUMENT', `output file ${file.path} has no digest`);
    return { ...file, digest, contents: empty };
  });
  return {
    result: {
      ...rest,
      outputFiles,
      stdoutRaw: empty,
      stderrRaw: empty,
      ...(stdout && { stdoutDigest: stdout }),
      ...(stderr && { stderrDigest: stderr }),
    },
    inlined,
  };
}

const empty = new Uint8Array();

/** Output paths are relative to the working directory and stay inside the tree. Throws INVALID_ARGUMENT. */
function checkPaths(result: ActionResult): void {
  const { outputFiles, outputDirectories, outputSymlinks, outputFileSymlinks, outputDirectorySymlinks } = result;
  for (const { path } of [...outputFiles, ...outputSymlinks, ...outputFileSymlinks, ...outputDirectorySymlinks]) {
    checkPath(path);
  }
  for (const { path } of outputDirectories) {
    // The whole working directory may be an output.
    if (path !== '') checkPath(path);
  }
}

function checkPath(path: string): void {
  const segments = path.split('/');
  if (segments.some((segment) => segment === '' || segment === '.' || segment === '..') || path.includes('\0')) {
    throw new StatusError('INVALID_ARGUMENT', `output path "${path}" is not a relative path without "." and ".."`);
  }
}
