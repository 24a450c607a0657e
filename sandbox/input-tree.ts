/**
 * Reads input trees: Directory blobs into checked, shared, immutable nodes.
 *
 * Equal directories are one node wherever they appear, and stay in memory for the next action, so that a tree of which
 * only one file changed costs a few reads.
 *
 * @see REAPI v2.12, message Directory
 */
import { create, fromBinary } from '@bufbuild/protobuf';
import { anyPack } from '@bufbuild/protobuf/wkt';
import { type Digest, digestKey, digestPath, makeDigest } from '../protos/digest.ts';
import {
  type Directory,
  DirectorySchema,
  type NodeProperties,
  type Digest as WireDigest,
} from '../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { PreconditionFailureSchema } from '../protos/gen/google/rpc/error_details_pb.ts';
import { StatusError } from '../protos/status.ts';
import { forEachLimited } from './concurrency.ts';
import {
  directoryBytesMax,
  directoryReadsMax,
  missingNamedMax,
  nameBytesMax,
  parsedEntriesMax,
  treeDepthMax,
  treeEntriesMax,
} from './limits.ts';
import type { SandboxBlobs } from './sandbox.ts';

export interface InputProperties {
  readonly unixMode?: number;
  readonly mtimeSeconds?: number;
}

export interface InputFile {
  readonly name: string;
  readonly digest: Digest;
  readonly executable: boolean;
  readonly properties?: InputProperties;
}

export interface InputSymlink {
  readonly name: string;
  readonly target: string;
}

export interface InputDirectory {
  readonly digest: Digest;
  readonly files: readonly InputFile[];
  readonly symlinks: readonly InputSymlink[];
  readonly directories: readonly { readonly name: string; readonly node: InputDirectory }[];
  readonly properties?: InputProperties;
  /** Of the whole subtree, itself included, repeated directories counted each time. */
  readonly entries: number;
  readonly bytes: number;
  readonly depth: number;
}

/** A tree, or what is known of one that lacks Directories: those, and every other blob that was named. */
export type FoundTree =
  | { readonly root: InputDirectory }
  | { readonly missing: readonly Digest[]; readonly named: readonly Digest[] };

export interface InputTrees {
  /** Throws INVALID_ARGUMENT when the tree under `root` is not canonical or too large. Files are not looked for. */
  find(root: Digest, options?: { readonly signal?: AbortSignal }): Promise<FoundTree>;
  /**
   * The tree under `root`. Throws INVALID_ARGUMENT when it is not canonical or too large, FAILED_PRECONDITION naming
   * all missing blobs when a Directory is missing; missing files alone are found by staging.
   */
  load(root: Digest, options: { readonly signal: AbortSignal }): Promise<InputDirectory>;
}

/** One Directory message, checked, its children still named by digest. */
interface Level {
  readonly digest: Digest;
  readonly files: readonly InputFile[];
  readonly symlinks: readonly InputSymlink[];
  readonly children: readonly { readonly name: string; readonly digest: Digest }[];
  readonly properties?: InputProperties;
}

