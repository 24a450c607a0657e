/** Parts of a node that take more than a call to make. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Execution } from '../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { Operations } from '../protos/gen/google/longrunning/operations_pb.ts';
import { createSandbox, type LocalSandbox } from '../sandbox/create-sandbox.ts';
import type { InputTrees } from '../sandbox/input-tree.ts';
import type { SandboxBlobs } from '../sandbox/sandbox.ts';
import type { AuditMesh } from './builds/audit/audit.ts';
import type { MeshConfig, NodeConfig } from './config/config.ts';
import type { Clock } from './execution/clock.ts';
import { createExecutionServices } from './execution/execution-service.ts';
import type { Executor } from './execution/executor.ts';
import type { Preparer } from './execution/prepare.ts';
import type { MeshNode, MeshNodeOptions } from './mesh/mesh-node.ts';
import type { Metrics } from './metrics/metrics.ts';
import type { PeerTier, PeerTierOptions } from './peers/peer-tier.ts';
import type { Access } from './reapi/access.ts';
import { bindService, type BoundService } from './reapi/handler.ts';
import type { InstanceCheck } from './reapi/instances.ts';
import type { ActionCache, ActionKey } from './storage/action-cache.ts';
import type { LocalBlobStore } from './storage/blob-store.ts';

/** Nothing of the mesh is loaded by a node that takes part in none. */
export async function openMesh(options: MeshNodeOptions): Promise<MeshNode> {
  const { openMeshNode } = await import('./mesh/mesh-node.ts');
  return openMeshNode(options);
}

/** What members offer; one whose owner is there may take guests again in a minute. */
export function* offeredElsewhere(mesh: MeshNode | undefined): Generator<readonly string[]> {
  for (const { record, status } of mesh?.active()?.members() ?? []) {
    if (status === 'alive') yield record.attributes.capabilities;
  }
}

export async function openPeers(
  config: NodeConfig,
  mesh: MeshConfig,
  ports: Pick<PeerTierOptions, 'store' | 'members' | 'registers' | 'calls' | 'isDropped' | 'onFound' | 'onLog'>,
): Promise<PeerTier> {
  const { createPeerTier } = await import('./peers/peer-tier.ts');
  return createPeerTier({
    ...ports,
    capacityBytes: config.cacheSizeBytes,
    listen: mesh.dataListen,
    trust: mesh.trust,
    uploadBytesPerSecond: mesh.uploadBytesPerSecond,
    replicas: mesh.replicas,
  });
}

export function auditMesh(mesh: MeshNode | undefined): AuditMesh | undefined {
  const active = mesh?.active();
  if (!active) return undefined;
  const { identity, driver } = active;
  const alive = (): string[] =>
    active.members().flatMap(({ record, status }) => (status === 'alive' ? [record.id] : []));
  return { identity, members: alive, deliver: (event) => driver.deliver(event) };
}

export async function openSandbox(config: NodeConfig, blobs: LocalBlobStore, trees: InputTrees): Promise<LocalSandbox> {
  return await createSandbox({
    workDir: join(config.dataDir, 'sandbox'),
    blobs: sandboxBlobs(blobs),
    trees,
    hiddenPaths: [config.dataDir],
    ...(config.bwrapPath !== undefined && { bubblewrapPath: config.bwrapPath }),
  });
}

function sandboxBlobs(blobs: LocalBlobStore): SandboxBlobs {
  return {
    get: (digest, options) => blobs.get(digest, options),
    missing: (digests, options) => blobs.missing(digests, options),
    copyTo: (digest, path, options) => blobs.copyTo(digest, path, options),
    linkTo: (digest, path, options) => blobs.linkTo(digest, path, options),
    putFile: (fn, path, options) => blobs.putFile(fn, path, options),
    async putAll(all) {
      const failure = (await blobs.putMany(all)).find((outcome) => outcome !== undefined);
      if (failure) throw failure;
    },
  };
}

interface ExecutionParts {
  readonly preparer: Preparer;
  readonly blobs: LocalBlobStore;
  readonly actions: Pick<ActionCache, 'get'>;
  readonly executor: Executor;
  readonly clock: Clock;
  readonly checkInstance: InstanceCheck;
  readonly distrusts: (key: ActionKey) => boolean;
  readonly metrics: Metrics;
}

export function bindExecution({ metrics, ...parts }: ExecutionParts): BoundService[] {
  const { execution, operations } = createExecutionServices({
    ...parts,
    onLookup: (instance, outcome) => metrics.onExecuteLookup(instance, outcome),
  });
  return [bindService(Execution, execution), bindService(Operations, operations)];
}

export async function readAccess({ tls, bearerTokenFile }: NodeConfig): Promise<Access> {
  return {
    ...(tls && {
      tls: {
        cert: await readFile(tls.certFile),
        key: await readFile(tls.keyFile),
        ...(tls.clientCaFile !== undefined && { clientCa: await readFile(tls.clientCaFile) }),
      },
    }),
    ...(bearerTokenFile !== undefined && { bearerToken: (await readFile(bearerTokenFile, 'utf8')).trim() }),
  };
}
