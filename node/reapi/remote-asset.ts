/**
 * Remote Asset: content by URI, pushed by clients or fetched from http, https and file URIs.
 *
 * Not served unless the operator asks for it: whoever may call it can make this machine read URLs and files.
 *
 * @see Remote Asset API v1, services Fetch and Push
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { create } from '@bufbuild/protobuf';
import { anyPack, durationMs, timestampMs } from '@bufbuild/protobuf/wkt';
import {
  type Digest,
  digestFunctions,
  fromWireDigest,
  resolveDigestFunction,
  toWireDigest,
} from '../../protos/digest.ts';
import {
  Fetch,
  FetchBlobResponseSchema,
  FetchDirectoryResponseSchema,
  Push,
  PushBlobResponseSchema,
  type PushBlobRequest,
  type PushDirectoryRequest,
  PushDirectoryResponseSchema,
  type FetchBlobRequest,
  type FetchDirectoryRequest,
  type Qualifier,
} from '../../protos/gen/build/bazel/remote/asset/v1/remote_asset_pb.ts';
import { DigestFunction_Value } from '../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { BadRequestSchema } from '../../protos/gen/google/rpc/error_details_pb.ts';
import { StatusError, toStatusError } from '../../protos/status.ts';
import type { ActionCache } from '../storage/action-cache.ts';
import type { LocalBlobStore } from '../storage/blob-store.ts';
import { type Checksums, download, parseChecksums } from './asset-origin.ts';
import { type Asset, type AssetKind, type AssetName, createAssetRegister } from './asset-register.ts';
import { toWireStatus } from './grpc-status.ts';
import { type BoundService, bindService } from './handler.ts';
import { checkInstances } from './instances.ts';
import { limits } from './limits.ts';

export interface RemoteAssetOptions {
  readonly blobs: Pick<LocalBlobStore, 'putFile'>;
  readonly actions: ActionCache;
  readonly maxBlobBytes: number;
  readonly instances?: readonly string[];
}

type AnyFetch = FetchBlobRequest | FetchDirectoryRequest;
type AnyPush = PushBlobRequest | PushDirectoryRequest;

export function createRemoteAsset(options: RemoteAssetOptions): BoundService[] {
  const checkInstance = checkInstances(options.instances);
  const register = createAssetRegister(options.actions, Date.now);
  let fetches = 0;

  /** What is known of the first URI that is known. */
  const known = async (request: AnyFetch, kind: AssetKind, fn: Digest['fn'], signal: AbortSignal) => {
    const oldestMs = request.oldestContentAccepted ? timestampMs(request.oldestContentAccepted) : 0;
    for (const uri of request.uris) {
      const asset = await register.get(nameOf(request, kind, fn, uri), { signal });
      if (asset && asset.sinceMs >= oldestMs) return { uri, asset };
    }
    return undefined;
  };

  /** The content of one URI, stored and registered. */
  const fetchOne = async (name: AssetName, checksums: Checksums | undefined, signal: AbortSignal): Promise<Asset> => {
    const sinceMs = Date.now();
    const folder = await mkdtemp(join(tmpdir(), 'potluck-fetch-'));
    try {
      const path = join(folder, 'content');
      await download(name.uri, path, { checksums, bytesMax: options.maxBlobBytes, signal });
      const asset = {
        digest: await options.blobs.putFile(name.fn, path, { signal, move: true }),
        sinceMs,
        expireAt: undefined,
      };
      await register.put(name, asset, { signal });
      return asset;
    } finally {
      await rm(folder, { recursive: true });
    }
  };

  const fetchAny = async (request: FetchBlobRequest, fn: Digest['fn'], signal: AbortSignal) => {
    const checksums = supportedQualifiers(request.qualifiers);
    let failure: { uri: string; error: unknown } | undefined;
    for (const uri of request.uris) {
      try {
        return { uri, asset: await fetchOne(nameOf(request, 'blob', fn, uri), checksums, signal) };
      } catch (error) {
        failure = { uri, error: signal.aborted ? signal.reason : error };
        if (signal.aborted) break;
      }
    }
    return failure as { uri: string; error: unknown };
  };

  const push = async (request: AnyPush, kind: AssetKind, signal: AbortSignal) => {
    const fn = checkRequest(request, checkInstance);
    const wire = 'blobDigest' in request ? request.blobDigest : (request as PushDirectoryRequest).rootDirectoryDigest;
    const digest = fromWireDigest(wire, digestFunctions[fn].wire, 'the digest of the content');
    const asset = { digest, sinceMs: Date.now(), expireAt: request.expireAt };
    for (const uri of request.uris) await register.put(nameOf(request, kind, fn, uri), asset, { signal });
  };

  return [
    bindService(Fetch, {
      async fetchBlob(request, context) {
        const fn = checkRequest(request, checkInstance);
        const respond = (uri: string, { digest, expireAt }: Asset) =>
          create(FetchBlobResponseSchema, {
            status: toWireStatus(undefined),
            uri,
            qualifiers: request.qualifiers,
            blobDigest: toWireDigest(digest),
            digestFunction: digestFunctions[fn].wire,
            ...(expireAt && { expiresAt: expireAt }),
          });
        const found = await known(request, 'blob', fn, context.signal);
        if (found) return respond(found.uri, found.asset);
        if (fetches >= limits.assetFetchesMax) {
          throw new StatusError('RESOURCE_EXHAUSTED', `${fetches} fetches are under way; try again later`);
        }
        const asked = request.timeout ? durationMs(request.timeout) : limits.assetFetchMs;
        const timeoutMs = Math.max(1, Math.min(asked, limits.assetFetchMs));
        fetches += 1;
        try {
          const outcome = await fetchAny(
            request,
            fn,
            AbortSignal.any([context.signal, AbortSignal.timeout(timeoutMs)]),
          );
          if ('asset' in outcome) return respond(outcome.uri, outcome.asset);
          if (context.signal.aborted || isOurs(outcome.error)) throw outcome.error;
          return create(FetchBlobResponseSchema, { status: toWireStatus(outcome.error), uri: outcome.uri });
        } finally {
          fetches -= 1;
        }
      },

      async fetchDirectory(request, { signal }) {
        const fn = checkRequest(request, checkInstance);
        const found = await known(request, 'directory', fn, signal);
        if (!found) {
          const error = new StatusError(
            'NOT_FOUND',
            'no such directory was pushed; this server fetches single files only',
          );
          return create(FetchDirectoryResponseSchema, { status: toWireStatus(error), uri: request.uris[0] as string });
        }
        const { uri, asset } = found;
        return create(FetchDirectoryResponseSchema, {
          status: toWireStatus(undefined),
          uri,
          qualifiers: request.qualifiers,
          rootDirectoryDigest: toWireDigest(asset.digest),
          digestFunction: digestFunctions[fn].wire,
          ...(asset.expireAt && { expiresAt: asset.expireAt }),
        });
      },
    }),
    bindService(Push, {
      async pushBlob(request, { signal }) {
        await push(request, 'blob', signal);
        return create(PushBlobResponseSchema);
      },
      async pushDirectory(request, { signal }) {
        await push(request, 'directory', signal);
        return create(PushDirectoryResponseSchema);
      },
    }),
  ];
}

