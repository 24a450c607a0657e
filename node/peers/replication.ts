/**
 * Results of this node are handed on to members of its site, so that what one machine built outlives it: first the blobs,
 * then the word for them. One after the other, in the background; what cannot be handed on is said and left.
 */
import { createHash } from 'node:crypto';
import { type Digest, digestKey } from '../../protos/digest.ts';
import { toStatusError } from '../../protos/status.ts';
import type { ActionKey } from '../storage/action-cache.ts';
import * as limits from './limits.ts';
import type { PeerActions } from './peer-actions.ts';

export interface ReplicationOptions {
  /** Nodes of the site that hold a result, this one included; 1 leaves it where it is. */
  readonly replicas: number;
  /** Live members of this node's site. */
  readonly members: () => readonly string[];
  readonly share: PeerActions['share'];
  readonly handOver: (peer: string, digests: readonly Digest[], signal: AbortSignal) => Promise<void>;
  readonly tell: (peer: string, told: Uint8Array, signal: AbortSignal) => Promise<void>;
  readonly onFailed: (reason: string) => void;
}

export interface Replication {
  add(key: ActionKey): void;
  close(): Promise<void>;
}

export function createReplication(options: ReplicationOptions): Replication {
  const { replicas, members, share, handOver, tell, onFailed } = options;
  const queue: ActionKey[] = [];
  const closing = new AbortController();
  let running: Promise<void> | undefined;

  async function replicate(key: ActionKey): Promise<void> {
    const peers = nearest(members(), digestKey(key.action)).slice(0, replicas - 1);
    const shared = peers.length > 0 ? await share(key) : undefined;
    if (!shared) return;
    for (const peer of peers) {
      try {
        await handOver(peer, shared.needed, closing.signal);
        await tell(peer, shared.told, closing.signal);
      } catch (error) {
        if (closing.signal.aborted) return;
        onFailed(`the result of action ${digestKey(key.action)} was not handed on: ${toStatusError(error).reason}`);
      }
    }
  }

  async function run(): Promise<void> {
    for (let key = queue.shift(); key && !closing.signal.aborted; key = queue.shift()) {
      await replicate(key).catch((error: unknown) => onFailed(toStatusError(error).reason));
    }
    running = undefined;
  }

  return {
    add(key) {
      // A long queue means that the others cannot keep up; copies are a comfort, not a promise.
      if (replicas <= 1 || queue.length >= limits.replicationsMax) return;
      queue.push(key);
      running ??= run();
    },
    async close() {
      closing.abort();
      await running;
    },
  };
}

/** By rendezvous hashing: the same two or three for an action, whoever made it, and an even load. */
function nearest(peers: readonly string[], name: string): string[] {
  const rank = (peer: string): string => createHash('sha256').update(`${name} ${peer}`).digest('hex');
  return [...peers].sort((a, b) => (rank(a) < rank(b) ? -1 : 1));
}
