/**
 * The mesh of a node through its life: asleep while it is a mesh of one that nobody was invited to, awake afterwards; and
 * what its owner can do with it. Nothing of libp2p is loaded, and no port opened, before it wakes.
 */
import { existsSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import type { PeerNote } from '../../mesh/core/peer.ts';
import { StatusError, toStatusError } from '../../protos/status.ts';
import type { MeshConfig } from '../config/config.ts';
import type { OwnerWatch } from '../owner/owner-watch.ts';
import { isOwnerRequest } from '../owner/requests.ts';
import type { SeedReport, SeedRequest } from '../peers/seed-jobs.ts';
import type { ActiveMesh } from './active-mesh.ts';
import type { AdminRequest } from './admin-requests.ts';
import type { Clock } from './ports.ts';
import { asleep, type MeshStatus, statusOf } from './status.ts';
import * as limits from './limits.ts';
import type { OpenOffloading } from './offloading.ts';
import { ownMembership } from './ownership.ts';
import type { OpenTier } from './tier.ts';

export interface MeshNodeOptions {
  readonly dataDir: string;
  readonly config: MeshConfig;
  readonly openTier?: OpenTier;
  readonly openOffloading?: OpenOffloading;
  readonly seed?: (request: SeedRequest) => Promise<SeedReport>;
  /** Of a node that runs actions. */
  readonly owner?: Pick<OwnerWatch, 'handle'>;
  readonly clock?: Clock;
  readonly onLog: (level: 'info' | 'warning' | 'error', message: string) => void;
  readonly onNote?: (note: PeerNote) => void;
}

export interface MeshNode {
  status(): MeshStatus;
  /** The mesh while it is awake. */
  active(): ActiveMesh | undefined;
  close(): Promise<void>;
}

/**
 * Opens the mesh of a data directory. A mesh that cannot run now, because its port is taken or its files are damaged, is
 * reported and tried again: the node serves its own clients meanwhile. Throws FAILED_PRECONDITION when another process
 * holds the membership.
 */
export async function openMeshNode(options: MeshNodeOptions): Promise<MeshNode> {
  const { dataDir, config, onLog } = options;
  const ownership = ownMembership(dataDir);
  let active: ActiveMesh | undefined;
  let closed = false;
  let problem: string | undefined;
  let retryTimer: NodeJS.Timeout | undefined;
  // One after the other: a node does not wake up while it leaves.
  let last: Promise<unknown> = Promise.resolve();

  async function wake(): Promise<ActiveMesh> {
    if (active) return active;
    if (closed) throw new StatusError('UNAVAILABLE', 'the node is stopping');
    const [{ startActiveMesh }, { openIdentity }, { foundMesh }] = await Promise.all([
      import('./active-mesh.ts'),
      import('../../mesh/net/identity/identity.ts'),
      import('../../mesh/net/identity/issuer.ts'),
    ]);
    if (!openIdentity({ dataDir })) foundMesh({ dataDir, name: hostname(), nowMs: Date.now() });
    const identity = openIdentity({ dataDir });
    if (!identity) throw new StatusError('INTERNAL', 'the mesh that was just made is gone');
    active = await startActiveMesh({
      identity,
      dataDir,
      config,
      onLog,
      ...(options.openTier && { openTier: options.openTier }),
      ...(options.openOffloading && { openOffloading: options.openOffloading }),
      ...(options.clock && { clock: options.clock }),
      ...(options.onNote && { onNote: options.onNote }),
    });
    problem = undefined;
    onLog('info', `The mesh ${identity.mesh.id} listens on ${active.network.addresses().join(', ') || 'no address'}.`);
    return active;
  }

  /** Wakes a mesh that has others in it, now or later. */
  async function wakeIf(isShared: () => boolean): Promise<void> {
    try {
      if (isShared()) await wake();
    } catch (error) {
      if (closed) return;
      const reason = toStatusError(error).reason;
      // Told once, not at every try.
      if (reason !== problem) onLog('error', `this node is cut off from its mesh: ${reason}`);
      problem = reason;
      retryTimer = setTimeout(() => void inTurn(() => wakeIf(isShared)).catch(() => {}), limits.wakeRetryMs).unref();
    }
  }

  function inTurn<T>(work: () => Promise<T>): Promise<T> {
    const done = last.then(work);
    last = done.catch(() => {});
    return done;
  }

  async function sleep(presence: 'suspended' | 'left'): Promise<void> {
    const closing = active;
    active = undefined;
    await closing?.close(presence);
  }

  async function onRequest(request: AdminRequest): Promise<object> {
    const { administer } = await import('./admin.ts');
    return administer(request, {
      dataDir,
      config,
      active: () => active,
      wake,
      sleep,
      ...(options.seed && { seed: options.seed }),
      ...(options.owner && { owner: options.owner }),
    });
  }

  /** An owner who is back does not wait until some member has joined. */
  function onAdmin(request: AdminRequest): Promise<object> {
    return isOwnerRequest(request) ? onRequest(request) : inTurn(() => onRequest(request));
  }

  if (existsSync(join(dataDir, 'mesh', 'membership'))) {
    const { isShared } = await import('../../mesh/net/identity/state.ts');
    await wakeIf(() => isShared(dataDir, Date.now()));
  }
  const { serveAdmin } = await import('./admin-server.ts');
  const server = await serveAdmin(dataDir, onAdmin).catch((error: unknown) => {
    const reason = error instanceof Error ? error.message : String(error);
    onLog('warning', `potluck invite, join and the like will not reach this node: ${reason}`);
    return undefined;
  });

  return {
    status: () => (active ? statusOf(active) : { ...asleep, problem: problem ?? null }),
    active: () => active,
    async close() {
      closed = true;
      clearTimeout(retryTimer);
      await server?.close();
      await last;
      await sleep('suspended');
      ownership[Symbol.dispose]();
    },
  };
}
