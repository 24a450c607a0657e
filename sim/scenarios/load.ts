/** From the text of a scenario file to a scenario whose names are all resolved. Everything wrong is a ScenarioError. */
import { readFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { readBazelGraph } from './bazel.ts';
import type { Graph } from './graph.ts';
import { failUnknown, type Named, readYaml, type Span, type ValueOf, ScenarioError } from './reader.ts';
import { scenarioSchema, type ScenarioFaultKind } from './schema.ts';

type File = ValueOf<typeof scenarioSchema>;
type GraphFile = File['workload']['graphs'] extends ReadonlyMap<string, infer G> ? G : never;
type NodeFile = File['nodes'] extends ReadonlyMap<string, infer N> ? N : never;

export type Site = File['sites'] extends ReadonlyMap<string, infer S> ? S : never;
export type Expectations = File['expect'];

export interface ScenarioLink {
  readonly name: string;
  readonly from: number;
  readonly to: number;
  /** Bytes a second from `from` to `to`, and back. */
  readonly up: number;
  readonly down: number;
  readonly latencyMs: number;
  readonly loss: number;
}

export interface ScenarioNode {
  readonly name: string;
  readonly site: number;
  readonly class: NodeFile['class'];
  readonly slots: number;
  /** Of the machine that durations are given for, 1 is equal. */
  readonly speed: number;
  readonly wired: boolean;
  readonly diskBytes: number;
  /** Alternating, drawn and repeated when the plan is made. */
  readonly owner: NodeFile['owner'];
  readonly power: NodeFile['power'];
}

export interface ScenarioBuild {
  readonly nodes: readonly number[];
  readonly graph: string;
  readonly at: Span;
  readonly repeat: number;
  readonly everyMs: number;
  readonly changed: number;
  readonly revision: string | undefined;
  readonly jobs: number;
}

export interface ScenarioFault {
  readonly kind: ScenarioFaultKind;
  readonly atMs: number;
  readonly for: Span;
  /** As the file names what it hits. */
  readonly target: string;
  /** Numbers of nodes. */
  readonly nodes: readonly number[];
  /** Number of a link. */
  readonly link: number | undefined;
  readonly goodbye: boolean;
  readonly bandwidth: number | undefined;
  readonly latencyMs: number | undefined;
  readonly loss: number | undefined;
}

/** A graph to draw, or one that was read. */
export type GraphSource = { readonly drawn: GraphFile } | { readonly read: Graph };

export interface Scenario {
  readonly title: string;
  readonly about: string;
  readonly seed: number;
  readonly limitMs: number;
  readonly warmUpMs: number;
  readonly shards: number;
  readonly sites: readonly (Site & { readonly name: string })[];
  readonly links: readonly ScenarioLink[];
  readonly nodes: readonly ScenarioNode[];
  readonly graphs: ReadonlyMap<string, GraphSource>;
  readonly builds: readonly ScenarioBuild[];
  readonly faults: readonly ScenarioFault[];
  readonly centralCache: { readonly site: number; readonly bandwidth: number } | undefined;
  readonly expect: Expectations;
}

const classDefaults = {
  laptop: { slots: 4, speed: 0.8, network: 'wifi' },
  desktop: { slots: 8, speed: 1, network: 'wired' },
  runner: { slots: 8, speed: 1, network: 'wired' },
} as const;

/** Machines in one scenario; a run of more would not end within minutes. */
const nodesMax = 1_000;

export function loadScenario(path: string): Scenario {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    throw new ScenarioError(`${path}: cannot be read (${(error as NodeJS.ErrnoException).code ?? String(error)})`);
  }
  return parseScenario(path, text);
}

