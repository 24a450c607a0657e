/** What each kind of fault does to the machines and links it hits, and what its end does. */
import { nodeOf } from '../mesh/core/ids.ts';
import type { PeerMessage } from '../mesh/core/peer.ts';
import type { Rng } from '../mesh/core/rng.ts';
import type { Engine } from './engine.ts';
import type { Network } from './network.ts';
import { type SimNode, shutdownUs } from './node.ts';
import type { Fault } from './plan.ts';

export interface FaultContext {
  readonly engine: Engine;
  readonly network: Network;
  readonly nodes: readonly SimNode[];
  readonly rng: Rng;
  /** The loss to go back to after a burst of it. */
  readonly lossPerMillion: number;
}

/** Local discovery announces a new address within this time, to those who were not told by the node itself. */
const discoveryUs = 10_000_000;
/** A goodbye gets this long to leave the machine before it falls asleep. */
const goodbyeUs = 100_000;
/** A driver takes a sleep as short as this for none. */
const unnoticedMs = 100;
/** The amount of a disk swap that never brings back a disk that was in before. */
export const blankDisk = 2;

export function applyFault(context: FaultContext, fault: Fault): void {
  const { engine, network, nodes, rng } = context;
  const victims = fault.nodes.map((index) => nodes[index] as SimNode);
  const atEnd = (act: () => void): void => engine.after(fault.forMs * 1_000, act);
  const each = (act: (node: SimNode) => void): void => victims.forEach((node) => act(node));

  switch (fault.kind) {
    case 'pause':
      each((node) => node.pause());
      return atEnd(() => each((node) => node.state() === 'paused' && node.resume()));
    case 'suspend':
      if (fault.amount === 0) {
        each((node) => node.state() === 'up' && node.deliver({ kind: 'goodbye', presence: 'suspended' }));
      }
      engine.after(fault.amount === 0 ? goodbyeUs : 0, () => each((node) => node.suspend()));
      return engine.after(fault.forMs * 1_000 + goodbyeUs, () =>
        each((node) => {
          const slept = node.state() === 'suspended';
          if (slept) node.resume();
          // It said goodbye and something kept it awake, or woke it at once; the system tells it so.
          if (fault.amount === 0 && (!slept || fault.forMs < unnoticedMs)) node.deliver({ kind: 'gap', gapMs: 0 });
        }),
      );
    case 'lidsClosed': {
      // The coordinators of one shard go home together, without a word when the amount says so.
      const leaving = coordinators(nodes, fault.nodes[0] as number);
      if (fault.amount === 0) for (const node of leaving) node.deliver({ kind: 'goodbye', presence: 'suspended' });
      engine.after(fault.amount === 0 ? goodbyeUs / 10 : 0, () => leaving.forEach((node) => node.suspend()));
      return engine.after(fault.forMs * 1_000 + goodbyeUs, () =>
        leaving.forEach((node) => {
          const slept = node.state() === 'suspended';
          if (slept) node.resume();
          if (fault.amount === 0 && (!slept || fault.forMs < unnoticedMs)) node.deliver({ kind: 'gap', gapMs: 0 });
        }),
      );
    }
    case 'crash':
      each((node) => node.crash());
      return atEnd(() => each((node) => node.boot()));
    case 'shutdown':
      each((node) => node.shutdown());
      return engine.after(fault.forMs * 1_000 + shutdownUs, () => each((node) => node.boot()));
    case 'diskSwap':
      each((node) => {
        node.crash();
        node.swapDisk(fault.amount === blankDisk);
      });
      return atEnd(() => each((node) => node.boot()));
    case 'split':
    case 'oneWay': {
      const links = crossing(fault, nodes.length);
      for (const [from, to] of links) network.block(from, to, true);
      return atEnd(() => {
        for (const [from, to] of links) network.block(from, to, false);
      });
    }
    case 'cut': {
      const links = pair(fault).slice(0, fault.amount === 0 ? 2 : 1);
      for (const [from, to] of links) network.block(from, to, true);
      return atEnd(() => {
        for (const [from, to] of links) network.block(from, to, false);
      });
    }
    case 'hold':
      for (const [from, to] of pair(fault)) network.hold(from, to, true);
      return atEnd(() => {
        for (const [from, to] of pair(fault)) network.hold(from, to, false);
      });
    case 'reset':
      for (const [from, to] of pair(fault).slice(0, 1)) network.reset(from, to);
      return;
    case 'move':
      each((node) => {
        network.moved(node.index);
        node.move();
      });
      return engine.after(discoveryUs, () => each((node) => network.announced(node.index)));
    case 'loss':
      network.setLoss(fault.amount);
      return atEnd(() => network.setLoss(context.lossPerMillion));
    case 'clockRate':
      each((node) => node.clock.setRate(1_000_000 + fault.amount));
      return atEnd(() => each((node) => node.clock.setRate(1_000_000)));
    case 'diskFull':
      each((node) => node.setFull(true));
      return atEnd(() => each((node) => node.setFull(false)));
    case 'liar':
      each((node) => node.setLiar(true));
      return atEnd(() => each((node) => node.setLiar(false)));
    case 'badMoments':
      each((node) => node.setFragile(true));
      return atEnd(() => each((node) => node.setFragile(false)));
    case 'ownerBack':
      each((node) => node.setOwner(true));
      return atEnd(() => each((node) => node.setOwner(false)));
    case 'blobsLost':
      each((node) => node.loseBlobs(rng));
      return;
    default:
      fault.kind satisfies never;
  }
}

/** The voters of one shard, chosen by `draw` among those that have a leader. */
function coordinators(nodes: readonly SimNode[], draw: number): SimNode[] {
  const led = nodes.flatMap((node) => node.peer()?.coordination.statuses() ?? []).filter(({ leader }) => leader);
  const status = led[draw % Math.max(1, led.length)];
  const voters = new Set(status?.configuration.voters.map(nodeOf));
  return nodes.filter((node) => voters.has(node.id) && node.state() === 'up');
}

/** Messages after which a power cut hurts most: what they promise must not be forgotten. */
export function isBadMoment(message: PeerMessage): boolean {
  if (message.kind !== 'raft') return false;
  const { message: inner } = message;
  return (
    (inner.kind === 'voted' && inner.granted && !inner.pre) || (inner.kind === 'append' && inner.entries.length > 0)
  );
}

type Links = readonly (readonly [from: number, to: number])[];

function crossing(fault: Fault, nodes: number): Links {
  if (fault.links) return fault.links;
  const inside = new Set(fault.nodes);
  const links: [from: number, to: number][] = [];
  for (const from of fault.nodes) {
    for (let to = 0; to < nodes; to++) {
      if (inside.has(to)) continue;
      links.push([from, to]);
      if (fault.kind === 'split') links.push([to, from]);
    }
  }
  return links;
}

function pair(fault: Fault): Links {
  const [a, b] = fault.nodes;
  return a === undefined || b === undefined
    ? []
    : [
        [a, b],
        [b, a],
      ];
}
