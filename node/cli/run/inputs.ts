/** Finds the input files that the globs name and builds their Merkle tree. */
import { create, toBinary } from '@bufbuild/protobuf';
import { createReadStream } from 'node:fs';
import { glob, lstat, readdir, readlink } from 'node:fs/promises';
import { isAbsolute, join, normalize, relative, sep } from 'node:path';
import { type Digest, digestKey, toWireDigest } from '../../../protos/digest.ts';
import {
  type Directory,
  DirectorySchema,
} from '../../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { createHasher, digestOf } from '../../../protos/hasher.ts';
import { CliError } from '../exit-codes.ts';
import { hashesAtOnce } from './limits.ts';
import { forEachLimited } from '../../../sandbox/concurrency.ts';

/** A blob and where its bytes are. */
export interface LocalBlob {
  readonly digest: Digest;
  readonly content: { readonly bytes: Uint8Array } | { readonly path: string };
}

export interface InputTree {
  readonly root: Digest;
  /** Files and directories, each blob once. */
  readonly blobs: readonly LocalBlob[];
  readonly files: number;
  readonly fileBytes: number;
}

interface FileEntry {
  readonly kind: 'file';
  readonly path: string;
  readonly executable: boolean;
  digest: Digest | undefined;
}
interface LinkEntry {
  readonly kind: 'link';
  readonly target: string;
}
interface DirectoryEntry {
  readonly kind: 'directory';
  readonly entries: Map<string, Entry>;
}
type Entry = FileEntry | LinkEntry | DirectoryEntry;

/**
 * Reads everything that `globs` name below `cwd`; a directory means all below it, a symbolic link stays one.
 * Throws CliError for a glob that matches nothing or leads out of `cwd`, and for what is no file, directory or link.
 */
export async function readInputs(cwd: string, globs: readonly string[], signal: AbortSignal): Promise<InputTree> {
  const root: DirectoryEntry = { kind: 'directory', entries: new Map() };
  for (const pattern of globs) {
    let matches = 0;
    for await (const path of matching(cwd, pattern)) {
      signal.throwIfAborted();
      matches++;
      await addPath(root, cwd, insidePath(cwd, path, `--input ${pattern}`));
    }
    if (matches === 0) throw new CliError(`--input ${pattern}: matches nothing in ${cwd}`);
  }

  const files = [...filesOf(root)];
  await forEachLimited(files, hashesAtOnce, async (file) => {
    signal.throwIfAborted();
    file.digest = await digestFile(file.path, signal);
  });
  const blobs = new Map<string, LocalBlob>();
  for (const { digest, path } of files) {
    if (digest) blobs.set(digestKey(digest), { digest, content: { path } });
  }
  return {
    root: addDirectory(root, blobs),
    blobs: [...blobs.values()],
    files: files.length,
    fileBytes: files.reduce((sum, { digest }) => sum + (digest?.sizeBytes ?? 0), 0),
  };
}

/** A path as given when it exists, else what it matches as a glob: names may contain `*` or `[`. */
async function* matching(cwd: string, pattern: string): AsyncIterable<string> {
  if (await lstat(join(cwd, isAbsolute(pattern) ? relative(cwd, pattern) : pattern)).catch(() => undefined))
    yield pattern;
  else yield* glob(pattern, { cwd });
}

/** The path relative to `cwd`, with `/`, or '' for `cwd` itself. Throws when it leads out of `cwd`. */
export function insidePath(cwd: string, path: string, what: string): string {
  const inside = normalize(isAbsolute(path) ? relative(cwd, path) : path).replace(/[/\\]+$/, '');
  if (inside === '..' || inside.startsWith(`..${sep}`) || isAbsolute(inside)) {
    throw new CliError(`${what}: leads out of the current directory ${cwd}`);
  }
  return inside === '.' ? '' : inside.split(sep).join('/');
}

async function addPath(root: DirectoryEntry, cwd: string, path: string): Promise<void> {
  const absolute = join(cwd, path);
  const stats = await lstat(absolute);
  if (stats.isDirectory()) {
    directoryAt(root, path);
    for (const name of await readdir(absolute)) await addPath(root, cwd, path === '' ? name : `${path}/${name}`);
    return;
  }
  const slash = path.lastIndexOf('/');
  const { entries } = directoryAt(root, slash < 0 ? '' : path.slice(0, slash));
  const name = path.slice(slash + 1);
  if (stats.isSymbolicLink()) entries.set(name, { kind: 'link', target: await readlink(absolute) });
  else if (stats.isFile())
    entries.set(name, { kind: 'file', path: absolute, executable: (stats.mode & 0o100) !== 0, digest: undefined });
  else throw new CliError(`${path}: only files, directories and symbolic links can be inputs`);
}

function directoryAt(root: DirectoryEntry, path: string): DirectoryEntry {
  let directory = root;
  for (const name of path === '' ? [] : path.split('/')) {
    let next = directory.entries.get(name);
    if (next?.kind !== 'directory') {
      if (next) throw new CliError(`${path}: passes through a symbolic link that is an input too`);
      next = { kind: 'directory', entries: new Map() };
      directory.entries.set(name, next);
    }
    directory = next;
  }
  return directory;
}

function* filesOf(directory: DirectoryEntry): Iterable<FileEntry> {
  for (const entry of directory.entries.values()) {
    if (entry.kind === 'file') yield entry;
    else if (entry.kind === 'directory') yield* filesOf(entry);
  }
}

async function digestFile(path: string, signal: AbortSignal): Promise<Digest> {
  const hasher = await createHasher('sha256');
  let sizeBytes = 0;
  for await (const chunk of createReadStream(path, { signal }) as AsyncIterable<Buffer>) {
    hasher.update(chunk);
    sizeBytes += chunk.byteLength;
  }
  return { fn: 'sha256', hash: hasher.hex(), sizeBytes };
}

/** Encodes a directory in canonical form, children first, and adds its blob. */
function addDirectory(directory: DirectoryEntry, blobs: Map<string, LocalBlob>): Digest {
  const message = create(DirectorySchema);
  const names = [...directory.entries.keys()].sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
  for (const name of names) addNode(message, name, directory.entries.get(name) as Entry, blobs);
  const bytes = toBinary(DirectorySchema, message);
  const digest = digestOf('sha256', bytes);
  blobs.set(digestKey(digest), { digest, content: { bytes } });
  return digest;
}

function addNode(message: Directory, name: string, entry: Entry, blobs: Map<string, LocalBlob>): void {
  const parts = create(DirectorySchema, {
    files:
      entry.kind === 'file' && entry.digest
        ? [{ name, digest: toWireDigest(entry.digest), isExecutable: entry.executable }]
        : [],
    directories: entry.kind === 'directory' ? [{ name, digest: toWireDigest(addDirectory(entry, blobs)) }] : [],
    symlinks: entry.kind === 'link' ? [{ name, target: entry.target }] : [],
  });
  message.files.push(...parts.files);
  message.directories.push(...parts.directories);
  message.symlinks.push(...parts.symlinks);
}