/** `path` is for messages, and for the files that the scenario names. */
export function parseScenario(path: string, text: string): Scenario {
  const file = readYaml(path, text, scenarioSchema);
  const siteNames = [...file.sites.keys()];
  const linkNames = [...file.links.keys()];
  const indexOf = (named: Named, kind: string, known: readonly string[]): number => {
    const index = known.indexOf(named.name);
    return index >= 0 ? index : failUnknown(named, kind, known);
  };
  if (siteNames.length === 0) file.place.fail('a scenario needs at least one site');

  const links = [...file.links].map(([name, link]): ScenarioLink => {
    const [a, b, ...others] = link.between;
    if (!a || !b || others.length > 0)
      return link.place.fail(`the link "${name}" must be between two sites, such as [office, ci]`);
    const [from, to] = [indexOf(a, 'site', siteNames), indexOf(b, 'site', siteNames)];
    if (from === to)
      return b.place.fail(`the link "${name}" leads from "${b.name}" to itself; it must be between two sites`);
    const { bandwidth, up = bandwidth, down = bandwidth, latency: latencyMs, loss } = link;
    return { name, from, to, up, down, latencyMs, loss };
  });

  const nodes: ScenarioNode[] = [];
  /** Names of nodes, groups and sites, and the numbers of the nodes that they stand for. */
  const members = new Map<string, number[]>();
  for (const [group, node] of file.nodes) {
    if (siteNames.includes(group))
      node.place.fail(`"${group}" is the name of a site already; name the nodes otherwise`);
    const defaults = classDefaults[node.class];
    const numbers: number[] = [];
    for (let i = 1; i <= node.count; i++) {
      const name = node.count === 1 ? group : `${group}-${i}`;
      if (i > 1 || node.count > 1) members.set(name, [nodes.length]);
      numbers.push(nodes.length);
      nodes.push({
        name,
        site: indexOf(node.site, 'site', siteNames),
        class: node.class,
        slots: node.slots ?? defaults.slots,
        speed: node.speed ?? defaults.speed,
        wired: (node.network ?? defaults.network) === 'wired',
        diskBytes: node.disk,
        owner: node.owner,
        power: node.power,
      });
      if (node.speed !== undefined && node.speed < 0.01) node.place.fail('the speed of a node must be at least 1%');
    }
    members.set(group, numbers);
  }
  if (nodes.length === 0) file.place.fail('a scenario needs at least one node');
  if (nodes.length > nodesMax) file.place.fail(`there are ${nodes.length} nodes; at most ${nodesMax} can be simulated`);
  for (const [index, name] of siteNames.entries()) {
    members.set(
      name,
      nodes.flatMap((node, number) => (node.site === index ? [number] : [])),
    );
  }
  const nodesOf = (named: Named, kind: string): readonly number[] =>
    members.get(named.name) ?? failUnknown(named, kind, [...members.keys()]);

  const graphs = new Map([...file.workload.graphs].map(([name, graph]) => [name, sourceOf(path, graph)]));
  const builds = file.workload.builds.map((build): ScenarioBuild => {
    if (!graphs.has(build.graph.name)) failUnknown(build.graph, 'graph', [...graphs.keys()]);
    return {
      nodes: nodesOf(build.node, 'node, group or site'),
      graph: build.graph.name,
      at: build.at,
      repeat: build.repeat,
      everyMs: build.every,
      changed: build.changed,
      revision: build.revision,
      jobs: build.jobs,
    };
  });
  if (builds.length === 0) file.workload.place.fail('a workload needs at least one build');

  const faults = file.faults.map((fault): ScenarioFault => {
    const onLink = fault.fault === 'linkCut' || fault.fault === 'linkSlow';
    if (onLink && !fault.link) fault.place.fail(`${fault.fault} needs the key "link": the name of a link`);
    if (!onLink && !fault.nodes)
      fault.place.fail(`${fault.fault} needs the key "nodes": names of nodes, groups or sites`);
    if (onLink && fault.nodes) fault.place.fail(`${fault.fault} hits a link, not nodes; leave "nodes" out`);
    if (!onLink && fault.link) fault.place.fail(`${fault.fault} hits nodes, not a link; leave "link" out`);
    if (onLink && fault.for.from !== fault.for.to)
      fault.place.fail(`${fault.fault} hits one link: "for" must be one duration, not a range`);
    const slow = fault.bandwidth ?? fault.latency ?? fault.loss;
    if (fault.fault === 'linkSlow' && slow === undefined)
      fault.place.fail('linkSlow needs a bandwidth, a latency or a loss');
    if (fault.fault !== 'linkSlow' && slow !== undefined)
      fault.place.fail('bandwidth, latency and loss are for linkSlow');
    return {
      kind: fault.fault,
      atMs: fault.at,
      for: fault.for,
      target: (fault.link ? [fault.link] : (fault.nodes ?? [])).map(({ name }) => name).join(', '),
      nodes: [...new Set((fault.nodes ?? []).flatMap((named) => nodesOf(named, 'node, group or site')))],
      link: fault.link && indexOf(fault.link, 'link', linkNames),
      goodbye: fault.goodbye,
      bandwidth: fault.bandwidth,
      latencyMs: fault.latency,
      loss: fault.loss,
    };
  });

  for (const name of file.expect.linkBytes.keys()) {
    const { place } = file.expect.linkBytes.get(name) as { place: Named['place'] };
    if (!linkNames.includes(name)) failUnknown({ name, place }, 'link', linkNames);
  }
  if (file.expect.speedupOverCache && !file.centralCache) {
    file.expect.speedupOverCache.place.fail('speedupOverCache needs a centralCache to compare with');
  }
  const connected = reachable(links, siteNames.length, (nodes[0] as ScenarioNode).site);
  for (const [index, name] of siteNames.entries()) {
    const used = nodes.some((node) => node.site === index);
    if (used && !connected.has(index)) {
      const first = siteNames[(nodes[0] as ScenarioNode).site];
      file.sites.get(name)?.place.fail(`no link leads from the site "${first}" to "${name}"; add one under "links"`);
    }
  }
  return {
    title: file.title,
    about: file.about,
    seed: file.seed,
    limitMs: file.limit,
    warmUpMs: file.warmUp,
    shards: file.shards,
    sites: [...file.sites].map(([name, site]) => ({ ...site, name })),
    links,
    nodes,
    graphs,
    builds,
    faults,
    centralCache: file.centralCache && {
      site: indexOf(file.centralCache.site, 'site', siteNames),
      bandwidth: file.centralCache.bandwidth,
    },
    expect: file.expect,
  };
}

function sourceOf(path: string, graph: GraphFile): GraphSource {
  const { profile, executionLog } = graph;
  const named = executionLog ?? profile;
  if (!named) return { drawn: graph };
  const read = (file: Named | undefined): Buffer | undefined => {
    if (!file) return undefined;
    try {
      return readFileSync(resolve(dirname(path), file.name));
    } catch (error) {
      return file.place.fail(`${file.name} cannot be read (${(error as NodeJS.ErrnoException).code ?? String(error)})`);
    }
  };
  try {
    return { read: readBazelGraph({ profile: read(profile), executionLog: read(executionLog) }, graph) };
  } catch (error) {
    if (error instanceof ScenarioError) throw error;
    return named.place.fail(`${named.name}: ${error instanceof Error ? error.message : String(error)}`);
  }
}

function reachable(links: readonly ScenarioLink[], sites: number, from: number): Set<number> {
  const found = new Set([from]);
  for (let round = 0; round < sites; round++) {
    for (const link of links) {
      if (found.has(link.from)) found.add(link.to);
      if (found.has(link.to)) found.add(link.from);
    }
  }
  return found;
}
