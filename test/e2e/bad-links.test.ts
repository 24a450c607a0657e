/**
 * Links that lose, delay, swallow or flap, and machines that move, freeze or die: a build through a node of the mesh
 * succeeds all the same, with the outputs of a build without (rule 6: a build never fails because of the mesh).
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { createMachine, type Machine } from '../support/machine.ts';
import { labMissing, type NetworkLab, openNetworkLab } from '../support/network-lab.ts';
import { until } from '../support/until.ts';
import { type Bazel, type BazelRun, bazelVersions, openBazel } from './bazel.ts';

const version = bazelVersions.find(({ missing }) => missing === undefined);
const missing = labMissing() ?? (version ? undefined : bazelVersions[0]?.missing);
if (missing) console.warn(`not checked: builds over bad links: ${missing}`);

const targets = ['//lib0', '//lib1', '//gen:header', '//gen:large'];
const flapMs = 1_500;
const caseTimeoutMs = 300_000;

describe.skipIf(missing !== undefined)('a build in a mesh with a bad link', () => {
  let lab: NetworkLab;
  let root: string;
  let bazel: Bazel;
  let anna: Machine;
  let expected: Map<string, string>;
  let guests = 0;
  const parts = new AsyncDisposableStack();

  beforeAll(async () => {
    if (!version) return;
    lab = parts.use(openNetworkLab({ office: ['anna'], home: ['ben'] }));
    root = await mkdtemp(join(tmpdir(), 'potluck-links-'));
    parts.defer(() => rm(root, { recursive: true, force: true }));
    anna = parts.use(createMachine({ name: 'anna', dataDir: join(root, 'anna'), lab }));
    await anna.up();
    await using annas = await openBazel(version, anna.prefix());
    const built = await annas.run(['build', ...targets, ...cached(anna)]);
    expect(built.exitCode, built.output).toBe(0);
    expected = await annas.outputs();
    bazel = parts.use(await openBazel(version, lab.host('ben').command('true').slice(0, -1)));
  }, caseTimeoutMs);
  afterAll(() => parts.disposeAsync(), 60_000);

  const cached = (machine: Machine): string[] => [
    '--spawn_strategy=local',
    `--remote_cache=grpc://${machine.node().grpc}`,
  ];

  /** A member on ben's machine that holds nothing yet and sees anna. */
  async function guest(): Promise<Machine> {
    guests += 1;
    const machine = createMachine({ name: `ben${guests}`, host: 'ben', dataDir: join(root, `ben${guests}`), lab });
    await machine.up();
    await machine.join(anna);
    await until(async () => (await machine.sees()) > 0);
    return machine;
  }

  async function buildOn(machine: Machine, ...flags: string[]): Promise<BazelRun> {
    const run = await bazel.run(['build', ...targets, ...cached(machine), ...flags]);
    expect(run.exitCode, run.output).toBe(0);
    return run;
  }

  async function expectSameOutputs(): Promise<void> {
    expect(await bazel.outputs()).toEqual(expected);
    await bazel.run(['clean']);
  }

  test('three packets of ten are lost', { timeout: caseTimeoutMs }, async () => {
    await using ben = await guest();
    for (const name of ['anna', 'ben']) lab.lose(name, 30);
    await buildOn(ben);
    for (const name of ['anna', 'ben']) lab.lose(name, 0);
    await expectSameOutputs();
  });

  test('one direction is silent', { timeout: caseTimeoutMs }, async () => {
    await using ben = await guest();
    lab.muteOneWay('anna', 'ben', true);
    await buildOn(ben);
    lab.muteOneWay('anna', 'ben', false);
    await expectSameOutputs();
  });

  test('the link comes and goes', { timeout: caseTimeoutMs }, async () => {
    await using ben = await guest();
    let isUp = true;
    const flapping = setInterval(() => lab.plug('anna', (isUp = !isUp)), flapMs);
    try {
      await buildOn(ben);
    } finally {
      clearInterval(flapping);
      lab.plug('anna', true);
    }
    await expectSameOutputs();
  });

  test('the holder gets another address', { timeout: caseTimeoutMs }, async () => {
    await using ben = await guest();
    lab.readdress('anna');
    await buildOn(ben);
    await expectSameOutputs();
  });

  test('the holder is frozen, and woken again', { timeout: caseTimeoutMs }, async () => {
    await using ben = await guest();
    anna.node().child.kill('SIGSTOP');
    try {
      await buildOn(ben);
    } finally {
      anna.node().child.kill('SIGCONT');
    }
    await expectSameOutputs();
    await until(async () => (await ben.sees()) > 0 && (await anna.sees()) > 0);
  });

  test('every packet takes 200 ms longer', { timeout: caseTimeoutMs }, async () => {
    await using ben = await guest();
    await lab.delay('office', 'home', 200);
    await buildOn(ben);
    await expectSameOutputs();
  });

  test('outputs were left where they are, and the only other holder dies', { timeout: caseTimeoutMs }, async () => {
    await using ben = await guest();
    const first = await buildOn(ben, '--remote_download_minimal');
    await anna.node().kill('SIGKILL');
    await bazel.run(['clean']);
    const second = await buildOn(ben);
    // What was promised is there: nothing of it runs again.
    const { 'remote cache hit': hits = 0 } = first.processes;
    expect(second.processes['remote cache hit']).toBeGreaterThanOrEqual(hits);
    await expectSameOutputs();
  });
});
