/**
 * Tells a member the blobs that it is going to need, before it finds out one after the other: an executor the inputs of the
 * action that it fetches, a submitter the outputs that it will be handed. Only time is saved by it: what is needed is
 * decided by trees and results, and every blob is verified as ever.
 */
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import type { NodeId } from '../../mesh/core/ids.ts';
import { type Digest, digestFunctions, fromWireDigest, makeDigest } from '../../protos/digest.ts';
import { BlobHintSchema } from '../../protos/gen/potluck/mesh/v1/results_pb.ts';
import { type InputDirectory, treeDigests } from '../../sandbox/input-tree.ts';
import type { PreparedAction } from '../execution/prepare.ts';
import type { FetchOptions } from '../peers/fetches.ts';
import { fromWireKey, toWireKey } from '../peers/result-finder.ts';
import type { ActionKey } from '../storage/action-cache.ts';
import { actionName } from './keys.ts';
import * as limits from './limits.ts';

export const inputChannel = 'inputs';
export const outputChannel = 'outputs';

export interface BlobHints {
  /** The first of them are told. */
  tell(node: NodeId, key: ActionKey, digests: readonly Digest[]): void;
  /** A parcel of a member. Throws INVALID_ARGUMENT for nonsense. */
  onParcel(from: NodeId, body: Uint8Array): void;
  /** Fetches what `from` hints at for this action, now or later, until disposed. */
  use(key: ActionKey, from: NodeId): Disposable;
}

export interface BlobHintsOptions {
  readonly send: (to: NodeId, body: Uint8Array) => void;
  readonly bring: (digests: readonly Digest[], options: FetchOptions) => Promise<Digest[]>;
}

export function createBlobHints({ send, bring }: BlobHintsOptions): BlobHints {
  const kept = new Map<string, readonly Digest[]>();
  const used = new Map<string, (digests: readonly Digest[]) => void>();
  const nameOf = (from: NodeId, key: ActionKey): string => `${from} ${actionName(key)}`;

  return {
    tell(node, key, digests) {
      const blobs = new Set(digests.slice(0, limits.hintedMax).map(({ hash, sizeBytes }) => `${hash}/${sizeBytes}`));
      send(node, toBinary(BlobHintSchema, create(BlobHintSchema, { key: toWireKey(key), blobs: [...blobs] })));
    },
    onParcel(from, body) {
      const { key: wire, blobs } = fromBinary(BlobHintSchema, body);
      if (!wire) return;
      const key = fromWireKey(wire);
      const digests = blobs.slice(0, limits.hintedMax).map((text) => {
        const [hash = '', size = ''] = text.split('/');
        return makeDigest(key.action.fn, hash, Number(size));
      });
      // A large one is worth its round trip, and nobody fills this disk by hinting.
      const small = digests.filter(({ sizeBytes }) => sizeBytes <= limits.hintedBytesMax);
      const name = nameOf(from, key);
      const fetch = used.get(name);
      if (fetch) return fetch(small);
      kept.set(name, small);
      for (const oldest of kept.keys()) {
        if (kept.size <= limits.hintsKept) break;
        kept.delete(oldest);
      }
    },
    use(key, from) {
      const name = nameOf(from, key);
      const ended = new AbortController();
      let left = limits.hintedMax;
      const fetch = (digests: readonly Digest[]): void => {
        const some = digests.slice(0, left);
        left -= some.length;
        if (some.length === 0) return;
        // Whoever needs a blob asks for it as well, and hears what became of it.
        bring(some, { hints: [from], signal: ended.signal }).catch(() => {});
      };
      const hinted = kept.get(name);
      kept.delete(name);
      if (hinted) fetch(hinted);
      used.set(name, fetch);
      return {
        [Symbol.dispose]() {
          if (used.get(name) === fetch) used.delete(name);
          ended.abort();
        },
      };
    },
  };
}

/** What an executor of the action will look for: the Command, Directories from the root down, files. */
export function inputsOf({ action, digest }: PreparedAction, root: InputDirectory): Digest[] {
  const command = fromWireDigest(action.commandDigest, digestFunctions[digest.fn].wire);
  const seen = new Set([root]);
  for (const node of seen) for (const child of node.directories) seen.add(child.node);
  const directories = Array.from(seen, (node) => node.digest);
  return [...new Set([command, ...directories, ...treeDigests(root)])];
}
