/** In what two results of one action differ, output by output. */
import { fromBinary, toBinary } from '@bufbuild/protobuf';
import {
  type Digest,
  type DigestFunction,
  digestFunctions,
  digestKey,
  fromWireDigest,
} from '../../../protos/digest.ts';
import {
  type ActionResult,
  type Directory,
  DirectorySchema,
  type Digest as WireDigest,
  TreeSchema,
} from '../../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { digestOf } from '../../../protos/hasher.ts';
import { StatusError } from '../../../protos/status.ts';
import type { BlobStore } from '../../storage/blob-store.ts';
import { compareArchives } from './archives.ts';
import { type ByteSource, type FirstDifference, firstDifference } from './bytes.ts';
import * as limits from './limits.ts';
import { compareObjects } from './objects.ts';

/** One output that differs. "First" is the result that was known, "second" the one of running the action again. */
export interface OutputDifference {
  /** Relative to the working directory; `exit code`, `stdout` and `stderr` are no paths. */
  readonly output: string;
  readonly what: string;
  /** Of files whose contents differ. */
  readonly sizes?: readonly [number, number];
  readonly first?: FirstDifference;
  /** For archives and ELF files: in what they differ. */
  readonly summary?: readonly string[];
}

export interface Comparison {
  /** None: the results are equal, bit for bit. */
  readonly differences: readonly OutputDifference[];
  /** Differences of standard output and error, which do not make a mismatch: no action reads another's. */
  readonly streams: readonly OutputDifference[];
  /** Differences beyond those told. */
  readonly more: number;
}

type Output =
  | { readonly kind: 'file'; readonly digest: Digest; readonly isExecutable: boolean }
  | { readonly kind: 'symlink'; readonly target: string }
  | { readonly kind: 'directory' };

/**
 * Compares exit code and outputs; contents are read only where digests differ. Throws NOT_FOUND when the blobs of a differing output
 * are not held, INVALID_ARGUMENT for a malformed result.
 */
export async function compareResults(
  blobs: Pick<BlobStore, 'get' | 'open'>,
  fn: DigestFunction,
  one: ActionResult,
  other: ActionResult,
): Promise<Comparison> {
  const differences: OutputDifference[] = [];
  let more = 0;
  const tell = async (difference: () => Promise<OutputDifference> | OutputDifference): Promise<void> => {
    if (differences.length < limits.outputsMax) differences.push(await difference());
    else more += 1;
  };
  if (one.exitCode !== other.exitCode) {
    await tell(() => ({ output: 'exit code', what: `${one.exitCode}, then ${other.exitCode}` }));
  }
  const [ours, theirs] = [await outputsOf(blobs, fn, one), await outputsOf(blobs, fn, other)];
  for (const [path, output] of ours) {
    const match = theirs.get(path);
    const difference = match
      ? differenceOf(blobs, path, output, match)
      : () => ({ output: path, what: 'only in the first' });
    if (difference) await tell(difference);
  }
  for (const path of theirs.keys())
    if (!ours.has(path)) await tell(() => ({ output: path, what: 'only in the second' }));
  return { differences, streams: await compareStreams(blobs, fn, one, other), more };
}

/**
 * Names what a result promises, the same for equal outputs, whoever ran it and when: exit code, and paths with digests. Directories
 * count by the digests that list them.
 */
export function fingerprint(fn: DigestFunction, result: ActionResult): string {
  const lines = [
    `exit ${result.exitCode}`,
    ...result.outputFiles.map(({ path, digest, isExecutable }) => `file ${path} ${keyOf(fn, digest)} ${isExecutable}`),
    ...result.outputDirectories.map(
      ({ path, treeDigest, rootDirectoryDigest }) =>
        // Either lists the same; executors fill in the one that the client asked for.
        `directory ${path} ${treeDigest ? keyOf(fn, treeDigest) : keyOf(fn, rootDirectoryDigest)}`,
    ),
    ...symlinksOf(result).map(({ path, target }) => `symlink ${path} ${target}`),
  ];
  return digestOf('sha256', Buffer.from(lines.sort().join('\n'))).hash;
}

function differenceOf(
  blobs: Pick<BlobStore, 'open'>,
  path: string,
  one: Output,
  other: Output,
): (() => Promise<OutputDifference> | OutputDifference) | undefined {
  if (one.kind !== other.kind) return () => ({ output: path, what: `a ${one.kind}, then a ${other.kind}` });
  if (one.kind === 'symlink' && other.kind === 'symlink') {
    if (one.target === other.target) return undefined;
    return () => ({ output: path, what: `a symlink to ${one.target}, then to ${other.target}` });
  }
  if (one.kind !== 'file' || other.kind !== 'file') return undefined;
  if (digestKey(one.digest) !== digestKey(other.digest)) {
    return async () => ({ output: path, ...(await compareBlobs(blobs, one.digest, other.digest)) });
  }
  if (one.isExecutable === other.isExecutable) return undefined;
  return () => ({ output: path, what: one.isExecutable ? 'executable, then not' : 'not executable, then so' });
}

async function compareBlobs(
  blobs: Pick<BlobStore, 'open'>,
  one: Digest,
  other: Digest,
): Promise<Omit<OutputDifference, 'output'>> {
  await using ours = await openSource(blobs, one);
  await using theirs = await openSource(blobs, other);
  const first = await firstDifference(ours, theirs);
  const found = await lookInside(ours, theirs);
  const summary = found && [
    ...found.slice(0, limits.summaryLinesMax),
    ...(found.length > limits.summaryLinesMax ? [`and ${found.length - limits.summaryLinesMax} more`] : []),
  ];
  return {
    what: 'contents differ',
    sizes: [one.sizeBytes, other.sizeBytes],
    ...(first && { first }),
    ...(summary && { summary }),
  };
}