function nameOf(request: AnyFetch | AnyPush, kind: AssetKind, fn: Digest['fn'], uri: string): AssetName {
  return { instance: request.instanceName, fn, kind, uri, qualifiers: request.qualifiers };
}

/** What every request must be; returns the digest function. Throws INVALID_ARGUMENT. */
function checkRequest(request: AnyFetch | AnyPush, checkInstance: (name: string) => void): Digest['fn'] {
  checkInstance(request.instanceName);
  if (request.uris.length === 0) throw new StatusError('INVALID_ARGUMENT', 'uris is empty');
  if (request.uris.length > limits.assetUrisMax) {
    throw new StatusError('INVALID_ARGUMENT', `${request.uris.length} uris; at most ${limits.assetUrisMax}`);
  }
  const names = request.qualifiers.map(({ name }) => name);
  const twice = names.find((name, index) => names.indexOf(name) !== index);
  if (twice !== undefined) throw new StatusError('INVALID_ARGUMENT', `qualifier "${twice}" is given twice`);
  const wire =
    request.digestFunction === DigestFunction_Value.UNKNOWN ? DigestFunction_Value.SHA256 : request.digestFunction;
  return resolveDigestFunction(wire, '');
}

/** The checksums asked for. Throws INVALID_ARGUMENT, with a BadRequest, for qualifiers that fetching cannot honour. */
function supportedQualifiers(qualifiers: readonly Qualifier[]): Checksums | undefined {
  let checksums: Checksums | undefined;
  const fieldViolations: { field: string; description: string }[] = [];
  for (const { name, value } of qualifiers) {
    // The canonical id only tells apart what was fetched for different purposes, which the register does.
    if (name === 'bazel.canonical_id') continue;
    if (name === 'checksum.sri') checksums = parseChecksums(value);
    if (name !== 'checksum.sri' || !checksums) {
      fieldViolations.push({ field: `qualifiers.${name}`, description: `"${name}" not supported` });
    }
  }
  if (fieldViolations.length === 0) return checksums;
  const list = fieldViolations.map(({ field }) => field).join(', ');
  throw new StatusError('INVALID_ARGUMENT', `not supported for fetching: ${list}`, {
    details: [anyPack(BadRequestSchema, create(BadRequestSchema, { fieldViolations }))],
  });
}

/** Failures of this node itself fail the call; those of the origin are told in the response. */
function isOurs(error: unknown): boolean {
  return toStatusError(error).code === 'INTERNAL';
}
