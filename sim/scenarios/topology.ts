/**
 * The network that a scenario describes: machines on the wired ports or the Wi-Fi of their sites, and links between sites.
 * Partitions, addresses and loss of messages are those of the simulator's network; bytes share what they cross.
 */
import type { Rng } from '../../mesh/core/rng.ts';
import type { Engine } from '../engine.ts';
import { createNetwork, type Network } from '../network.ts';
import { type Channel, createChannel, createFlows, type Flows } from './flows.ts';
import type { Scenario, ScenarioNode } from './load.ts';

/** What a connection sends before it waits, in bytes, for the bound that loss sets to its speed (Mathis et al., 1997). */
const segmentBytes = 1_460;
/** Of the plain latency, in percent, drawn with equal chance: most are near it, one in eight is twice as long. */
const jitterPercent = [90, 95, 100, 100, 105, 110, 130, 200];

interface LinkState {
  readonly up: Channel;
  readonly down: Channel;
  latencyUs: number;
  loss: number;
}

/** What a transfer or a message crosses, in order. */
interface Route {
  readonly channels: readonly Channel[];
  readonly links: readonly LinkState[];
  readonly localUs: number;
}

export interface Topology {
  network(engine: Engine, rng: Rng): Network;
  /** Of each link of the scenario, both directions. */
  readonly links: readonly { readonly up: Channel; readonly down: Channel }[];
  flows(): Flows;
  /** The machine fell silent: what it sends and gets goes no further. */
  silent(node: number): void;
  /** Schedules the times at which links are slow; `network` does so by itself. */
  slowLinks(engine: Engine, flows: Flows): void;
  /** Where a server of a site with this port stands, for a model of a central cache: what lies between it and a node. */
  serverRoute(site: number, port: { readonly up: Channel; readonly down: Channel }, node: number): ServerRoute;
}

export interface ServerRoute {
  readonly toServer: readonly Channel[];
  readonly fromServer: readonly Channel[];
  latencyUs(): number;
  limitBytesPerUs(): number;
  /** Numbers of the links between. */
  readonly crossed: readonly number[];
}

