/** What a scenario file may hold: every key with its meaning, unit and default. docs/scenarios.md has the same tables. */
import {
  duration,
  factor,
  flag,
  listOf,
  mapOf,
  nameOf,
  oneOf,
  type Reader,
  rate,
  record,
  type RecordReader,
  type Fields,
  share,
  size,
  spanOf,
  text,
  whole,
  type Spot,
} from './reader.ts';
import { isMap } from 'yaml';

const site = record('a site', {
  wired: { reader: rate, fallback: '1Gbit/s', about: 'bandwidth of each wired machine, each way' },
  wiredLatency: { reader: duration, fallback: '0.25ms', about: 'one way between two wired machines' },
  wifi: { reader: rate, fallback: '300Mbit/s', about: 'bandwidth of the Wi-Fi; everything on it shares it' },
  wifiLatency: { reader: duration, fallback: '3ms', about: 'one way over the Wi-Fi' },
});

const link = record('a link', {
  between: { reader: listOf(nameOf('a site')), about: 'the two sites, such as [office, ci]' },
  bandwidth: { reader: rate, fallback: '100Mbit/s', about: 'each way' },
  up: { reader: rate, optional: true, about: 'from the first site to the second, if it differs' },
  down: { reader: rate, optional: true, about: 'from the second site to the first, if it differs' },
  latency: { reader: duration, fallback: '15ms', about: 'one way' },
  loss: { reader: share, fallback: '0%', about: 'share of packets lost; it also slows transfers down' },
});

const ownerSpan = record('a part of an owner trace', {
  away: { reader: spanOf(duration), optional: true, about: 'the owner is away for so long: guests are welcome' },
  back: { reader: spanOf(duration), optional: true, about: 'the owner works at the machine for so long' },
});

const powerSpan = record('a part of a power trace', {
  mains: { reader: spanOf(duration), optional: true, about: 'plugged in for so long' },
  battery: { reader: spanOf(duration), optional: true, about: 'on battery for so long: no guests' },
});

const node = record('a node', {
  site: { reader: nameOf('a site'), about: 'where it is' },
  class: { reader: oneOf(['laptop', 'desktop', 'runner']), fallback: 'desktop', about: 'decides the defaults below' },
  count: { reader: whole(1, 1_000), fallback: '1', about: 'how many; from 2 on they are called name-1, name-2, …' },
  slots: { reader: whole(1, 256), optional: true, about: 'actions at once; laptop 4, desktop 8, runner 8' },
  speed: {
    reader: share,
    optional: true,
    about: 'of the machine that durations are given for; laptop 80%, others 100%',
  },
  network: { reader: oneOf(['wired', 'wifi']), optional: true, about: 'laptop wifi, others wired' },
  disk: { reader: size, fallback: '50GB', about: 'room for blobs' },
  owner: { reader: listOf(ownerSpan), fallback: '{away: 24h}', about: 'trace of its owner, repeated until the end' },
  power: { reader: listOf(powerSpan), fallback: '{mains: 24h}', about: 'trace of its power, repeated until the end' },
});

/** A distribution by its median and its 90th percentile. */
export interface Spread {
  readonly median: number;
  readonly p90: number;
}

/** `800ms`, or `{median: 800ms, p90: 4s}`. */
function spreadOf(inner: Reader<number>): Reader<Spread> {
  const both = record('a distribution', {
    median: { reader: inner, about: 'half of the values are smaller' },
    p90: { reader: inner, about: 'nine in ten are smaller' },
  });
  return {
    what: `${inner.what}, or {median: …, p90: …}`,
    read(spot: Spot) {
      if (!isMap(spot.node)) {
        const value = inner.read(spot);
        return { median: value, p90: value };
      }
      const { median, p90, place } = both.read(spot);
      return median <= p90 ? { median, p90 } : place.fail('the median is above the p90; it must not be');
    },
  };
}

const graph = record('a graph', {
  actions: { reader: whole(1, 20_000), fallback: '200', about: 'how many actions it has' },
  layers: { reader: whole(1, 20), fallback: '3', about: 'the first is the widest; each needs the one before' },
  fanOut: { reader: whole(1, 50), fallback: '3', about: 'actions of the next layer that use a result, about' },
  duration: { reader: spreadOf(duration), fallback: '{median: 800ms, p90: 4s}', about: 'run time of an action' },
  sources: { reader: spreadOf(size), fallback: '{median: 20kB, p90: 200kB}', about: "an action's own inputs" },
  shared: {
    reader: size,
    fallback: '20MB',
    about: 'inputs of all actions (headers, SDK); a machine fetches them once',
  },
  outputs: { reader: spreadOf(size), fallback: '{median: 100kB, p90: 1MB}', about: 'outputs of an action' },
  cacheable: { reader: share, fallback: '100%', about: 'share of the actions whose results may be kept' },
  profile: { reader: nameOf('a file'), optional: true, about: 'a Bazel profile to take the actions from' },
  executionLog: { reader: nameOf('a file'), optional: true, about: 'a Bazel execution log (JSON) to take them from' },
});

const build = record('a build', {
  node: { reader: nameOf('a node, a group or a site'), about: 'who builds; of a group or a site, each of them' },
  graph: { reader: nameOf('a graph'), about: 'what is built' },
  at: { reader: spanOf(duration), fallback: '0s', about: 'when; drawn for each node from a range' },
  repeat: { reader: whole(1, 1_000), fallback: '1', about: 'how often' },
  every: { reader: duration, fallback: '5m', about: 'from one repetition to the next' },
  changed: {
    reader: share,
    fallback: '0%',
    about: 'actions whose own sources differ from main; what needs them differs too',
  },
  revision: {
    reader: text,
    optional: true,
    about: 'builds of one revision have the same changes; otherwise each has its own',
  },
  jobs: { reader: whole(1, 10_000), fallback: '100', about: 'actions that the client has under way at once' },
});

