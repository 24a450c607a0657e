/**
 * Collects what a command left behind, once none of its processes is alive.
 *
 * No symbolic link is ever followed: an output below a link is refused, so that nothing outside the action's own
 * directory is read, whatever the command made of its parents.
 *
 * @see REAPI v2.12, message ActionResult
 */
import { isUtf8 } from 'node:buffer';
import type { Stats } from 'node:fs';
import { chmod, chown, lstat, opendir, readlink } from 'node:fs/promises';
import { join, posix } from 'node:path';
import type { MessageInitShape } from '@bufbuild/protobuf';
import { type Digest, type DigestFunction, toWireDigest } from '../protos/digest.ts';
import type {
  Digest as WireDigest,
  NodePropertiesSchema,
  OutputDirectorySchema,
  OutputFileSchema,
  OutputSymlinkSchema,
} from '../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { digestOf } from '../protos/hasher.ts';
import { StatusError } from '../protos/status.ts';
import type { CommandPlan, DeclaredOutput } from './command.ts';
import { mapLimited } from './concurrency.ts';
import { outputDepthMax, outputEntriesMax, outputReadsMax } from './limits.ts';
import {
  type CollectedDirectory,
  type EncodedDirectory,
  encodeDirectory,
  encodeTree,
  topologicalOrder,
} from './output-tree.ts';
import type { SandboxBlobs } from './sandbox.ts';
import type { Owner } from './staging.ts';

export interface SmallBlob {
  readonly digest: Digest;
  readonly bytes: Uint8Array;
}

export interface CollectedOutputs {
  readonly outputFiles: MessageInitShape<typeof OutputFileSchema>[];
  readonly outputDirectories: MessageInitShape<typeof OutputDirectorySchema>[];
  readonly outputSymlinks: MessageInitShape<typeof OutputSymlinkSchema>[];
  readonly outputFileSymlinks: MessageInitShape<typeof OutputSymlinkSchema>[];
  readonly outputDirectorySymlinks: MessageInitShape<typeof OutputSymlinkSchema>[];
  /** Trees and Directories, which the caller stores. Files are stored already. */
  readonly blobs: SmallBlob[];
}

export interface CollectOptions {
  readonly fn: DigestFunction;
  readonly blobs: SandboxBlobs;
  /** Who the command ran as; files handed to the store are taken back from that user. */
  readonly owner?: Owner | undefined;
  /** Whether files may be moved into the store: only when nothing can hold them open for writing. */
  readonly move: boolean;
  readonly signal: AbortSignal;
}

/** What OutputFile and FileNode have in common. */
interface StoredFile extends Properties {
  readonly digest: WireDigest;
  readonly isExecutable: boolean;
}

type Properties = { nodeProperties?: MessageInitShape<typeof NodePropertiesSchema> };

