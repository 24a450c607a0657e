/** A real C++ build whose actions other machines run: the same bytes as a local one, also when one of them dies meanwhile. */
import { describe, expect, test } from 'vitest';
import { lends, openMachineMesh } from '../support/mesh.ts';
import { until } from '../support/until.ts';
import { bazelVersions, openBazel } from './bazel.ts';

const version = bazelVersions.find(({ missing }) => missing === undefined);
if (!version) console.warn(`not checked: builds that others run: ${bazelVersions[0]?.missing}`);

const buildTimeoutMs = 400_000;
/** Compiling, archives, linking, generated sources, a tree artifact. */
const targets = [...[0, 1, 2, 3, 4, 5].map((lib) => `//lib${lib}/...`), '//gen:header', '//gen:listing', '//gen:many'];
const killAfterActions = 3;

describe.skipIf(!version)('a C++ build in a mesh of three', () => {
  test('has the outputs of a local build, and loses a machine on the way', { timeout: buildTimeoutMs }, async () => {
    if (!version) return;
    await using mesh = await openMachineMesh({
      machines: {
        anna: ['--slots', '1', ...lends(0)],
        ben: ['--slots', '2', ...lends(2)],
        cora: ['--slots', '2', ...lends(2)],
      },
      where: 'loopback',
    });
    const [anna, ben] = [mesh.machine('anna'), mesh.machine('ben')];
    const ranOnPeers = () => anna.ranElsewhere();
    await using bazel = await openBazel(version);

    const local = await bazel.run(['build', ...targets, '--spawn_strategy=local']);
    expect(local.exitCode, local.output).toBe(0);
    const expected = await bazel.outputs();
    await bazel.run(['clean']);

    const executor = `--remote_executor=grpc://${anna.node().grpc}`;
    const remote = ['build', ...targets, '--spawn_strategy=remote', executor, '--jobs=12'];
    let isOver = false;
    const building = bazel.run(remote).finally(() => (isOver = true));
    await until(async () => isOver || (await ranOnPeers()) > killAfterActions, buildTimeoutMs);
    expect(isOver).toBe(false);
    await ben.node().kill();
    const { exitCode, output, processes } = await building;
    expect(exitCode, output).toBe(0);
    expect(await bazel.outputs()).toEqual(expected);
    const onPeers = await ranOnPeers();
    console.info(`${version.name}: ${onPeers} of ${processes.remote} actions ran on peers`);
    expect(onPeers).toBeGreaterThan(killAfterActions);
  });
});