export function createTopology(scenario: Scenario, nodes: readonly ScenarioNode[]): Topology {
  const links: LinkState[] = scenario.links.map((link) => ({
    up: createChannel(`${link.name} up`, link.up),
    down: createChannel(`${link.name} down`, link.down),
    latencyUs: Math.round(link.latencyMs * 1_000),
    loss: link.loss,
  }));
  const wifi = scenario.sites.map((site) => createChannel(`${site.name} Wi-Fi`, site.wifi));
  const ports = nodes.map((node) => {
    const { wired } = scenario.sites[node.site] as Scenario['sites'][number];
    return { up: createChannel(`${node.name} up`, wired), down: createChannel(`${node.name} down`, wired) };
  });
  const crossings = scenario.sites.map((_, from) => scenario.sites.map((__, to) => waysBetween(scenario, from, to)));
  const routes = new Map<number, Route>();
  let flows: Flows | undefined;
  const underWay = new Set<{ readonly from: number; readonly to: number; stop(): void }>();

  /** A Wi-Fi is one medium: what goes from one machine on it to another crosses it twice. */
  function channelsOf(node: number, direction: 'up' | 'down'): Channel {
    const { wired, site } = nodes[node] as ScenarioNode;
    return wired ? (ports[node] as { up: Channel; down: Channel })[direction] : (wifi[site] as Channel);
  }

  function localUs(node: number): number {
    const { wired, site } = nodes[node] as ScenarioNode;
    const { wiredLatency, wifiLatency } = scenario.sites[site] as Scenario['sites'][number];
    return Math.round((wired ? wiredLatency : wifiLatency) * 1_000);
  }

  function ways(from: number, to: number): { readonly index: number; readonly direction: 'up' | 'down' }[] {
    return crossings[from]?.[to] ?? [];
  }

  function routeOf(from: number, to: number): Route {
    const id = from * nodes.length + to;
    let route = routes.get(id);
    if (!route) {
      const between = ways((nodes[from] as ScenarioNode).site, (nodes[to] as ScenarioNode).site);
      route = {
        channels: [
          channelsOf(from, 'up'),
          ...between.map(({ index, direction }) => (links[index] as LinkState)[direction]),
          channelsOf(to, 'down'),
        ],
        links: between.map(({ index }) => links[index] as LinkState),
        // Each of the two ends adds half of its own site's way.
        localUs: (localUs(from) + localUs(to)) >> 1,
      };
      routes.set(id, route);
    }
    return route;
  }

  function latencyOf(localPartUs: number, crossed: readonly LinkState[]): number {
    return crossed.reduce((sum, { latencyUs }) => sum + latencyUs, localPartUs);
  }

  /** Bytes a microsecond that loss leaves one connection. */
  function limitOf(latencyUs: number, crossed: readonly LinkState[]): number {
    const loss = crossed.reduce((sum, link) => sum + link.loss, 0);
    return loss === 0 ? Number.POSITIVE_INFINITY : (segmentBytes * 1.22) / (2 * latencyUs * Math.sqrt(loss));
  }

  /** What crosses from one to the other goes no further; who waits for it notices that. */
  function breakOff(from: number | undefined, to: number | undefined): void {
    for (const one of underWay) {
      if ((from === undefined || one.from === from) && (to === undefined || one.to === to)) one.stop();
    }
  }

  function silent(node: number): void {
    breakOff(node, undefined);
    breakOff(undefined, node);
  }

  /** Links that are slow for a while: what a `linkSlow` sets, and back. */
  function slowLinks(engine: Engine, on: Flows): void {
    for (const fault of scenario.faults) {
      if (fault.kind !== 'linkSlow') continue;
      const link = links[fault.link as number] as LinkState;
      const { up, down, latencyMs, loss } = scenario.links[fault.link as number] as Scenario['links'][number];
      const set = (to: { up: number; down: number; latencyMs: number; loss: number }): void => {
        on.settle();
        link.up.bytesPerUs = to.up / 1e6;
        link.down.bytesPerUs = to.down / 1e6;
        link.latencyUs = Math.round(to.latencyMs * 1_000);
        link.loss = to.loss;
        on.changed();
      };
      const atUs = (scenario.warmUpMs + fault.atMs) * 1_000;
      engine.at(atUs, () =>
        set({
          up: fault.bandwidth ?? up,
          down: fault.bandwidth ?? down,
          latencyMs: fault.latencyMs ?? latencyMs,
          loss: fault.loss ?? loss,
        }),
      );
      engine.at(atUs + fault.for.from * 1_000, () => set({ up, down, latencyMs, loss }));
    }
  }

  function network(engine: Engine, rng: Rng): Network {
    const tables = new Map<number, number[]>();
    const lossRng = rng.fork('loss');
    const running = (flows = createFlows(engine));
    const base = createNetwork(engine, rng, nodes.length, {
      lossPerMillion: 0,
      duplicatePerMillion: 0,
      stragglePerMillion: 0,
      classOf: () => 'wired',
      latenciesUs(from, to) {
        const { localUs: local, links: crossed } = routeOf(from, to);
        const latencyUs = latencyOf(local, crossed);
        let table = tables.get(latencyUs);
        if (!table)
          tables.set(latencyUs, (table = jitterPercent.map((percent) => Math.trunc((latencyUs * percent) / 100))));
        return table;
      },
    });

    slowLinks(engine, running);

    return {
      ...base,
      send(from, to, arrive) {
        const { links: crossed } = routeOf(from, to);
        const loss = crossed.length === 0 ? 0 : crossed.reduce((sum, link) => sum + link.loss, 0);
        if (loss > 0 && lossRng.chance(Math.round(loss * 1e6))) {
          base.counts.sent += 1;
          base.counts.lost += 1;
        } else base.send(from, to, arrive);
      },
      flow(from, to, bytes, done) {
        const route = routeOf(from, to);
        const limitBytesPerUs = limitOf(latencyOf(route.localUs, route.links), route.links);
        const flow = running.start({
          path: route.channels,
          sizeBytes: bytes,
          limitBytesPerUs,
          done() {
            underWay.delete(entry);
            base.counts.bytes += bytes;
            done();
          },
        });
        const entry = {
          from,
          to,
          receivedBytes: flow.receivedBytes,
          stop() {
            underWay.delete(entry);
            flow.stop();
          },
        };
        underWay.add(entry);
        return entry;
      },
      block(from, to, blocked) {
        base.block(from, to, blocked);
        if (blocked) breakOff(from, to);
      },
      reset(a, b) {
        base.reset(a, b);
        breakOff(a, b);
        breakOff(b, a);
      },
      moved(node) {
        base.moved(node);
        silent(node);
      },
    };
  }

  return {
    network,
    links,
    flows: () => flows as Flows,
    silent,
    slowLinks,
    serverRoute(site, port, node) {
      const between = ways((nodes[node] as ScenarioNode).site, site);
      const crossed = between.map(({ index }) => links[index] as LinkState);
      const latencyUs = (): number => latencyOf(localUs(node), crossed);
      const upward = between.map(({ index, direction }) => (links[index] as LinkState)[direction]);
      const downward = between.map(
        ({ index, direction }) => (links[index] as LinkState)[direction === 'up' ? 'down' : 'up'],
      );
      return {
        toServer: [channelsOf(node, 'up'), ...upward, port.down],
        fromServer: [port.up, ...downward.reverse(), channelsOf(node, 'down')],
        latencyUs,
        limitBytesPerUs: () => limitOf(latencyUs(), crossed),
        crossed: between.map(({ index }) => index),
      };
    },
  };
}

/** The fewest links from one site to another, by breadth-first search. */
export function waysBetween(
  scenario: Pick<Scenario, 'links' | 'sites'>,
  from: number,
  to: number,
): { readonly index: number; readonly direction: 'up' | 'down' }[] {
  const ways = new Map<number, { readonly index: number; readonly direction: 'up' | 'down' }[]>([[from, []]]);
  for (const [site, way] of ways) {
    for (const [index, link] of scenario.links.entries()) {
      if (link.from === site && !ways.has(link.to)) ways.set(link.to, [...way, { index, direction: 'up' }]);
      if (link.to === site && !ways.has(link.from)) ways.set(link.from, [...way, { index, direction: 'down' }]);
    }
  }
  return ways.get(to) ?? [];
}