/** Throws FAILED_PRECONDITION naming the output when it is of the wrong or an impossible kind. */
export async function collectOutputs(
  root: string,
  plan: CommandPlan,
  options: CollectOptions,
): Promise<CollectedOutputs> {
  const collected: CollectedOutputs = {
    outputFiles: [],
    outputDirectories: [],
    outputSymlinks: [],
    outputFileSymlinks: [],
    outputDirectorySymlinks: [],
    blobs: [],
  };
  const collector = createCollector(plan, { ...options, move: options.move && !overlap(plan.outputs) });
  const find = createFinder(root);
  const files: { output: DeclaredOutput; path: string; stats: Stats }[] = [];
  for (const output of plan.outputs) {
    const path = join(root, ...output.segments);
    const stats = await find(output);
    if (!stats) continue;
    if (stats.isSymbolicLink()) {
      const link = { path: output.path, target: await readTarget(path, output.path), ...collector.propertiesOf(stats) };
      if (output.kind === 'any') collected.outputSymlinks.push(link);
      // Clients of API 2.0 know two lists only; a link without a known target counts as a file.
      const list =
        output.kind === 'directory' || (output.kind === 'any' && (await leadsToDirectory(find, output, link.target)))
          ? collected.outputDirectorySymlinks
          : collected.outputFileSymlinks;
      list.push(link);
    } else if (stats.isDirectory()) {
      if (output.kind === 'file') throw failed(output.path, 'is declared as a file, but the command made a directory');
      const directory = await collector.directory(path, output.path, stats).catch((error) => {
        throw tooLong(error) ? failed(output.path, 'holds paths that are too long') : error;
      });
      const inOrder = topologicalOrder(directory);
      const result: MessageInitShape<typeof OutputDirectorySchema> = { path: output.path };
      if (plan.wantsTree) {
        const bytes = encodeTree(inOrder);
        const digest = digestOf(options.fn, bytes);
        collected.blobs.push({ digest, bytes });
        result.treeDigest = toWireDigest(digest);
        result.isTopologicallySorted = true;
      }
      if (plan.wantsDirectories) {
        for (const blob of inOrder) collected.blobs.push(blob);
        result.rootDirectoryDigest = toWireDigest(directory.digest);
      }
      collected.outputDirectories.push(result);
    } else if (stats.isFile()) {
      if (output.kind === 'directory') {
        throw failed(output.path, 'is declared as a directory, but the command made a file');
      }
      files.push({ output, path, stats });
    } else {
      throw failed(output.path, `is ${specialKind(stats)}; only files, directories and symbolic links can be outputs`);
    }
  }
  const stored = await mapLimited(files, outputReadsMax, async ({ output, path, stats }) => ({
    path: output.path,
    ...(await collector.file(path, stats)),
  }));
  for (const file of stored) collected.outputFiles.push(file);
  return collected;
}

function createCollector(plan: CommandPlan, { fn, blobs, owner, move, signal }: CollectOptions) {
  let entries = 0;

  const propertiesOf = (stats: Stats): Properties => {
    if (!plan.wantsMtime && !plan.wantsUnixMode) return {};
    const seconds = Math.floor(stats.mtimeMs / 1000);
    return {
      nodeProperties: {
        ...(plan.wantsMtime
          ? { mtime: { seconds: BigInt(seconds), nanos: Math.floor((stats.mtimeMs - seconds * 1000) * 1e6) } }
          : {}),
        ...(plan.wantsUnixMode ? { unixMode: stats.mode & 0o7777 } : {}),
      },
    };
  };

  const file = async (path: string, stats: Stats): Promise<StoredFile> => {
    signal.throwIfAborted();
    if (owner) await chown(path, process.getuid?.() ?? 0, process.getgid?.() ?? 0);
    if ((stats.mode & 0o400) === 0) await chmod(path, 0o600);
    const digest = await blobs.putFile(fn, path, { signal, move: move && stats.nlink === 1 });
    return { digest: toWireDigest(digest), isExecutable: (stats.mode & 0o100) !== 0, ...propertiesOf(stats) };
  };

  const directory = async (path: string, shown: string, stats: Stats, depth = 1): Promise<EncodedDirectory> => {
    if (depth > outputDepthMax) throw failed(shown, `is deeper than ${outputDepthMax} directories`);
    await open(path, stats);
    const names: Buffer[] = [];
    // A directory can have more entries than fit in memory.
    for await (const { name } of await opendir(path, { encoding: 'buffer' as BufferEncoding, bufferSize: 256 })) {
      if (++entries > outputEntriesMax) throw failed(shown, `has more than ${outputEntriesMax} entries`);
      names.push(name as unknown as Buffer);
    }
    const found: CollectedDirectory = { files: [], symlinks: [], directories: [], ...propertiesOf(stats) };
    const regular: { name: string; stats: Stats }[] = [];
    for (const bytes of names.sort((a, b) => Buffer.compare(a, b))) {
      if (!isUtf8(bytes)) {
        throw failed(shown, `has a file whose name is not UTF-8 ("${bytes.toString('latin1')}"); rename it`);
      }
      const name = bytes.toString();
      const at = join(path, name);
      const childStats = await lstat(at);
      if (childStats.isFile()) {
        regular.push({ name, stats: childStats });
      } else if (childStats.isDirectory()) {
        const child = await directory(at, posix.join(shown, name), childStats, depth + 1);
        found.directories.push({ name, directory: child });
      } else if (childStats.isSymbolicLink()) {
        found.symlinks.push({
          name,
          target: await readTarget(at, posix.join(shown, name)),
          ...propertiesOf(childStats),
        });
      } else {
        throw failed(posix.join(shown, name), `is ${specialKind(childStats)}, which no output directory can hold`);
      }
    }
    const files = await mapLimited(regular, outputReadsMax, async ({ name, stats }) => ({
      name,
      ...(await file(join(path, name), stats)),
    }));
    for (const one of files) found.files.push(one);
    return encodeDirectory(fn, found);
  };

  return { file, directory, propertiesOf };
}

