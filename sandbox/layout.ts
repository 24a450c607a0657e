/**
 * Decides how an input tree appears to one action; pure.
 *
 * A directory into which no output reaches is shared: it stays read-only and comes from the cache of staged trees. The
 * working directory, the directories around an output and whatever lies inside a declared output are private to the
 * action: real directories with copied files. The decision depends on the tree and the command alone, so an action
 * behaves the same wherever and whenever it runs (docs/adr/0004-isolation-and-input-staging.md).
 */
import { StatusError } from '../protos/status.ts';
import type { CommandPlan } from './command.ts';
import type { InputDirectory, InputFile, InputProperties, InputSymlink } from './input-tree.ts';
import { mountedFileBytesMin, mountsMax } from './limits.ts';

/** Paths are relative to the root of the tree; that of the root is empty. */
export interface Layout {
  /** To be made in this order, parents first; without the root. */
  readonly directories: readonly string[];
  readonly copies: readonly { readonly path: string; readonly file: InputFile }[];
  readonly symlinks: readonly { readonly path: string; readonly link: InputSymlink }[];
  readonly sharedDirectories: readonly { readonly path: string; readonly node: InputDirectory }[];
  readonly sharedFiles: readonly { readonly path: string; readonly file: InputFile }[];
  /** Modes and times of private directories, to be set last and innermost first. */
  readonly directoryProperties: readonly { readonly path: string; readonly properties: InputProperties }[];
}

interface MutableLayout {
  directories: string[];
  copies: { path: string; file: InputFile }[];
  symlinks: { path: string; link: InputSymlink }[];
  sharedDirectories: { path: string; node: InputDirectory }[];
  sharedFiles: { path: string; file: InputFile }[];
  directoryProperties: { path: string; properties: InputProperties }[];
}

/** What outputs and the working directory ask of the tree: named directories are private, below an output everything. */
interface Claim {
  readonly children: Map<string, Claim>;
  isOutput: boolean;
}

/**
 * Throws INVALID_ARGUMENT when the working directory is not in the tree, or a parent of an output is there as something
 * else than a directory.
 *
 * @param share - whether read-only mounts are at hand; otherwise everything is private
 */
export function planLayout(root: InputDirectory, plan: CommandPlan, { share }: { readonly share: boolean }): Layout {
  checkWorkingDirectory(root, plan.workingDirectory);
  const claims = claimsOf(plan);
  const layout: MutableLayout = {
    directories: [],
    copies: [],
    symlinks: [],
    sharedDirectories: [],
    sharedFiles: [],
    directoryProperties: [],
  };
  addPrivate(layout, '', root, claims, share);
  if (share) keepHeaviestMounts(layout);
  layout.directoryProperties.reverse();
  return layout;
}

/** The whole subtree as private directories and copies: how a tree is staged in the cache, too. */
export function planWhole(node: InputDirectory): Layout {
  const layout: MutableLayout = {
    directories: [],
    copies: [],
    symlinks: [],
    sharedDirectories: [],
    sharedFiles: [],
    directoryProperties: [],
  };
  addPrivate(layout, '', node, { children: new Map(), isOutput: true }, false);
  layout.directoryProperties.reverse();
  return layout;
}

function checkWorkingDirectory(root: InputDirectory, segments: readonly string[]): void {
  let node = root;
  for (const segment of segments) {
    const child = node.directories.find(({ name }) => name === segment);
    if (!child) {
      throw new StatusError(
        'INVALID_ARGUMENT',
        `command: working_directory "${segments.join('/')}" is not a directory of the input tree`,
      );
    }
    node = child.node;
  }
}

function claimsOf(plan: CommandPlan): Claim {
  const root: Claim = { children: new Map(), isOutput: false };
  const claim = (segments: readonly string[]): Claim => {
    let at = root;
    for (const segment of segments) {
      let child = at.children.get(segment);
      if (!child) {
        child = { children: new Map(), isOutput: false };
        at.children.set(segment, child);
      }
      at = child;
    }
    return at;
  };
  claim(plan.workingDirectory);
  for (const output of plan.outputs) claim(output.segments).isOutput = true;
  return root;
}

/** Adds what a private directory holds; `claim.isOutput` makes everything below private as well. */
function addPrivate(layout: MutableLayout, path: string, node: InputDirectory, claim: Claim, share: boolean): void {
  if (node.properties) layout.directoryProperties.push({ path, properties: node.properties });
  const shareHere = share && !claim.isOutput;
  for (const file of node.files) {
    const at = join(path, file.name);
    const mounted = shareHere && file.digest.sizeBytes >= mountedFileBytesMin && !claim.children.has(file.name);
    (mounted ? layout.sharedFiles : layout.copies).push({ path: at, file });
  }
  for (const link of node.symlinks) layout.symlinks.push({ path: join(path, link.name), link });
  for (const { name, node: child } of node.directories) {
    const at = join(path, name);
    const childClaim = claim.children.get(name);
    if (shareHere && !childClaim) {
      layout.sharedDirectories.push({ path: at, node: child });
      continue;
    }
    layout.directories.push(at);
    const isOutput = claim.isOutput || childClaim?.isOutput === true;
    addPrivate(layout, at, child, { children: childClaim?.children ?? new Map(), isOutput }, share);
  }
  for (const [name, child] of claim.children) {
    if (child.children.size > 0 && !node.directories.some((directory) => directory.name === name)) {
      addMissingParents(layout, node, path, name, child);
    }
  }
}

/** The parents of outputs exist when the command starts; the outputs themselves do not. */
function addMissingParents(
  layout: MutableLayout,
  node: InputDirectory | undefined,
  path: string,
  name: string,
  claim: Claim,
): void {
  const at = join(path, name);
  const taken = node?.files.some((file) => file.name === name) || node?.symlinks.some((link) => link.name === name);
  if (taken) {
    throw new StatusError(
      'INVALID_ARGUMENT',
      `command: an output lies below "${at}", which the input tree has as a file or symbolic link`,
    );
  }
  layout.directories.push(at);
  for (const [childName, child] of claim.children) {
    if (child.children.size > 0) addMissingParents(layout, undefined, at, childName, child);
  }
}

/** Every mount costs a little more than the one before: beyond the bound, the lightest are copied. */
function keepHeaviestMounts(layout: MutableLayout): void {
  const excess = layout.sharedDirectories.length + layout.sharedFiles.length - mountsMax;
  if (excess <= 0) return;
  const byWeight = [
    ...layout.sharedDirectories.map((shared) => ({ shared, weight: shared.node.bytes + shared.node.entries * 16_384 })),
    ...layout.sharedFiles.map((shared) => ({ shared, weight: shared.file.digest.sizeBytes })),
  ].sort((a, b) => a.weight - b.weight || (a.shared.path < b.shared.path ? -1 : 1));
  const light = new Set<unknown>(byWeight.slice(0, excess).map(({ shared }) => shared));
  const demotedDirectories = layout.sharedDirectories.filter((shared) => light.has(shared));
  for (const shared of layout.sharedFiles) if (light.has(shared)) layout.copies.push(shared);
  layout.sharedDirectories = layout.sharedDirectories.filter((shared) => !light.has(shared));
  layout.sharedFiles = layout.sharedFiles.filter((shared) => !light.has(shared));
  for (const { path, node } of demotedDirectories) {
    layout.directories.push(path);
    addPrivate(layout, path, node, { children: new Map(), isOutput: true }, false);
  }
}

function join(path: string, name: string): string {
  return path === '' ? name : `${path}/${name}`;
}
