/**
 * `/ac/`: action results by the hash of their action.
 *
 * The size of the action is not in the path, so results that came by HTTP have keys of their own (size 0): gRPC clients,
 * whose digests have sizes, do not see them.
 */
import { create, fromBinary, fromJsonString, toBinary, toJsonString } from '@bufbuild/protobuf';
import { digestFunctions, fromWireDigest, toWireDigest } from '../../protos/digest.ts';
import {
  type ActionResult,
  ActionResultSchema,
} from '../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { digestOf } from '../../protos/hasher.ts';
import { StatusError } from '../../protos/status.ts';
import { storableResult } from '../reapi/action-cache.ts';
import type { ActionCache, ActionKey } from '../storage/action-cache.ts';
import type { BlobStore } from '../storage/blob-store.ts';
import type { BodyReader } from './body-reader.ts';
import type { CachePath } from './cache-path.ts';
import { type Exchange, sendBytes, sendText } from './exchange.ts';
import * as limits from './limits.ts';

export interface AcHandler {
  /** GET and HEAD. Throws NOT_FOUND. */
  get(exchange: Exchange, path: CachePath): Promise<void>;
  put(exchange: Exchange, path: CachePath): Promise<void>;
}

export interface AcHandlerOptions {
  readonly blobs: Pick<BlobStore, 'get' | 'putMany'>;
  readonly actions: ActionCache;
  readonly readBody: BodyReader;
  /** Whether a body must be an ActionResult; otherwise any bytes are kept as they came. */
  readonly validate: boolean;
}

/** An entry that holds any bytes is a result with one output of this name. */
const opaqueBodyPath = '.potluck-http-body';

export function createAcHandler({ blobs, actions, readBody, validate }: AcHandlerOptions): AcHandler {
  const keyOf = ({ instance, fn, hash }: CachePath): ActionKey => ({ instance, action: { fn, hash, sizeBytes: 0 } });

  const opaqueBody = async (result: ActionResult, { fn }: CachePath): Promise<Uint8Array | undefined> => {
    const [file] = result.outputFiles;
    if (file?.path !== opaqueBodyPath) return undefined;
    return await blobs.get(fromWireDigest(file.digest, digestFunctions[fn].wire));
  };

  return {
    async get({ request, response, method, signal }, path) {
      const result = await actions.get(keyOf(path), { signal });
      if (!result) throw new StatusError('NOT_FOUND', `no action result ${path.hash} here`);
      const opaque = await opaqueBody(result, path);
      response.setHeader('vary', 'accept');
      if (opaque) {
        sendBytes(response, 200, opaque, method, 'application/octet-stream');
      } else if (isJson(request.headers.accept)) {
        const json = toJsonString(ActionResultSchema, result, { alwaysEmitImplicit: true });
        sendText(response, 200, json, method, 'application/json');
      } else {
        sendBytes(response, 200, toBinary(ActionResultSchema, result), method, 'application/octet-stream');
      }
    },

    async put(exchange, path) {
      const { request, response, method, signal } = exchange;
      const bytes = await readBody(exchange, limits.resultBytesMax);
      if (validate) {
        const uploaded = parse(bytes, isJson(request.headers['content-type']));
        const result = await storableResult(blobs, path.fn, uploaded, signal);
        await actions.put(keyOf(path), result, { signal }).catch((error) => {
          throw explained(error);
        });
      } else {
        const digest = digestOf(path.fn, bytes);
        const [failure] = await blobs.putMany([{ digest, bytes }], { signal });
        if (failure) throw failure;
        const outputFiles = [{ path: opaqueBodyPath, digest: toWireDigest(digest) }];
        await actions.put(keyOf(path), create(ActionResultSchema, { outputFiles }), { signal });
      }
      sendText(response, 200, '', method);
    },
  };
}

function isJson(mediaTypes: string | undefined): boolean {
  return mediaTypes?.toLowerCase().includes('application/json') ?? false;
}

function parse(bytes: Uint8Array, json: boolean): ActionResult {
  try {
    return json
      ? fromJsonString(ActionResultSchema, Buffer.from(bytes).toString(), { ignoreUnknownFields: true })
      : fromBinary(ActionResultSchema, bytes);
  } catch (cause) {
    throw new StatusError(
      'INVALID_ARGUMENT',
      `the body is not an ActionResult message in ${json ? 'JSON' : 'protobuf encoding'}; a node that is to keep other ` +
        'bodies has to be started with --http-action-results any',
      { cause },
    );
  }
}

/** A client of this protocol has no way to act on a failed precondition: its upload was simply wrong. */
function explained(error: unknown): unknown {
  if (!(error instanceof StatusError) || error.code !== 'FAILED_PRECONDITION') return error;
  return new StatusError('INVALID_ARGUMENT', `${error.reason}; upload blobs before the result that names them`);
}
