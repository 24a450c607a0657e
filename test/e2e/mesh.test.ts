/** Real nodes in one mesh, real builds: what one built, the others do not build again. */
import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { describe, expect, test } from 'vitest';
import { type NodeProcess, startNode } from '../support/node-process.ts';
import { until } from '../support/until.ts';
import { type BazelRun, bazelVersions, openBazel } from './bazel.ts';
import { actionsMin } from './cpp-project.ts';

const buildTimeoutMs = 600_000;
const entry = fileURLToPath(new URL('../../node/main.ts', import.meta.url));
const alone = ['--mesh-discovery', 'off', '--mesh-listen', '127.0.0.1:0', '--mesh-data-listen', '127.0.0.1:0'];

async function potluck(...args: string[]): Promise<string> {
  const { stdout } = await promisify(execFile)(process.execPath, [entry, ...args]);
  return stdout;
}

interface SharingStatus {
  readonly sharing: {
    readonly receivedBytes: number;
    readonly receivedBlobs: number;
    readonly foundResults: number;
    readonly servedBytes: number;
  };
  readonly mesh: { readonly members: { readonly alive: number } };
}

const statusOf = async (node: NodeProcess): Promise<SharingStatus> => (await node.status()) as unknown as SharingStatus;

/** Invites `node` into the mesh of `host`, and waits until both see each other. */
async function join(host: NodeProcess, node: NodeProcess): Promise<void> {
  const invitation = JSON.parse(await potluck('invite', '--json', '--data-dir', host.dataDir)) as { token: string };
  await potluck('join', invitation.token, '--data-dir', node.dataDir);
  for (const one of [host, node]) await until(async () => (await statusOf(one)).mesh.members.alive > 0);
}

const flags = (grpc: string): string[] => [`--remote_cache=grpc://${grpc}`, '--spawn_strategy=local'];

function expectAllHits(run: BazelRun, node: NodeProcess): void {
  expect(run.exitCode, run.output).toBe(0);
  expect(run.processes['remote cache hit']).toBeGreaterThanOrEqual(actionsMin);
  const others = Object.keys(run.processes).filter((how) => how !== 'remote cache hit' && how !== 'internal');
  expect(others, `${run.output}\n${node.stderr()}`).toEqual([]);
}

// One version is enough to see that what goes through a node goes through its mesh; bazel.test.ts has them all.
const version = bazelVersions.findLast(({ missing }) => missing === undefined);
if (!version)
  console.warn(`not checked: ${bazelVersions.map(({ name, missing }) => `${name}: ${missing}`).join('; ')}`);

describe.skipIf(!version)('builds in a mesh', () => {
  test('a clean build is served by the node that built it, also when that one is killed in the middle of it', {
    timeout: buildTimeoutMs,
  }, async () => {
    if (!version) return;
    await using anna = await startNode({ args: alone });
    await using ben = await startNode({ args: alone });
    await join(anna, ben);
    await using bazel = await openBazel(version);

    const built = await bazel.run(['build', '//...', ...flags(anna.grpc)]);
    expect(built.exitCode, built.output).toBe(0);
    const outputs = await bazel.outputs();

    await bazel.run(['clean']);
    expectAllHits(await bazel.run(['build', '//...', ...flags(ben.grpc)]), ben);
    expect(await bazel.outputs()).toEqual(outputs);
    const { sharing } = await statusOf(ben);
    expect(sharing.foundResults).toBeGreaterThanOrEqual(actionsMin);
    expect(sharing.receivedBytes).toBeGreaterThan(10_000_000);
    const shown = (await potluck('status', '--http', ben.http)).replaceAll(/ +/g, ' ');
    expect(shown).toContain(`From others ${sharing.foundResults} action results, ${sharing.receivedBlobs} blobs`);
    expect(shown).toContain('To others 0 blobs');
    expect((await statusOf(anna)).sharing.servedBytes).toBeGreaterThanOrEqual(sharing.receivedBytes);

    await using cleo = await startNode({ args: alone });
    await join(anna, cleo);
    await bazel.run(['clean']);
    const interrupted = bazel.run(['build', '//...', ...flags(cleo.grpc)]);
    await until(async () => (await statusOf(cleo)).sharing.foundResults > 5);
    await anna.kill('SIGKILL');
    const { exitCode, output } = await interrupted;
    expect(exitCode, output).toBe(0);
    expect(await bazel.outputs()).toEqual(outputs);
  });
});
