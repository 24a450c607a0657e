import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { readBazelGraph } from '../../../../sim/scenarios/bazel.ts';
import { parseScenario } from '../../../../sim/scenarios/load.ts';
import { runScenario } from '../../../../sim/scenarios/run.ts';

/** 35 genrules that sleep, in four layers, built by Bazel 4.2.3 with four jobs; events and fields that are not read were cut. */
const fixtures = new URL('fixtures/', import.meta.url);
const profile = readFileSync(new URL('genrules.profile.gz', fixtures));
const executionLog = readFileSync(new URL('genrules.exec.json.gz', fixtures));
const model = { shared: 7, sources: { median: 5, p90: 5 }, outputs: { median: 6, p90: 6 } };
const name = (rule: string): string => `Executing genrule //:${rule}`;

test('log and profile together give times, needs and sizes', () => {
  const { actions, sharedBytes } = readBazelGraph({ profile, executionLog }, model);
  expect(actions).toHaveLength(35);
  // The set-up script of genrules is the input of all of them.
  expect(sharedBytes).toBe(858);
  const last = actions.find((action) => action.name === name('d'));
  expect(last?.needs.map((need) => actions[need]?.name).sort()).toEqual([name('c0'), name('c1')]);
  expect(last?.durationMs).toBeGreaterThan(1_200);
  expect(last?.durationMs).toBeLessThan(1_600);
  expect(last?.outputBytes).toBe(173_986);
  expect(actions.every(({ needs }, number) => needs.every((need) => need < number))).toBe(true);
});

test('a profile alone guesses needs from who began when a job was free', () => {
  const { actions, sharedBytes } = readBazelGraph({ profile, executionLog: undefined }, model);
  expect(actions).toHaveLength(35);
  expect(sharedBytes).toBe(7);
  const last = actions.find((action) => action.name === name('d'));
  const needs = last?.needs.map((need) => actions[need]?.name) ?? [];
  expect(needs.every((need) => need === name('c0') || need === name('c1'))).toBe(true);
  expect(needs.length).toBeGreaterThan(0);
});

describe('the fixture predicts how long Bazel takes with other numbers of jobs, within a fifth', () => {
  // From the first action's start to the last one's end, in the profiles of three real builds (docs/performance.md).
  test.each([
    [1, 45_650],
    [2, 22_887],
    [4, 13_052],
  ])('%i jobs', (slots, measuredMs) => {
    for (const source of [
      'profile: genrules.profile.gz, executionLog: genrules.exec.json.gz',
      'profile: genrules.profile.gz',
    ]) {
      const text = `title: a real build
sites: { here: {} }
nodes: { machine: { site: here, slots: ${slots} } }
workload:
  graphs: { real: { ${source} } }
  builds: [{ node: machine, graph: real, jobs: ${slots} }]
`;
      const { result } = runScenario(parseScenario(fileURLToPath(new URL('x.yaml', fixtures)), text));
      expect(result.mesh.makespanMs).toBeGreaterThan(measuredMs * 0.8);
      expect(result.mesh.makespanMs).toBeLessThan(measuredMs * 1.2);
    }
  });
});

test.each<[what: string, files: Partial<Record<'profile' | 'executionLog', string>>, message: RegExp]>([
  ['a profile that is cut', { profile: '{"traceEvents":[' }, /not JSON/],
  ['another JSON file', { profile: '{"a":1}' }, /no traceEvents/],
  ['a build that ran nothing', { profile: '{"traceEvents":[]}' }, /no actions/],
  [
    'a log without times',
    { executionLog: '{"listedOutputs":["a"],"progressMessage":"A"}' },
    /no run times; give the profile/,
  ],
  ['a log that is none', { executionLog: '{"a":1}' }, /no execution log/],
])('%s is refused with a sentence', (_, files, message) => {
  const bytes = (text: string | undefined): Buffer | undefined => (text === undefined ? undefined : Buffer.from(text));
  expect(() =>
    readBazelGraph({ profile: bytes(files.profile), executionLog: bytes(files.executionLog) }, model),
  ).toThrow(message);
});

test('a log with times needs no profile, and files of an output directory have its maker', () => {
  const spawns = [
    {
      listedOutputs: ['out/tree'],
      progressMessage: 'A',
      walltime: '1.500s',
      inputs: [{ path: 'src', digest: { sizeBytes: '10' } }],
    },
    {
      listedOutputs: ['out/b'],
      progressMessage: 'B',
      metrics: { totalTime: '0.250s', executionWallTime: '0.200s' },
      inputs: [{ path: 'out/tree/x', digest: { sizeBytes: '3' } }],
    },
  ];
  const text = spawns.map((spawn) => JSON.stringify(spawn, undefined, 2)).join('');
  const { actions } = readBazelGraph({ profile: undefined, executionLog: Buffer.from(text) }, model);
  expect(actions.map(({ durationMs, needs, sourceBytes }) => ({ durationMs, needs, sourceBytes }))).toEqual([
    { durationMs: 1_500, needs: [], sourceBytes: 10 },
    { durationMs: 250, needs: [0], sourceBytes: 0 },
  ]);
});
