/**
 * Tells an executor the inputs that it is going to find, level by level, in the action that it fetches: it gets them all at
 * once. Only time is saved by it: what is needed is decided by the tree itself, and every blob is verified as ever.
 */
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import type { ActionKey as ActionName, NodeId } from '../../mesh/core/ids.ts';
import { type Digest, digestFunctions, fromWireDigest, makeDigest } from '../../protos/digest.ts';
import { InputHintSchema } from '../../protos/gen/potluck/mesh/v1/results_pb.ts';
import { type InputDirectory, treeDigests } from '../../sandbox/input-tree.ts';
import type { PreparedAction } from '../execution/prepare.ts';
import type { FetchOptions } from '../peers/fetches.ts';
import { fromWireKey, toWireKey } from '../peers/result-finder.ts';
import type { ActionKey } from '../storage/action-cache.ts';
import { actionName } from './keys.ts';
import * as limits from './limits.ts';

export const hintChannel = 'inputs';

export interface InputHints {
  /** To who is about to fetch the inputs. */
  tell(node: NodeId, key: ActionKey, prepared: PreparedAction, root: InputDirectory): void;
  /** A parcel of a member. Throws INVALID_ARGUMENT for nonsense. */
  onParcel(from: NodeId, body: Uint8Array): void;
  /** Uses the hint that came, or will come, for this action until disposed. */
  use(key: ActionKey, from: NodeId, signal: AbortSignal): Disposable;
}

export interface InputHintsOptions {
  readonly send: (to: NodeId, body: Uint8Array) => void;
  readonly bring: (digests: readonly Digest[], options: FetchOptions) => Promise<Digest[]>;
}

export function createInputHints({ send, bring }: InputHintsOptions): InputHints {
  const kept = new Map<ActionName, readonly Digest[]>();
  const fetching = new Map<ActionName, (digests: readonly Digest[]) => void>();

  return {
    tell(node, key, { action, digest }, root) {
      const command = fromWireDigest(action.commandDigest, digestFunctions[digest.fn].wire);
      const all = [command, ...directoriesOf(root), ...treeDigests(root)];
      const blobs = new Set(all.map(({ hash, sizeBytes }) => `${hash}/${sizeBytes}`));
      const hint = create(InputHintSchema, { key: toWireKey(key), blobs: [...blobs].slice(0, limits.hintedInputsMax) });
      send(node, toBinary(InputHintSchema, hint));
    },
    onParcel(_, body) {
      const { key: wire, blobs } = fromBinary(InputHintSchema, body);
      if (!wire) return;
      const key = fromWireKey(wire);
      const digests = blobs.slice(0, limits.hintedInputsMax).map((text) => {
        const [hash = '', size = ''] = text.split('/');
        return makeDigest(key.action.fn, hash, Number(size));
      });
      const name = actionName(key);
      const fetch = fetching.get(name);
      if (fetch) return fetch(digests);
      kept.set(name, digests);
      for (const oldest of kept.keys()) {
        if (kept.size <= limits.hintsKept) break;
        kept.delete(oldest);
      }
    },
    use(key, from, signal) {
      const name = actionName(key);
      const fetch = (digests: readonly Digest[]): void => {
        // Whoever needs a blob asks for it as well, and hears what became of it.
        bring(digests, { hints: [from], signal }).catch(() => {});
      };
      const hinted = kept.get(name);
      kept.delete(name);
      if (hinted) fetch(hinted);
      fetching.set(name, fetch);
      return {
        [Symbol.dispose]() {
          if (fetching.get(name) === fetch) fetching.delete(name);
        },
      };
    },
  };
}

/** Directories of a tree, those near its root first. */
function directoriesOf(root: InputDirectory): Digest[] {
  const seen = new Set([root]);
  for (const node of seen) for (const child of node.directories) seen.add(child.node);
  return Array.from(seen, ({ digest }) => digest);
}
