import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { parseScenario } from '../../../../sim/scenarios/load.ts';
import { ScenarioError } from '../../../../sim/scenarios/reader.ts';

const good = `title: two desks
sites:
  office: {}
  ci: {}
links:
  uplink: { between: [office, ci], bandwidth: 50Mbit/s, up: 10Mbit/s }
nodes:
  desk: { site: office, count: 2 }
  laptop: { site: office, class: laptop }
  runner: { site: ci, class: runner, slots: 16 }
workload:
  graphs:
    app: { actions: 20 }
  builds:
    - { node: desk, graph: app, at: 0s..10s }
faults:
  - { at: 30s, fault: linkCut, link: uplink, for: 20s }
`;

test('groups become nodes, classes bring their defaults, and units become numbers', () => {
  const scenario = parseScenario('x.yaml', good);
  expect(scenario.nodes.map(({ name, slots, wired, speed }) => ({ name, slots, wired, speed }))).toEqual([
    { name: 'desk-1', slots: 8, wired: true, speed: 1 },
    { name: 'desk-2', slots: 8, wired: true, speed: 1 },
    { name: 'laptop', slots: 4, wired: false, speed: 0.8 },
    { name: 'runner', slots: 16, wired: true, speed: 1 },
  ]);
  expect(scenario.links[0]).toMatchObject({ from: 0, to: 1, up: 1_250_000, down: 6_250_000, latencyMs: 15, loss: 0 });
  expect(scenario.builds[0]).toMatchObject({ nodes: [0, 1], at: { from: 0, to: 10_000 }, changed: 0 });
  expect(scenario.faults[0]).toMatchObject({ atMs: 30_000, link: 0, target: 'uplink' });
});

describe('a mistake gets one message that names its line and says what would be right', () => {
  test.each<[what: string, from: string, to: string, message: RegExp]>([
    [
      'an unknown key',
      'bandwidth: 50',
      'bandwith: 50',
      /^x\.yaml:6:\d+: no such key "bandwith" in a link; did you mean "bandwidth"\?$/,
    ],
    [
      'a far-off key',
      'title: two',
      'zebra: 1\ntitle: two',
      /^x\.yaml:1:\d+: no such key "zebra" in a scenario; known are title, /,
    ],
    [
      'a bad unit',
      '50Mbit/s',
      '50Mbps',
      /^x\.yaml:6:\d+: "50Mbps" is here; it must be a bandwidth such as 50Mbit\/s, /,
    ],
    ['a number without a unit', 'at: 30s', 'at: 30', /^x\.yaml:17:\d+: "30" is here; it must be a duration such as /],
    [
      'a wrong word',
      'class: laptop',
      'class: labtop',
      /^x\.yaml:9:34: .* must be one of laptop, desktop, runner; did you mean "laptop"\?$/,
    ],
    [
      'an unknown site in a link',
      '[office, ci]',
      '[office, cii]',
      /^x\.yaml:6:\d+: there is no site "cii"; did you mean "ci"\?$/,
    ],
    [
      'an unknown site of a node',
      'site: ci,',
      'site: berlin,',
      /^x\.yaml:10:\d+: there is no site "berlin"; known are office, ci$/,
    ],
    [
      'a link to itself',
      '[office, ci]',
      '[office, office]',
      /^x\.yaml:6:\d+: the link "uplink" leads from "office" to itself/,
    ],
    [
      'an unknown node',
      'node: desk',
      'node: desks',
      /^x\.yaml:15:15: there is no node, group or site "desks"; did you mean "desk"\?$/,
    ],
    ['an unknown graph', 'graph: app,', 'graph: web,', /^x\.yaml:15:\d+: there is no graph "web"; known are app$/],
    [
      'a fault without its link',
      'fault: linkCut, link: uplink,',
      'fault: linkCut,',
      /^x\.yaml:17:\d+: linkCut needs the key "link"/,
    ],
    [
      'a fault that hits the wrong thing',
      'link: uplink, for',
      'link: uplink, nodes: desk, for',
      /linkCut hits a link, not nodes/,
    ],
    [
      'a range the wrong way round',
      '0s..10s',
      '10s..1s',
      /^x\.yaml:15:\d+: "10s\.\.1s" is here; the smaller one must come first$/,
    ],
    ['a missing key', 'title: two desks\n', '', /^x\.yaml:1:\d+: a scenario needs the key "title": a text$/],
    [
      'a list where a mapping is due',
      'office: {}',
      'office: [a]',
      /^x\.yaml:3:\d+: this list is here; it must be a site with wired, /,
    ],
    [
      'a site that nothing leads to',
      'links:\n  uplink: { between: [office, ci], bandwidth: 50Mbit/s, up: 10Mbit/s }\n',
      '',
      /no such|there is no link|no link leads from the site "office" to "ci"/,
    ],
    ['text that is no YAML', 'sites:\n', 'sites: {\n', /^x\.yaml:\d+:\d+: this is not YAML: /],
    [
      'an expectation of an unknown link',
      'faults:',
      'expect: { linkBytes: { vpn: { atMost: 1GB } } }\nfaults:',
      /there is no link "vpn"; known are uplink$/,
    ],
    [
      'a comparison with nothing',
      'faults:',
      'expect: { speedupOverCache: { atLeast: 1 } }\nfaults:',
      /speedupOverCache needs a centralCache/,
    ],
    [
      'a file that is not there',
      '{ actions: 20 }',
      '{ profile: gone.gz }',
      /^x\.yaml:13:\d+: gone\.gz cannot be read \(ENOENT\)$/,
    ],
  ])('%s', (_, from, to, message) => {
    expect(good).toContain(from);
    expect(() => parseScenario('x.yaml', good.replace(from, to))).toThrow(message);
  });
});

test('whatever is cut out of a scenario or typed into it, the answer is one line about the file', () => {
  const noise = [
    'null',
    '-',
    '[]',
    '{}',
    '&a',
    '*a',
    '<<: *a',
    '-1',
    '""',
    "'",
    '"',
    ':',
    '5%',
    '1..2',
    'a: b',
    '|',
    '#',
    '\t',
  ];
  const edit = fc.record({ at: fc.nat(good.length), cut: fc.nat(12), insert: fc.constantFrom('', ...noise) });
  fc.assert(
    fc.property(fc.array(edit, { minLength: 1, maxLength: 3 }), (edits) => {
      const text = edits.reduce((now, { at, cut, insert }) => now.slice(0, at) + insert + now.slice(at + cut), good);
      try {
        parseScenario('x.yaml', text);
      } catch (error) {
        expect(error).toBeInstanceOf(ScenarioError);
        expect((error as Error).message).toMatch(/^x\.yaml:\d+:\d+: [^\n]{1,400}$/);
      }
    }),
    { numRuns: 500 },
  );
});
