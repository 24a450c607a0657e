/**
 * A few nodes that only coordinate: a network that the test partitions, disks that sync at once or when told, and a view of
 * the members that follows the partition without delay.
 */
import type { NodeId } from '../../../../mesh/core/ids.ts';
import type { CoordinationMessage, CoordinationRecord } from '../../../../mesh/core/messages.ts';
import { createRng } from '../../../../mesh/core/rng.ts';
import {
  type Coordination,
  createCoordination,
  recoverCoordination,
} from '../../../../mesh/core/shards/coordination.ts';
import type { CoordinationEvent, CoordinationNote, MemberView } from '../../../../mesh/core/shards/types.ts';

interface Node {
  coordination: Coordination;
  records: CoordinationRecord[];
  unsynced: { id: number; record: CoordinationRecord }[];
  held: { after: number; to: NodeId; message: CoordinationMessage }[];
  wakeAtMs: number;
  up: boolean;
  leaving: boolean;
  disk: number;
  persistId: number;
}

export interface Mesh {
  nowMs: number;
  readonly nodes: Map<NodeId, Node>;
  /** Answers and claim messages that reached their node, with who sent them. */
  readonly inbox: { to: NodeId; from: NodeId; message: CoordinationMessage }[];
  readonly notes: { node: NodeId; note: CoordinationNote }[];
  node(id: NodeId): Coordination;
  add(id: NodeId, founder?: boolean): void;
  send(from: NodeId, to: NodeId, message: CoordinationMessage): void;
  event(id: NodeId, event: CoordinationEvent): void;
  /** Nodes of one group reach each other; others are dead to them. */
  partition(...groups: NodeId[][]): void;
  heal(): void;
  /** It hands over and is suspended to the others, and still runs until it is crashed. */
  goodbye(id: NodeId): void;
  crash(id: NodeId): void;
  restart(id: NodeId): void;
  run(ms: number): void;
  leaders(shard: number): NodeId[];
}

export function createMesh(
  shards: number,
  stability: (id: NodeId) => Partial<MemberView['stability']> = () => ({}),
): Mesh {
  const nodes = new Map<NodeId, Node>();
  let groups: NodeId[][] | undefined;
  let flights: { from: NodeId; to: NodeId; message: CoordinationMessage }[] = [];

  const reaches = (a: NodeId, b: NodeId): boolean =>
    a === b || groups === undefined || groups.some((group) => group.includes(a) && group.includes(b));

  const boot = (id: NodeId, node: Pick<Node, 'records' | 'disk'>, founder: boolean): Coordination => {
    const disk = recoverCoordination(node.records);
    const holder = { id: nodes.get(id)?.persistId ?? 0 };
    return createCoordination(
      {
        self: id,
        disk: node.disk,
        shards,
        founder,
        rng: createRng(1).fork(`${id} ${mesh.nowMs}`),
        nextPersistId: () => {
          const found = nodes.get(id);
          if (found) return ++found.persistId;
          return ++holder.id;
        },
      },
      disk,
      mesh.nowMs,
    );
  };

  const viewOf = (id: NodeId): MemberView[] =>
    [...nodes]
      .map(
        ([other, { disk, up, leaving }]): MemberView => ({
          node: other,
          disk,
          status: leaving && other !== id ? 'suspended' : up && reaches(id, other) ? 'alive' : 'dead',
          lastAliveAtMs: mesh.nowMs,
          aliveSinceMs: 0,
          stability: { alwaysOn: false, mainsPower: false, wired: false, optedOut: false, ...stability(other) },
        }),
      )
      .sort((a, b) => (a.node < b.node ? -1 : 1));

  const tellMembers = (): void => {
    for (const [id, { up }] of nodes) if (up) mesh.event(id, { kind: 'members', members: viewOf(id) });
  };

  const mesh: Mesh = {
    nowMs: 0,
    nodes,
    inbox: [],
    notes: [],
    node(id) {
      const found = nodes.get(id);
      if (!found) throw new Error(`no node ${id}`);
      return found.coordination;
    },
    add(id, founder = false) {
      const node: Node = {
        coordination: undefined as unknown as Coordination,
        records: [],
        unsynced: [],
        held: [],
        wakeAtMs: mesh.nowMs,
        up: true,
        leaving: false,
        disk: 1,
        persistId: 0,
      };
      nodes.set(id, node);
      node.coordination = boot(id, node, founder);
      tellMembers();
    },
    send: (from, to, message) => void flights.push({ from, to, message }),
    event(id, event) {
      const node = nodes.get(id);
      if (!node?.up) return;
      for (const effect of node.coordination.step(event, mesh.nowMs)) {
        if (effect.kind === 'persist') node.unsynced.push({ id: effect.id, record: effect.record });
        else if (effect.kind === 'wakeAt') node.wakeAtMs = effect.atMs;
        else if (effect.kind === 'note') mesh.notes.push({ node: id, note: effect.note });
        else if (effect.kind === 'send') {
          const { to, message, after } = effect;
          if (after !== undefined && node.unsynced.some((pending) => pending.id <= after)) {
            node.held.push({ after, to, message });
          } else {
            flights.push({ from: id, to, message });
          }
        }
      }
    },
    partition(...sides) {
      groups = sides;
      tellMembers();
    },
    heal() {
      groups = undefined;
      tellMembers();
    },
    goodbye(id) {
      const node = nodes.get(id);
      if (!node) return;
      node.leaving = true;
      mesh.event(id, { kind: 'goodbye' });
      tellMembers();
    },
    crash(id) {
      const node = nodes.get(id);
      if (!node) return;
      node.up = false;
      node.unsynced = [];
      node.held = [];
      tellMembers();
    },
    restart(id) {
      const node = nodes.get(id);
      if (!node) return;
      node.coordination = boot(id, node, false);
      node.up = true;
      node.wakeAtMs = mesh.nowMs;
      tellMembers();
    },
    run(ms) {
      for (const end = mesh.nowMs + ms; mesh.nowMs < end; mesh.nowMs += 10) {
        for (const [id, node] of nodes) if (node.up && node.wakeAtMs <= mesh.nowMs) mesh.event(id, { kind: 'wake' });
        for (let round = 0; round < 100; round++) {
          for (const [id, node] of nodes) {
            const last = node.unsynced.at(-1);
            if (!last || !node.up) continue;
            node.records.push(...node.unsynced.map(({ record }) => record));
            node.unsynced = [];
            for (const { to, message } of node.held.splice(0)) flights.push({ from: id, to, message });
            mesh.event(id, { kind: 'persisted', id: last.id });
          }
          if (flights.length === 0) break;
          const batch = flights;
          flights = [];
          for (const { from, to, message } of batch) {
            if (!nodes.get(to)?.up || !reaches(from, to)) continue;
            mesh.inbox.push({ to, from, message });
            mesh.event(to, { kind: 'message', from, message });
          }
        }
      }
    },
    leaders: (shard) =>
      [...nodes].filter(([, { up, coordination }]) => up && coordination.groupOf(shard)?.ready).map(([id]) => id),
  };
  return mesh;
}
