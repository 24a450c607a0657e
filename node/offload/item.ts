/** What the mesh's machine is told about an action: what it needs, how large it is, and what such actions are called. */
import { shardOf } from '../../mesh/core/shards/placement.ts';
import type { TreeSketch } from '../../mesh/core/claims/messages.ts';
import type { PeerEvent } from '../../mesh/core/peer.ts';
import type { InputDirectory } from '../../sandbox/input-tree.ts';
import type { OfferedRun } from '../execution/offering.ts';
import { actionName } from './keys.ts';
import * as limits from './limits.ts';

type ExecuteItem = Extract<PeerEvent, { readonly kind: 'execute' }>['item'];

/** @param root - the action's input tree */
export function itemOf(
  { request, prepared, context }: OfferedRun,
  root: InputDirectory,
  requires: readonly string[],
  shards: number,
): ExecuteItem {
  const { action, command, digest } = prepared;
  const { instance, invocation, priority, mnemonic, target, skipCacheLookup, avoid } = context;
  const key = actionName({ instance, action: digest });
  const [output = ''] = [...command.outputPaths, ...command.outputFiles, ...command.outputDirectories];
  return {
    request,
    shard: shardOf(key, shards),
    key,
    invocation,
    priority,
    requires,
    spaceBytes: limits.spaceBytes,
    inputs: sketchOf(root),
    inputBytes: root.bytes,
    doNotCache: action.doNotCache,
    skipCacheLookup,
    ...(avoid && { avoid }),
    expectedMs: 0,
    // Without metadata the program stands for what it does.
    mnemonic: mnemonic || (command.arguments[0] ?? ''),
    family: `${mnemonic || (command.arguments[0] ?? '')} ${target} ${output}`,
  };
}

/** Small hashes of the largest directories of a tree, itself included. */
export function sketchOf(root: InputDirectory): TreeSketch {
  const largest = new Map<string, InputDirectory>();
  const open = [root];
  // Only a directory that is large itself has large ones in it.
  while (largest.size < limits.sketchedDirectories) {
    open.sort((a, b) => b.bytes - a.bytes);
    const next = open.shift();
    if (!next || next.bytes === 0) break;
    if (largest.has(next.digest.hash)) continue;
    largest.set(next.digest.hash, next);
    open.push(...next.directories.map(({ node }) => node));
  }
  return [...largest.keys()].map((hash) => Number.parseInt(hash.slice(0, 8), 16));
}

/** Sketches of the trees that were here lately. */
export interface HeldTrees {
  add(root: InputDirectory): void;
  sketch(): TreeSketch;
}

export function createHeldTrees(): HeldTrees {
  /** In order of last use. */
  const hashes = new Set<number>();
  return {
    add(root) {
      for (const hash of sketchOf(root)) {
        hashes.delete(hash);
        hashes.add(hash);
      }
      for (const oldest of hashes) {
        if (hashes.size <= limits.sketchesKept) break;
        hashes.delete(oldest);
      }
    },
    sketch: () => [...hashes],
  };
}