/** `undefined` for files of which nothing more can be said. */
async function lookInside(ours: ByteSource, theirs: ByteSource): Promise<readonly string[] | undefined> {
  let leftBytes = limits.readFactor * (ours.sizeBytes + theirs.sizeBytes) + limits.namesBytesMax;
  const within = (source: ByteSource): ByteSource => ({
    sizeBytes: source.sizeBytes,
    async read(offset, length) {
      leftBytes -= length;
      if (leftBytes < 0) throw new StatusError('RESOURCE_EXHAUSTED', 'a file that takes too long to look into');
      return await source.read(offset, length);
    },
  });
  const [one, other] = [within(ours), within(theirs)];
  try {
    return (await compareArchives(one, other)) ?? (await compareObjects(one, other));
  } catch (error) {
    if (error instanceof StatusError && error.code === 'RESOURCE_EXHAUSTED') return undefined;
    throw error;
  }
}

async function openSource(blobs: Pick<BlobStore, 'open'>, digest: Digest): Promise<ByteSource & AsyncDisposable> {
  const reader = await blobs.open(digest);
  if (!reader) throw new StatusError('NOT_FOUND', `blob ${digestKey(digest)} is not held`);
  return {
    sizeBytes: digest.sizeBytes,
    async read(offset, length) {
      const chunks: Uint8Array[] = [];
      const bounded = Math.max(0, Math.min(length, digest.sizeBytes - offset));
      if (bounded === 0) return new Uint8Array();
      for await (const chunk of reader.read({ offset, length: bounded })) chunks.push(chunk);
      return Buffer.concat(chunks);
    },
    [Symbol.asyncDispose]: async () => await reader[Symbol.asyncDispose](),
  };
}

async function compareStreams(
  blobs: Pick<BlobStore, 'open'>,
  fn: DigestFunction,
  one: ActionResult,
  other: ActionResult,
): Promise<OutputDifference[]> {
  const differences: OutputDifference[] = [];
  for (const [output, a, b] of [
    ['stdout', one.stdoutDigest, other.stdoutDigest],
    ['stderr', one.stderrDigest, other.stderrDigest],
  ] as const) {
    const [ours, theirs] = [streamDigest(fn, a), streamDigest(fn, b)];
    if (digestKey(ours) === digestKey(theirs)) continue;
    differences.push({ output, ...(await compareBlobs(blobs, ours, theirs)) });
  }
  return differences;
}

function streamDigest(fn: DigestFunction, wire: WireDigest | undefined): Digest {
  return wire ? fromWireDigest(wire, digestFunctions[fn].wire) : digestOf(fn, new Uint8Array());
}

/** Every file, symlink and directory that the result promises, by path. */
async function outputsOf(
  blobs: Pick<BlobStore, 'get'>,
  fn: DigestFunction,
  result: ActionResult,
): Promise<Map<string, Output>> {
  const outputs = new Map<string, Output>();
  const add = (path: string, output: Output): void => {
    if (outputs.size >= limits.entriesMax) throw new StatusError('INVALID_ARGUMENT', 'too many outputs to compare');
    outputs.set(path, output);
  };
  const digestAt = (wire: WireDigest | undefined, path: string): Digest =>
    fromWireDigest(wire, digestFunctions[fn].wire, `the digest of ${path}`);
  for (const { path, digest, isExecutable } of result.outputFiles) {
    add(path, { kind: 'file', digest: digestAt(digest, path), isExecutable });
  }
  for (const { path, target } of symlinksOf(result)) add(path, { kind: 'symlink', target });
  for (const { path, treeDigest } of result.outputDirectories) {
    // Without a Tree only a root is named; what the sandbox makes always has one.
    if (!treeDigest) throw new StatusError('INVALID_ARGUMENT', `output directory ${path} has no Tree`);
    const digest = digestAt(treeDigest, path);
    if (digest.sizeBytes > limits.treeBytesMax)
      throw new StatusError('INVALID_ARGUMENT', `${path} is too large to compare`);
    const bytes = await blobs.get(digest);
    if (!bytes) throw new StatusError('NOT_FOUND', `blob ${digestKey(digest)} is not held`);
    const tree = fromBinary(TreeSchema, bytes);
    const children = new Map<string, Directory>();
    for (const child of tree.children) children.set(directoryKey(fn, child), child);
    if (tree.root) addDirectory(path, tree.root, children);
  }
  return outputs;

  function addDirectory(path: string, directory: Directory, children: ReadonlyMap<string, Directory>): void {
    add(path, { kind: 'directory' });
    const inside = (name: string): string => (path === '' ? name : `${path}/${name}`);
    for (const { name, digest, isExecutable } of directory.files) {
      add(inside(name), { kind: 'file', digest: digestAt(digest, inside(name)), isExecutable });
    }
    for (const { name, target } of directory.symlinks) add(inside(name), { kind: 'symlink', target });
    for (const { name, digest } of directory.directories) {
      const child = children.get(keyOf(fn, digest));
      if (child) addDirectory(inside(name), child, children);
    }
  }
}

function directoryKey(fn: DigestFunction, directory: Directory): string {
  return digestKey(digestOf(fn, toBinary(DirectorySchema, directory)));
}

function keyOf(fn: DigestFunction, wire: WireDigest | undefined): string {
  return wire ? digestKey(fromWireDigest(wire, digestFunctions[fn].wire)) : '';
}

/** However a client wanted them listed; each once. */
function symlinksOf(result: ActionResult): { readonly path: string; readonly target: string }[] {
  const all = [...result.outputSymlinks, ...result.outputFileSymlinks, ...result.outputDirectorySymlinks];
  return [...new Map(all.map(({ path, target }) => [path, { path, target }])).values()];
}