export function createInputTrees(blobs: Pick<SandboxBlobs, 'get' | 'missing'>): InputTrees {
  /** In order of last use. */
  const known = new Map<string, InputDirectory>();
  let knownEntries = 0;

  const remember = (key: string, node: InputDirectory) => {
    known.set(key, node);
    knownEntries += ownEntries(node);
    for (const [oldestKey, oldest] of known) {
      if (knownEntries <= parsedEntriesMax) break;
      known.delete(oldestKey);
      knownEntries -= ownEntries(oldest);
    }
  };
  const recall = (key: string) => {
    const node = known.get(key);
    if (node) {
      known.delete(key);
      known.set(key, node);
    }
    return node;
  };

  const find: InputTrees['find'] = async (root, options) => {
    const nodes = new Map<string, InputDirectory>();
    const levels = new Map<string, Level>();
    const missing: Digest[] = [];
    const seen = new Set([digestKey(root)]);
    let entries = 0;
    for (let wave = [root]; wave.length > 0; ) {
      const next: Digest[] = [];
      await forEachLimited(wave, directoryReadsMax, async (digest) => {
        const key = digestKey(digest);
        const node = recall(key);
        if (node) return void nodes.set(key, node);
        const level = await readLevel(blobs, digest, options);
        if (!level) return void missing.push(digest);
        levels.set(key, level);
        entries += level.files.length + level.symlinks.length + level.children.length;
        if (entries > treeEntriesMax) throw tooLarge(`more than ${treeEntriesMax} entries`);
        for (const child of level.children) {
          const childKey = digestKey(child.digest);
          if (!seen.has(childKey)) {
            seen.add(childKey);
            next.push(child.digest);
          }
        }
      });
      wave = next;
    }
    if (missing.length === 0) return { root: assemble(root, levels, nodes, remember) };
    const files = [...levels.values()].flatMap((level) => [level.digest, ...level.files.map((file) => file.digest)]);
    const remembered = [...nodes.values()].flatMap(treeDigests);
    return { missing, named: unique([...files, ...remembered]) };
  };

  return {
    find,
    async load(root, options) {
      const found = await find(root, options);
      if ('root' in found) return found.root;
      throw missingInputs([...found.missing, ...(await blobs.missing(found.named, options))]);
    },
  };
}

/** Every blob a tree needs, Directories included, each once. */
export function treeDigests(root: InputDirectory): Digest[] {
  const seen = new Set<InputDirectory>();
  const digests: Digest[] = [];
  const walk = (node: InputDirectory) => {
    if (seen.has(node)) return;
    seen.add(node);
    digests.push(node.digest);
    for (const file of node.files) digests.push(file.digest);
    for (const child of node.directories) walk(child.node);
  };
  walk(root);
  return unique(digests);
}

/** FAILED_PRECONDITION with one violation of type MISSING for each blob: what makes a client upload again. */
export function missingInputs(digests: readonly Digest[]): StatusError {
  const named = digests.slice(0, missingNamedMax);
  const violations = named.map((digest) => ({
    type: 'MISSING',
    subject: `blobs/${digestPath(digest)}`,
  }));
  return new StatusError(
    'FAILED_PRECONDITION',
    `${digests.length} input blob(s) are missing, such as ${digestPath(digests[0] as Digest)}; upload them and execute again`,
    { details: [anyPack(PreconditionFailureSchema, create(PreconditionFailureSchema, { violations }))] },
  );
}

async function readLevel(
  blobs: Pick<SandboxBlobs, 'get'>,
  digest: Digest,
  options: { readonly signal?: AbortSignal } | undefined,
): Promise<Level | undefined> {
  if (digest.sizeBytes > directoryBytesMax) throw tooLarge(`a Directory of ${digest.sizeBytes} bytes`);
  const bytes = await blobs.get(digest, options);
  if (!bytes) return undefined;
  let message: Directory;
  try {
    message = fromBinary(DirectorySchema, bytes);
  } catch (cause) {
    throw new StatusError('INVALID_ARGUMENT', `input tree: ${digest.hash} is not a Directory message`, { cause });
  }
  return checkLevel(digest, message);
}

