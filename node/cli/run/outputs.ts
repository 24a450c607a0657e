/** Puts the outputs of an action where its command would have made them, and nowhere else. */
import { fromBinary, toBinary } from '@bufbuild/protobuf';
import { randomUUID } from 'node:crypto';
import { lstat, mkdir, open, realpath, rename, rm, symlink } from 'node:fs/promises';
import { dirname, join, sep } from 'node:path';
import { type Digest, digestKey, fromWireDigest } from '../../../protos/digest.ts';
import {
  type ActionResult,
  DigestFunction_Value,
  type Directory,
  DirectorySchema,
  TreeSchema,
} from '../../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { digestOf } from '../../../protos/hasher.ts';
import { CliError } from '../exit-codes.ts';
import * as limits from './limits.ts';
import { forEachLimited } from '../../../sandbox/concurrency.ts';
import { readBlob, readSmallBlob, type Remote } from './transfer.ts';

export interface OutputReport {
  readonly files: number;
  readonly bytes: number;
  /** Those of the wanted paths that the action made. */
  readonly made: ReadonlySet<string>;
}

interface Plan {
  readonly directories: string[];
  readonly files: { path: string; digest: Digest; executable: boolean; contents: Uint8Array | undefined }[];
  readonly links: { path: string; target: string }[];
  readonly made: Set<string>;
}

/**
 * Downloads what the result names of `wanted` (paths relative to `cwd`). Files are replaced whole, directories are
 * merged, nothing is deleted. Throws CliError when a path leads out of `cwd`, through a symbolic link, or is taken by
 * something else; StatusError when the server fails.
 */
export async function writeOutputs(
  remote: Remote,
  cwd: string,
  result: ActionResult,
  wanted: readonly string[],
  signal: AbortSignal,
): Promise<OutputReport> {
  const plan = await planOutputs(remote, result, new Set(wanted), signal);
  const ensureDirectory = directoryMaker(await realpath(cwd));
  for (const path of plan.directories) await ensureDirectory(path);
  let bytes = 0;
  await forEachLimited(plan.files, limits.transfersAtOnce, async (file) => {
    const parent = await ensureDirectory(dirname(file.path));
    const content = file.contents ? [file.contents] : readBlob(remote, file.digest, signal);
    await replace(join(parent, baseOf(file.path)), file.path, async (temporary) => {
      await using handle = await open(temporary, 'wx', file.executable ? 0o777 : 0o666);
      for await (const chunk of content) await handle.writeFile(chunk);
    });
    bytes += file.digest.sizeBytes;
  });
  // Last, so that nothing can be written through a link of the server's making.
  for (const { path, target } of plan.links) {
    const parent = await ensureDirectory(dirname(path));
    await replace(join(parent, baseOf(path)), path, (temporary) => symlink(target, temporary));
  }
  return { files: plan.files.length, bytes, made: plan.made };
}

async function planOutputs(
  remote: Remote,
  result: ActionResult,
  wanted: ReadonlySet<string>,
  signal: AbortSignal,
): Promise<Plan> {
  const plan: Plan = { directories: [], files: [], links: [], made: new Set() };
  const accept = (path: string): string => {
    if (!wanted.has(path)) throw new CliError(`the server sent an output that was not asked for: ${path}`);
    plan.made.add(path);
    return path;
  };
  for (const file of result.outputFiles) {
    const digest = fromWireDigest(file.digest, DigestFunction_Value.SHA256, file.path);
    const contents = inlined(file.contents, digest);
    plan.files.push({ path: accept(file.path), digest, executable: file.isExecutable, contents });
  }
  for (const { path, target } of [
    ...result.outputSymlinks,
    ...result.outputFileSymlinks,
    ...result.outputDirectorySymlinks,
  ]) {
    // Servers that serve old clients name a link in two lists.
    if (!plan.made.has(path)) plan.links.push({ path: accept(path), target });
  }
  for (const { path, treeDigest } of result.outputDirectories) {
    const digest = fromWireDigest(treeDigest, DigestFunction_Value.SHA256, path);
    const tree = fromBinary(TreeSchema, await readSmallBlob(remote, digest, limits.treeBytesMax, signal));
    const children = new Map(
      tree.children.map((child) => [digestKey(digestOf('sha256', toBinary(DirectorySchema, child))), child] as const),
    );
    if (tree.root) planDirectory(plan, accept(path), tree.root, children);
  }
  return plan;
}

