/**
 * Somebody who keeps asking: reads registers at whoever believes to lead their shard, deposed leaders included, uploads
 * results that it holds as a client would, without a claim, and now and then reports one as wrong, as the re-running of a
 * sample of cache hits does.
 */
import type { ActionKey } from '../mesh/core/ids.ts';
import type { PeerMessage } from '../mesh/core/peer.ts';
import type { Rng } from '../mesh/core/rng.ts';
import { shardOf } from '../mesh/core/shards/placement.ts';
import type { Engine } from './engine.ts';
import type { SimNode } from './node.ts';

/** Ids of the auditor's requests are above those of any peer. */
export const auditIdMin = 1_000_000_000;
const everyUs = 1_500_000;
/** What an upload's holder promises; the blob may be gone before, as with a careless client. */
const uploadMs = 600_000;

export interface AuditorPorts {
  readonly nodes: readonly SimNode[];
  readonly shards: number;
  send(from: SimNode, to: SimNode, message: PeerMessage): void;
}

export interface Auditor {
  /** A key that is worth asking about. */
  know(key: ActionKey): void;
  start(): void;
}

export function createAuditor(engine: Engine, rng: Rng, ports: AuditorPorts): Auditor {
  const keys: ActionKey[] = [];
  const known = new Set<ActionKey>();
  let nextId = auditIdMin;

  function audit(): void {
    engine.after(everyUs, audit);
    const from = ports.nodes[rng.below(ports.nodes.length)] as SimNode;
    if (keys.length === 0 || from.state() !== 'up') return;
    // Mostly what is written just now.
    const recent = rng.below(3) > 0 ? Math.min(keys.length, 12) : keys.length;
    const key = keys[keys.length - 1 - rng.below(recent)] as ActionKey;
    const shard = shardOf(key, ports.shards);
    const leaders = ports.nodes.filter((node) => node.peer()?.coordination.groupOf(shard)?.status.role === 'leader');
    const to = leaders[rng.below(Math.max(1, leaders.length))];
    if (!to || to === from) return;
    const id = ++nextId;
    const register = to.peer()?.coordination.groupOf(shard)?.registers.get(key);
    if (register?.kind === 'result' && rng.below(5) === 0) {
      ports.send(from, to, { kind: 'invalidate', id, shard, key, result: register.result, reason: 'wrong' });
      return;
    }
    const held = [...from.disk().blobs.keys()].find((blob) => blob.startsWith(`result/${key}`));
    if (held !== undefined && rng.below(3) === 0) {
      const promise = { holder: from.id, storeGeneration: from.disk().generation, pinnedForMs: uploadMs };
      ports.send(from, to, { kind: 'publish', id, shard, key, result: held, executor: from.id, promises: [promise] });
      return;
    }
    ports.send(from, to, { kind: 'lookup', id, shard, keys: [key], fresh: rng.below(2) === 0 });
  }

  return {
    know(key) {
      if (known.has(key)) return;
      known.add(key);
      keys.push(key);
    },
    start: () => engine.after(everyUs, audit),
  };
}