function checkLevel(digest: Digest, message: Directory): Level {
  const wrong = (reason: string) =>
    new StatusError('INVALID_ARGUMENT', `input tree, directory ${digest.hash}: ${reason}`);
  const names = new Set<string>();
  for (const nodes of [message.files, message.directories, message.symlinks]) {
    let previous: string | undefined;
    for (const { name } of nodes) {
      const problem = nameProblem(name);
      if (problem) throw wrong(`"${name}" is not a possible name: ${problem}`);
      if (names.has(name)) throw wrong(`"${name}" appears twice`);
      if (previous !== undefined && !comesBefore(previous, name)) throw wrong(`"${name}" is not in sorted order`);
      names.add(name);
      previous = name;
    }
  }
  const digestOf = (wire: WireDigest | undefined, name: string) => {
    if (!wire) throw wrong(`"${name}" has no digest`);
    return makeDigest(digest.fn, wire.hash, wire.sizeBytes);
  };
  return {
    digest,
    files: message.files.map((file) => ({
      name: file.name,
      digest: digestOf(file.digest, file.name),
      executable: file.isExecutable,
      ...propertiesOf(file.nodeProperties),
    })),
    symlinks: message.symlinks.map(({ name, target }) => {
      if (target === '' || target.includes('\0')) throw wrong(`the symbolic link "${name}" has no possible target`);
      return { name, target };
    }),
    children: message.directories.map(({ name, digest }) => ({ name, digest: digestOf(digest, name) })),
    ...propertiesOf(message.nodeProperties),
  };
}

/** Permission bits alone are taken from unix_mode: no action is handed set-user-id files. */
function propertiesOf(wire: NodeProperties | undefined): { properties?: InputProperties } {
  if (!wire || (wire.unixMode === undefined && !wire.mtime)) return {};
  return {
    properties: {
      ...(wire.unixMode === undefined ? {} : { unixMode: wire.unixMode & 0o777 }),
      ...(wire.mtime ? { mtimeSeconds: Number(wire.mtime.seconds) + wire.mtime.nanos / 1e9 } : {}),
    },
  };
}

function nameProblem(name: string): string | undefined {
  if (name === '') return 'it is empty';
  if (name === '.' || name === '..') return 'it means a directory';
  if (name.includes('/')) return 'it has more than one segment';
  if (name.includes('\0')) return 'it has a NUL byte';
  if (name.length > nameBytesMax / 3 && Buffer.byteLength(name) > nameBytesMax) return 'it is too long';
  return undefined;
}

const surrogate = /[\ud800-\udfff]/;

/** The order of UTF-8 bytes; it differs from that of UTF-16 units only where surrogates are. */
function comesBefore(a: string, b: string): boolean {
  if (surrogate.test(a) || surrogate.test(b)) return Buffer.compare(Buffer.from(a), Buffer.from(b)) < 0;
  return a < b;
}

/** Builds nodes from the leaves up; a tree's own hashes rule out cycles. */
function assemble(
  root: Digest,
  levels: ReadonlyMap<string, Level>,
  nodes: Map<string, InputDirectory>,
  remember: (key: string, node: InputDirectory) => void,
): InputDirectory {
  const build = (digest: Digest, above: number): InputDirectory => {
    const key = digestKey(digest);
    const done = nodes.get(key);
    if (done) {
      if (above + done.depth > treeDepthMax) throw tooLarge(`deeper than ${treeDepthMax} directories`);
      return done;
    }
    if (above >= treeDepthMax) throw tooLarge(`deeper than ${treeDepthMax} directories`);
    const { children, ...level } = levels.get(key) as Level;
    const directories = children.map((child) => ({ name: child.name, node: build(child.digest, above + 1) }));
    let entries = 1 + level.files.length + level.symlinks.length;
    let bytes = level.files.reduce((sum, file) => sum + file.digest.sizeBytes, 0);
    let depth = 1;
    for (const { node } of directories) {
      entries += node.entries;
      bytes += node.bytes;
      depth = Math.max(depth, node.depth + 1);
    }
    if (entries > treeEntriesMax) throw tooLarge(`more than ${treeEntriesMax} entries`);
    const node = { ...level, directories, entries, bytes, depth };
    nodes.set(key, node);
    remember(key, node);
    return node;
  };
  return build(root, 0);
}

function unique(digests: readonly Digest[]): Digest[] {
  return [...new Map(digests.map((digest) => [digestKey(digest), digest])).values()];
}

function ownEntries(node: InputDirectory): number {
  return 1 + node.files.length + node.symlinks.length + node.directories.length;
}

function tooLarge(what: string): StatusError {
  return new StatusError('INVALID_ARGUMENT', `input tree: ${what}; that is more than this node accepts`);
}
