/** Whole nodes in this process that are one mesh on loopback, with clients. */
import { chmod, mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join as joinPath } from 'node:path';
import { join } from '../../../mesh/net/admission/joining.ts';
import { openIdentity } from '../../../mesh/net/identity/identity.ts';
import { foundMesh, invite } from '../../../mesh/net/identity/issuer.ts';
import type { NodeConfig } from '../../../node/config/config.ts';
import { until } from '../../support/until.ts';
import { openNode, type TestNode } from '../node/fixture.ts';

export interface OfficeNode extends TestNode {
  readonly peerId: string;
  /** What it told its operator. */
  readonly log: readonly string[];
  /** The node is gone: the others are not told. */
  stop(): Promise<void>;
}

export interface Office extends AsyncDisposable {
  readonly nodes: readonly OfficeNode[];
  /** Makes a directory that of a further member, once; returns where the first node is reached. */
  admit(dataDir: string): Promise<string>;
}

/** What a node has for itself, and what it lends. */
export interface Desk extends Partial<Omit<NodeConfig, 'mesh' | 'dataDir'>> {
  readonly lends?: number;
  readonly trust?: 'members' | 'publishers' | 'self';
}

/** Resolves when every node sees every other alive, and what it lends. */
export async function openOffice(...desks: readonly Desk[]): Promise<Office> {
  await using parts = new AsyncDisposableStack();
  const dirs = await Promise.all(desks.map(() => mkdtemp(joinPath(tmpdir(), 'potluck-office-'))));
  parts.defer(() =>
    Promise.all(dirs.map((dir) => rm(dir, { recursive: true, force: true, maxRetries: 5 }))).then(() => {}),
  );
  const [first = ''] = dirs;
  foundMesh({ dataDir: first, name: 'founder', nowMs: Date.now() });
  // With invitations out it is awake from its start.
  const founder = openIdentity({ dataDir: first });
  if (!founder) throw new Error('no identity');
  const tokens = [...desks, undefined].map(() => invite(founder, { ttlMs: 300_000, roles: ['executor'] }));
  const admit = async (at: number, dataDir: string): Promise<string> => {
    const { secret, notAfterMs } = tokens[at] as (typeof tokens)[number];
    const [address = ''] = nodes[0]?.node.status().mesh?.addresses ?? [];
    const token = { secret, notAfterMs, addresses: [address], meshId: founder.mesh.id, issuer: founder.peerId };
    await join(token, { dataDir, name: `desk ${at}` });
    return address;
  };
  const nodes: OfficeNode[] = [];
  for (const [at, { lends = 0, trust = 'members', ...config }] of desks.entries()) {
    const dataDir = dirs[at] as string;
    const bootstrap = nodes.flatMap(({ node }) => node.status().mesh?.addresses ?? []);
    if (at > 0) await admit(at, dataDir);
    await chmod(dataDir, 0o755);
    const log: string[] = [];
    const node = await openNode(
      {
        slots: 1,
        ...config,
        dataDir,
        mesh: {
          listen: '127.0.0.1:0',
          dataListen: '127.0.0.1:0',
          bootstrap,
          site: 'office',
          discovery: false,
          trust,
          uploadBytesPerSecond: undefined,
          replicas: 1,
          lend: { when: lends > 0 ? 'always' : 'never', slots: lends > 0 ? lends : undefined },
        },
      },
      { onLog: (level, message) => void log.push(`${level}: ${message}`) },
    );
    let isStopped = false;
    const stop = async (): Promise<void> => {
      if (isStopped) return;
      isStopped = true;
      await node[Symbol.asyncDispose]();
    };
    parts.defer(stop);
    nodes.push({ ...node, peerId: node.node.status().mesh?.peerId ?? '', log, stop });
  }
  await until(() => nodes.every((node) => isReady(node, nodes.length)), 60_000);
  const open = parts.move();
  return { nodes, admit: (dataDir) => admit(desks.length, dataDir), [Symbol.asyncDispose]: () => open.disposeAsync() };
}

/** The platform of an action that only this node may run. */
export function only({ peerId }: OfficeNode) {
  return { platform: { properties: [{ name: 'potluck-node', value: peerId }] } };
}

/** Processes of this machine with a text in their command line. */
export async function processesWith(text: string): Promise<string[]> {
  const found: string[] = [];
  for (const pid of await readdir('/proc')) {
    if (!/^\d+$/.test(pid)) continue;
    const commandLine = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
    if (commandLine.includes(text)) found.push(pid);
  }
  return found;
}

/** It sees the others, and every shard has a leader that it knows. */
function isReady({ node }: OfficeNode, count: number): boolean {
  const { mesh } = node.status();
  return mesh?.members.alive === count - 1 && mesh.coordination?.leaderless === 0;
}
