/** Every blob an action result promises: files, Trees and all inside, Directory hierarchies, stdout, stderr. */
import { fromBinary } from '@bufbuild/protobuf';
import { type Digest, type DigestFunction, digestFunctions, digestKey, fromWireDigest } from '../../protos/digest.ts';
import {
  type ActionResult,
  type Directory,
  DirectorySchema,
  TreeSchema,
  type Digest as WireDigest,
} from '../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { hashBytes } from '../../protos/hasher.ts';
import { StatusError } from '../../protos/status.ts';
import type { BlobStore } from './blob-store.ts';
import * as limits from './limits.ts';

export interface ResultClosures {
  /**
   * The blobs `result` needs. `missing` are those found absent on the way (a Tree or Directory whose contents are therefore
   * unknown); the presence of the others is not looked at. Throws INVALID_ARGUMENT for a malformed result.
   */
  of(result: ActionResult, fn: DigestFunction): Promise<{ needed: Digest[]; missing: Digest[] }>;
}

/** Expansions are remembered: blobs never change, and the same Trees are asked for again and again. */
export function createResultClosures(blobs: Pick<BlobStore, 'get'>): ResultClosures {
  const remembered = new Map<string, readonly Digest[]>();
  let rememberedDigests = 0;

  function remember(name: string, digests: readonly Digest[]): void {
    remembered.set(name, digests);
    rememberedDigests += 1 + digests.length;
    for (const [eldest, its] of remembered) {
      if (rememberedDigests <= limits.closureDigestsMax) break;
      remembered.delete(eldest);
      rememberedDigests -= 1 + its.length;
    }
  }

  async function expand(
    name: string,
    expansion: () => Promise<{ inside: Digest[]; missing: Digest[] }>,
  ): Promise<{ inside: readonly Digest[]; missing: readonly Digest[] }> {
    const known = remembered.get(name);
    if (known) {
      remembered.delete(name);
      remembered.set(name, known);
      return { inside: known, missing: [] };
    }
    const fresh = await expansion();
    if (fresh.missing.length === 0) remember(name, fresh.inside);
    return fresh;
  }

  async function expandTree(digest: Digest): Promise<{ inside: Digest[]; missing: Digest[] }> {
    const bytes = await getMessage(digest);
    if (!bytes) return { inside: [], missing: [digest] };
    const tree = decode(digest, 'Tree', () => fromBinary(TreeSchema, bytes));
    const directories = tree.root ? [tree.root, ...tree.children] : tree.children;
    return { inside: directories.flatMap((directory) => filesOf(directory, digest.fn)), missing: [] };
  }

  async function expandDirectory(root: Digest): Promise<{ inside: Digest[]; missing: Digest[] }> {
    const inside: Digest[] = [];
    const missing: Digest[] = [];
    const seen = new Set([digestKey(root)]);
    const open = [root];
    for (let digest = open.pop(); digest; digest = open.pop()) {
      const bytes = await getMessage(digest);
      if (!bytes) {
        missing.push(digest);
        continue;
      }
      const { fn } = digest;
      const at = digest;
      const directory = decode(at, 'Directory', () => fromBinary(DirectorySchema, bytes));
      inside.push(...filesOf(directory, fn));
      for (const node of directory.directories) {
        const child = checked(node.digest, fn, `directory ${node.name}`);
        if (seen.has(digestKey(child))) continue;
        if (seen.size >= limits.closureDirectoriesMax) throw tooLarge(root);
        seen.add(digestKey(child));
        inside.push(child);
        open.push(child);
      }
    }
    return { inside, missing };
  }

  async function getMessage(digest: Digest): Promise<Uint8Array | undefined> {
    if (digest.sizeBytes > limits.closureMessageBytesMax) throw tooLarge(digest);
    return blobs.get(digest);
  }

  return {
    async of(result, fn) {
      const needed: Digest[] = [];
      const missing: Digest[] = [];
      for (const file of result.outputFiles) {
        const digest = checked(file.digest, fn, `output file ${file.path}`);
        if (!carries(file.contents, digest, file.path)) needed.push(digest);
      }
      for (const [what, digest, raw] of [
        ['stdout', result.stdoutDigest, result.stdoutRaw],
        ['stderr', result.stderrDigest, result.stderrRaw],
      ] as const) {
        if (digest) {
          const stream = checked(digest, fn, what);
          if (!carries(raw, stream, what)) needed.push(stream);
        }
      }
      for (const directory of result.outputDirectories) {
        const what = `output directory ${directory.path}`;
        if (!directory.treeDigest && !directory.rootDirectoryDigest) {
          throw new StatusError('INVALID_ARGUMENT', `${what} has neither a Tree nor a root directory`);
        }
        if (directory.treeDigest) {
          const digest = checked(directory.treeDigest, fn, what);
          const tree = await expand(`tree ${digestKey(digest)}`, () => expandTree(digest));
          needed.push(digest, ...tree.inside);
          missing.push(...tree.missing);
        }
        if (directory.rootDirectoryDigest) {
          const digest = checked(directory.rootDirectoryDigest, fn, what);
          const root = await expand(`directory ${digestKey(digest)}`, () => expandDirectory(digest));
          needed.push(digest, ...root.inside);
          missing.push(...root.missing);
        }
      }
      return { needed, missing };
    },
  };
}

/** Whether the bytes are in the result itself. They were checked when it was stored, by the same rule. */
function carries(contents: Uint8Array, digest: Digest, what: string): boolean {
  if (contents.byteLength === 0) return false;
  if (contents.byteLength !== digest.sizeBytes || hashBytes(digest.fn, contents) !== digest.hash) {
    throw new StatusError('INVALID_ARGUMENT', `the inline contents of ${what} do not have digest ${digestKey(digest)}`);
  }
  return true;
}

function filesOf(directory: Directory, fn: DigestFunction): Digest[] {
  return directory.files.map((file) => checked(file.digest, fn, `file ${file.name}`));
}

function checked(wire: WireDigest | undefined, fn: DigestFunction, what: string): Digest {
  return fromWireDigest(wire, digestFunctions[fn].wire, `the digest of ${what}`);
}

function decode<T>(digest: Digest, kind: string, decoding: () => T): T {
  try {
    return decoding();
  } catch (error) {
    throw new StatusError('INVALID_ARGUMENT', `blob ${digestKey(digest)} is not a ${kind}`, { cause: error });
  }
}

function tooLarge(digest: Digest): StatusError {
  return new StatusError('INVALID_ARGUMENT', `the directory tree ${digestKey(digest)} is too large to be checked`);
}