/** Inlined contents are as untrusted as any others. */
function inlined(contents: Uint8Array, digest: Digest): Uint8Array | undefined {
  return contents.byteLength > 0 && digestKey(digestOf('sha256', contents)) === digestKey(digest)
    ? contents
    : undefined;
}

function planDirectory(plan: Plan, path: string, directory: Directory, children: ReadonlyMap<string, Directory>): void {
  plan.directories.push(path);
  if (plan.directories.length + plan.files.length + plan.links.length > limits.outputEntriesMax) {
    throw new CliError(`${path}: an output directory of more than ${limits.outputEntriesMax} entries`);
  }
  for (const { name, digest, isExecutable } of directory.files) {
    const checked = fromWireDigest(digest, DigestFunction_Value.SHA256, name);
    plan.files.push({ path: below(path, name), digest: checked, executable: isExecutable, contents: undefined });
  }
  for (const { name, target } of directory.symlinks) plan.links.push({ path: below(path, name), target });
  for (const { name, digest } of directory.directories) {
    const child = children.get(digestKey(fromWireDigest(digest, DigestFunction_Value.SHA256, name)));
    if (!child) throw new CliError(`${below(path, name)}: the server left this directory out of its Tree`);
    planDirectory(plan, below(path, name), child, children);
  }
}

function below(path: string, name: string): string {
  if (name === '' || name === '.' || name === '..' || /[/\0]/.test(name) || (sep === '\\' && name.includes(sep))) {
    throw new CliError(`${path}: the server sent an entry with the impossible name "${name}"`);
  }
  return `${path}/${name}`;
}

function baseOf(path: string): string {
  return path.slice(path.lastIndexOf('/') + 1);
}

/** Makes directories below `root` one by one, never stepping through a symbolic link; resolves to the absolute path. */
function directoryMaker(root: string): (path: string) => Promise<string> {
  const made = new Map<string, Promise<string>>([['.', Promise.resolve(root)]]);
  const ensure = (path: string): Promise<string> => {
    let absolute = made.get(path);
    if (!absolute) {
      absolute = makeDirectory(path);
      made.set(path, absolute);
    }
    return absolute;
  };
  const makeDirectory = async (path: string): Promise<string> => {
    const absolute = join(await ensure(dirname(path)), baseOf(path));
    await mkdir(absolute).catch(async (error: NodeJS.ErrnoException) => {
      if (error.code !== 'EEXIST') throw new CliError(`${path}: cannot make this directory: ${error.message}`);
      const stats = await lstat(absolute);
      if (stats.isSymbolicLink())
        throw new CliError(`${path}: is a symbolic link; outputs are not written through links`);
      if (!stats.isDirectory()) throw new CliError(`${path}: a directory has to be here, but this is none`);
    });
    return absolute;
  };
  return ensure;
}

/** Fills a temporary name beside `target`, then renames it over. */
async function replace(target: string, shown: string, fill: (temporary: string) => Promise<void>): Promise<void> {
  const temporary = join(dirname(target), `.potluck-${randomUUID()}`);
  try {
    await fill(temporary);
    await rename(temporary, target);
  } catch (error) {
    await rm(temporary, { force: true });
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === 'EISDIR' || code === 'ENOTEMPTY') {
      throw new CliError(`${shown}: is a directory here, but the command made a file; remove it first`);
    }
    if (code?.startsWith('E')) throw new CliError(`${shown}: cannot be written: ${message}`);
    throw error;
  }
}