export const faultKinds = [
  'linkCut',
  'linkSlow',
  'lidClosed',
  'pause',
  'crash',
  'leave',
  'diskLost',
  'blobsLost',
  'diskFull',
  'liar',
  'ownerBack',
] as const;
export type ScenarioFaultKind = (typeof faultKinds)[number];

const fault = record('a fault', {
  at: { reader: duration, about: 'when it begins' },
  fault: { reader: oneOf(faultKinds), about: 'what happens; see below' },
  nodes: { reader: listOf(nameOf('a node, a group or a site')), optional: true, about: 'whom it hits' },
  link: { reader: nameOf('a link'), optional: true, about: 'which link it hits' },
  for: { reader: spanOf(duration), fallback: '30s', about: 'how long; drawn for each node from a range' },
  goodbye: { reader: flag, fallback: 'true', about: 'lidClosed: whether the others are told' },
  bandwidth: { reader: rate, optional: true, about: 'linkSlow: what is left, each way' },
  latency: { reader: duration, optional: true, about: 'linkSlow: one way' },
  loss: { reader: share, optional: true, about: 'linkSlow: share of packets lost' },
});

const centralCache = record('a central cache', {
  site: { reader: nameOf('a site'), about: 'where the server stands' },
  bandwidth: { reader: rate, fallback: '1Gbit/s', about: "the server's own, each way" },
});

function bound<T>(inner: Reader<T>): RecordReader<{
  atLeast: { reader: Reader<T>; optional: true; about: string };
  atMost: { reader: Reader<T>; optional: true; about: string };
}> {
  return record(`a bound (atLeast, atMost; each ${inner.what})`, {
    atLeast: { reader: inner, optional: true, about: '' },
    atMost: { reader: inner, optional: true, about: '' },
  });
}

const expect = record('the expectations', {
  makespan: { reader: bound(duration), optional: true, about: 'from the first build’s start to the last one’s end' },
  buildTime: { reader: bound(duration), optional: true, about: 'mean time of a build' },
  speedup: { reader: bound(factor), optional: true, about: 'build time alone, divided by build time with the mesh' },
  speedupOverCache: {
    reader: bound(factor),
    optional: true,
    about: 'build time with the central cache, divided by that with the mesh',
  },
  hitRate: {
    reader: bound(share),
    optional: true,
    about: 'share of the actions asked for that nobody had to run for this request',
  },
  elsewhere: {
    reader: bound(share),
    optional: true,
    about: 'share of the runs that were on another machine than the client',
  },
  lostActions: {
    reader: bound(whole(0)),
    optional: true,
    about: 'failed, or never answered while the client was there',
  },
  duplicatedActions: {
    reader: bound(whole(0)),
    optional: true,
    about: 'runs to the end of what had already been run to the end',
  },
  recovery: {
    reader: bound(duration),
    optional: true,
    about: 'after any fault, until the last action that it interrupted was answered',
  },
  linkBytes: { reader: mapOf('links', bound(size)), fallback: '{}', about: 'bytes across a link, both ways together' },
});

const workload = record('a workload', {
  graphs: { reader: mapOf('graphs', graph), about: 'what can be built' },
  builds: { reader: listOf(build), about: 'who builds it, and when' },
});

export const scenarioSchema = record('a scenario', {
  title: { reader: text, about: 'one line, shown above the report' },
  about: { reader: text, fallback: '""', about: 'what is tried out, for readers of the report' },
  seed: { reader: whole(0, 4_294_967_295), fallback: '1', about: 'everything that is drawn is drawn from it' },
  limit: { reader: duration, fallback: '1h', about: 'the simulation ends at the latest after this' },
  warmUp: { reader: duration, fallback: '20s', about: 'before time 0: the mesh forms and nothing else happens' },
  shards: { reader: whole(1, 64), fallback: '8', about: 'of the mesh’s coordination' },
  sites: { reader: mapOf('sites', site), about: 'places with a local network' },
  links: { reader: mapOf('links', link), fallback: '{}', about: 'what connects the sites' },
  nodes: { reader: mapOf('nodes', node), about: 'machines, one or a group each' },
  workload: { reader: workload, about: 'what is built' },
  faults: { reader: listOf(fault), fallback: '[]', about: 'what goes wrong, in any order' },
  centralCache: {
    reader: centralCache,
    optional: true,
    about: 'a server to compare with; without it there is no comparison',
  },
  expect: { reader: expect, fallback: '{}', about: 'what must hold; exit status 1 when it does not' },
});

/** The parts of the schema by name, for the documentation. */
export const schemaParts: readonly { readonly name: string; readonly fields: Fields }[] = [
  { name: 'scenario', fields: scenarioSchema.fields },
  { name: 'site', fields: site.fields },
  { name: 'link', fields: link.fields },
  { name: 'node', fields: node.fields },
  { name: 'owner', fields: ownerSpan.fields },
  { name: 'power', fields: powerSpan.fields },
  { name: 'workload', fields: workload.fields },
  { name: 'graph', fields: graph.fields },
  { name: 'build', fields: build.fields },
  { name: 'fault', fields: fault.fields },
  { name: 'centralCache', fields: centralCache.fields },
  { name: 'expect', fields: expect.fields },
];
