/**
 * Somebody who keeps asking: reads registers at whoever believes to lead their shard, and at deposed leaders above all,
 * about what has changed without them; uploads results as a client would, without a claim, its own among them where another
 * is known; and now and then reports one as wrong, as the re-running of a sample of cache hits does.
 */
import type { ActionKey, BlobKey } from '../mesh/core/ids.ts';
import type { PeerMessage } from '../mesh/core/peer.ts';
import type { Rng } from '../mesh/core/rng.ts';
import type { Group } from '../mesh/core/shards/group.ts';
import { shardOf } from '../mesh/core/shards/placement.ts';
import type { Engine } from './engine.ts';
import { resultOf, type SimNode } from './node.ts';

/** Ids of the auditor's requests are above those of any peer. */
const auditIdMin = 2 ** 50;
const everyUs = 1_500_000;
/** It keeps asking for a while, and then keeps quiet for a while, so that shards fall asleep between. */
const busySecondsMax = 40;
const quietSecondsMax = 80;
/** What an upload's holder promises; the blob may be gone before, as with a careless client. */
const uploadMs = 600_000;
/** The newest registers of a shard that are compared with what its deposed leader holds. */
const newestLooked = 16;

export interface AuditorPorts {
  readonly nodes: readonly SimNode[];
  readonly shards: number;
  /** Whether a message could get there. */
  open(from: SimNode, to: SimNode): boolean;
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
  let busy = false;
  let turnUs = 0;

  function groupAt(node: SimNode, shard: number): Group | undefined {
    return node.state() === 'up' ? node.peer()?.coordination.groupOf(shard) : undefined;
  }

  /** Asks a leader that has a successor for something that the successor has written since. */
  function askDeposed(shard: number): void {
    const leaders = ports.nodes.flatMap((node) => {
      const group = groupAt(node, shard);
      return group?.status.role === 'leader' ? [{ node, group }] : [];
    });
    if (leaders.length < 2) return;
    leaders.sort((a, b) => a.group.status.term - b.group.status.term);
    const [deposed, newest] = [leaders[0], leaders.at(-1)] as [(typeof leaders)[number], (typeof leaders)[number]];
    const changed = [...newest.group.registers.entries()]
      .slice(-newestLooked)
      .filter(([key, register]) => deposed.group.registers.get(key)?.result !== register.result);
    const near = ports.nodes.filter(
      (node) =>
        node !== deposed.node &&
        node.state() === 'up' &&
        ports.open(node, deposed.node) &&
        ports.open(deposed.node, node),
    );
    const from = near[rng.below(Math.max(1, near.length))];
    const [key] = changed[rng.below(Math.max(1, changed.length))] ?? [];
    if (!from || key === undefined) return;
    ports.send(from, deposed.node, { kind: 'lookup', id: ++nextId, shard, keys: [key], fresh: rng.below(2) === 0 });
  }

  function audit(): void {
    engine.after(everyUs, audit);
    for (let shard = 0; shard < ports.shards; shard++) askDeposed(shard);
    if (engine.nowUs() >= turnUs) {
      busy = !busy;
      turnUs = engine.nowUs() + rng.between(10, busy ? busySecondsMax : quietSecondsMax) * 1_000_000;
    }
    if (!busy) return;
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
      denounce(key, register.result);
      return;
    }
    if (register?.kind === 'result' && rng.below(8) === 0) {
      upload(from, to, id, shard, key, resultOf(key, `upload-${id}`));
      return;
    }
    const held = [...from.disk().blobs.keys()].find((blob) => blob.startsWith(resultOf(key)));
    if (held !== undefined && rng.below(3) === 0) {
      upload(from, to, id, shard, key, held);
      return;
    }
    ports.send(from, to, { kind: 'lookup', id, shard, keys: [key], fresh: rng.below(2) === 0 });
  }

  /** The evidence reaches every node, and each looks at it for itself. */
  function denounce(key: ActionKey, result: BlobKey): void {
    for (const node of ports.nodes) node.deliver({ kind: 'invalidate', key, result, reason: 'wrong' });
  }

  function upload(from: SimNode, to: SimNode, id: number, shard: number, key: ActionKey, result: BlobKey): void {
    const promise = { holder: from.id, storeGeneration: from.disk().generation, pinnedForMs: uploadMs };
    ports.send(from, to, { kind: 'publish', id, shard, key, result, executor: from.id, promises: [promise] });
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
