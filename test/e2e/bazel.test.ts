/** Real Bazel builds a real C++ project through a real node: executed, then cached, then with the cache alone. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { until } from '../support/until.ts';
import { startNode } from '../support/node-process.ts';
import { type BazelRun, bazelVersions, openBazel } from './bazel.ts';
import { actionsMin } from './cpp-project.ts';

const buildTimeoutMs = 600_000;
const local = ['--spawn_strategy=local', '--strategy=TestRunner=local'];
const remote = (address: string) => [
  '--spawn_strategy=remote',
  `--remote_executor=grpc://${address}`,
  '--remote_timeout=60',
];
const cacheOnly = (address: string) => [...local, `--remote_cache=grpc://${address}`];

/** Every spawn was answered by the cache. */
function expectAllHits(run: BazelRun): void {
  expect(run.output).toContain('Build completed successfully');
  expect(run.processes['remote cache hit']).toBeGreaterThanOrEqual(actionsMin);
  const others = Object.keys(run.processes).filter((how) => how !== 'remote cache hit' && how !== 'internal');
  expect(others, run.output).toEqual([]);
}

for (const version of bazelVersions) {
  if (version.missing) console.warn(`not checked: ${version.name}: ${version.missing}`);
  describe.skipIf(version.missing !== undefined)(version.name, () => {
    test('builds and tests a C++ project remotely, then entirely from the cache, as a local build would', {
      timeout: buildTimeoutMs,
    }, async () => {
      await using node = await startNode();
      await using bazel = await openBazel(version);

      const built = await bazel.run(['test', '//...', ...remote(node.grpc)]);
      expect(built.exitCode, built.output).toBe(0);
      expect(built.processes.remote).toBeGreaterThanOrEqual(actionsMin);
      const executed = await bazel.outputs();

      await bazel.run(['clean']);
      const again = await bazel.run(['test', '//...', ...remote(node.grpc)]);
      expect(again.exitCode, again.output).toBe(0);
      expectAllHits(again);
      expect(await bazel.outputs()).toEqual(executed);

      await bazel.run(['clean']);
      const locally = await bazel.run(['test', '//...', ...local]);
      expect(locally.exitCode, locally.output).toBe(0);
      expect(executed.size).toBeGreaterThanOrEqual(actionsMin);
      expect(executed).toEqual(await bazel.outputs());
    });

    test('uses the node as a cache alone, under an instance name of two segments', {
      timeout: buildTimeoutMs,
    }, async () => {
      await using node = await startNode();
      await using bazel = await openBazel(version);
      const flags = [...cacheOnly(node.grpc), '--remote_instance_name=office/linux'];
      const first = await bazel.run(['test', '//...', ...flags]);
      expect(first.exitCode, first.output).toBe(0);
      await bazel.run(['clean']);
      const second = await bazel.run(['test', '//...', ...flags]);
      expect(second.exitCode, second.output).toBe(0);
      expectAllHits(second);
    });

    test('uses the node as a cache over HTTP, under an instance name', { timeout: buildTimeoutMs }, async () => {
      await using node = await startNode();
      await using bazel = await openBazel(version);
      const flags = ['build', '//lib0', ...local, `--remote_cache=http://${node.http}/office`];
      const first = await bazel.run(flags);
      expect(first.exitCode, first.output).toBe(0);
      expect(first.processes.local).toBeGreaterThan(0);
      await bazel.run(['clean']);
      const second = await bazel.run(flags);
      expect(second.exitCode, second.output).toBe(0);
      const { local: built, ...others } = first.processes;
      expect(second.processes, second.output).toEqual({ ...others, 'remote cache hit': built });
    });

    test('survives the node being killed and started again in the middle of a build', {
      timeout: buildTimeoutMs,
    }, async () => {
      const dataDir = await mkdtemp(join(tmpdir(), 'potluck-killed-'));
      try {
        await using bazel = await openBazel(version);
        await using first = await startNode({ dataDir });
        const build = bazel.run(['build', '//...', ...remote(first.grpc), '--remote_retries=12']);
        await until(async () => (await first.metric('potluck_action_results')) >= 20);
        await first.kill('SIGKILL');
        await using second = await startNode({ dataDir, listen: first.grpc });
        const built = await build;
        expect(built.exitCode, built.output).toBe(0);
        expect(await second.stop()).toBe(0);
      } finally {
        await rm(dataDir, { recursive: true, force: true });
      }
    });

    test('with a cache of half the size of one build, builds or says that the cache is too small', {
      timeout: buildTimeoutMs,
    }, async () => {
      await using bazel = await openBazel(version);
      let bytes = 0;
      {
        await using roomy = await startNode();
        const built = await bazel.run(['build', '//...', ...remote(roomy.grpc)]);
        expect(built.exitCode, built.output).toBe(0);
        bytes = await roomy.metric('potluck_store_bytes');
        expect(bytes).toBeGreaterThan(20_000_000);
        await bazel.run(['clean']);
      }
      await using tight = await startNode({ args: ['--cache-size', String(Math.floor(bytes / 2))] });
      const built = await bazel.run(['build', '//...', ...remote(tight.grpc)]);
      if (built.exitCode !== 0) expect(built.output).toContain('--cache-size');
      expect(await tight.metric('potluck_store_bytes')).toBeLessThanOrEqual(bytes / 2);
      // The node still serves: something small fits.
      await bazel.run(['clean']);
      const small = await bazel.run(['build', '//lib0', ...remote(tight.grpc)]);
      expect(small.exitCode, small.output).toBe(0);
    });
  });
}