type Find = (output: Pick<DeclaredOutput, 'path' | 'segments'>) => Promise<Stats | undefined>;

/**
 * Finds what is at an output, looked up one name at a time; `undefined` when it was not made. Outputs share parents, which
 * are looked at once: nothing changes any more.
 */
function createFinder(root: string): Find {
  const known = new Map<string, Promise<Stats | undefined>>();
  const look = (path: string): Promise<Stats | undefined> => {
    const found =
      known.get(path) ??
      lstat(path).catch((error: NodeJS.ErrnoException) => {
        if (error.code === 'ENOENT') return undefined;
        throw error;
      });
    known.set(path, found);
    return found;
  };
  return async ({ path, segments }) => {
    let at = root;
    let stats = await look(root);
    for (const [index, segment] of segments.entries()) {
      if (stats?.isSymbolicLink()) {
        throw failed(
          path,
          `lies below the symbolic link "${segments.slice(0, index).join('/')}", which is not followed`,
        );
      }
      if (!stats?.isDirectory()) return undefined;
      await open(at, stats);
      at = join(at, segment);
      stats = await look(at);
    }
    return stats;
  };
}

/** Lets us into a directory that the command closed. */
async function open(path: string, stats: Stats): Promise<void> {
  if ((stats.mode & 0o500) !== 0o500) await chmod(path, 0o700);
}

async function readTarget(path: string, shown: string): Promise<string> {
  const target = await readlink(path, { encoding: 'buffer' });
  if (!isUtf8(target)) throw failed(shown, 'is a symbolic link whose target is not UTF-8');
  return target.toString();
}

/** Looks where a link leads, without leaving the tree and without following a second link. */
async function leadsToDirectory(find: Find, { segments }: DeclaredOutput, target: string): Promise<boolean> {
  const inTree = posix.join(...segments.slice(0, -1), target);
  if (posix.isAbsolute(target) || inTree === '..' || inTree.startsWith('../')) return false;
  try {
    const stats = await find({ path: '', segments: inTree.split('/').filter((name) => name !== '.' && name !== '') });
    return stats?.isDirectory() === true;
  } catch {
    return false;
  }
}

/** Whether one output lies inside another, so that its files are collected twice. */
function overlap(outputs: readonly DeclaredOutput[]): boolean {
  const declared = new Set(outputs.map(({ segments }) => segments.join('/')));
  return outputs.some(({ segments }) => segments.some((_, index) => declared.has(segments.slice(0, index).join('/'))));
}

function tooLong(error: unknown): boolean {
  return (error as NodeJS.ErrnoException).code === 'ENAMETOOLONG';
}

function specialKind(stats: Stats): string {
  if (stats.isFIFO()) return 'a named pipe';
  if (stats.isSocket()) return 'a socket';
  return 'a device';
}

function failed(path: string, problem: string): StatusError {
  return new StatusError('FAILED_PRECONDITION', `output "${path}" ${problem}`);
}
