/** GetTree: every Directory below a root, page by page. */
import { create, fromBinary } from '@bufbuild/protobuf';
import { type Digest, digestFunctions, digestKey, fromWireDigest } from '../../protos/digest.ts';
import {
  type ContentAddressableStorage,
  type Directory,
  DirectorySchema,
  GetTreeResponseSchema,
} from '../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { StatusError, toStatusError } from '../../protos/status.ts';
import type { BlobStore } from '../storage/blob-store.ts';
import type { ServiceHandlers } from './handler.ts';
import type { InstanceCheck } from './instances.ts';
import { limits } from './limits.ts';

type GetTree = ServiceHandlers<typeof ContentAddressableStorage>['getTree'];

/**
 * Directories come breadth first, each distinct one once. Missing ones are left out; so a token, which counts the
 * directories before it, stays right as long as no part of the tree comes or goes in between.
 */
export function createGetTree(blobs: BlobStore, checkInstance: InstanceCheck): GetTree {
  return async function* getTree(request, { signal }) {
    checkInstance(request.instanceName);
    const root = fromWireDigest(request.rootDigest, request.digestFunction, 'root_digest');
    if (request.pageSize < 0) throw new StatusError('INVALID_ARGUMENT', `page_size is ${request.pageSize}`);
    const pageMax = request.pageSize === 0 ? limits.treePageMax : Math.min(request.pageSize, limits.treePageMax);
    const skip = parseToken(request.pageToken, root);

    let page: Directory[] = [];
    let pageBytes = 0;
    let count = 0;
    for await (const { directory, bytes } of walk(blobs, root, signal)) {
      if (count >= skip) {
        if (page.length >= pageMax || (page.length > 0 && pageBytes + bytes > limits.responseBytesMax)) {
          yield create(GetTreeResponseSchema, { directories: page, nextPageToken: makeToken(root, count) });
          page = [];
          pageBytes = 0;
        }
        page.push(directory);
        pageBytes += bytes + 8;
      }
      count += 1;
    }
    if (skip > count) throw invalidToken(request.pageToken);
    yield create(GetTreeResponseSchema, { directories: page });
  };
}

async function* walk(
  blobs: BlobStore,
  root: Digest,
  signal: AbortSignal,
): AsyncGenerator<{ directory: Directory; bytes: number }> {
  const queue = [root];
  const seen = new Set([digestKey(root)]);
  for (const digest of queue) {
    const isRoot = digest === root;
    if (digest.sizeBytes > limits.directoryBytesMax) {
      if (!isRoot) continue;
      throw new StatusError('INVALID_ARGUMENT', `root ${root.hash}: ${root.sizeBytes} bytes are no Directory`);
    }
    const bytes = await blobs.get(digest, { signal });
    if (!bytes) {
      if (!isRoot) continue;
      throw new StatusError('NOT_FOUND', `root directory ${root.hash}/${root.sizeBytes} is not held here`);
    }
    let directory: Directory;
    const children: Digest[] = [];
    try {
      directory = fromBinary(DirectorySchema, bytes);
      for (const node of directory.directories) {
        children.push(fromWireDigest(node.digest, digestFunctions[root.fn].wire, `digest of "${node.name}"`));
      }
    } catch (error) {
      if (!isRoot) continue;
      throw new StatusError('INVALID_ARGUMENT', `root ${root.hash} is no Directory: ${toStatusError(error).reason}`);
    }
    yield { directory, bytes: bytes.byteLength };
    for (const child of children) {
      const key = digestKey(child);
      if (seen.has(key)) continue;
      seen.add(key);
      queue.push(child);
    }
    if (queue.length > limits.treeDirectoriesMax) {
      throw new StatusError('RESOURCE_EXHAUSTED', `more than ${limits.treeDirectoriesMax} directories in ${root.hash}`);
    }
  }
}

function makeToken(root: Digest, count: number): string {
  return `${root.hash.slice(0, 16)}-${count}`;
}

function parseToken(token: string, root: Digest): number {
  if (token === '') return 0;
  const [hash, count, ...rest] = token.split('-');
  if (hash !== root.hash.slice(0, 16) || rest.length > 0 || !/^[1-9]\d{0,8}$/.test(count ?? ''))
    throw invalidToken(token);
  return Number(count);
}

function invalidToken(token: string): StatusError {
  return new StatusError('INVALID_ARGUMENT', `"${token.slice(0, 100)}" is no page token of this tree`);
}
