/**
 * The composition root: builds one node from its configuration and serves until it is closed.
 *
 * Everything hangs off `createNode`; there is no module-level state, so many nodes share a process. Parts are closed in
 * reverse order of their making.
 */
import { hostname } from 'node:os';
import { join } from 'node:path';
import { digestKey } from '../protos/digest.ts';
import { Health } from '../protos/gen/grpc/health/v1/health_pb.ts';
import { StatusError } from '../protos/status.ts';
import { createInputTrees } from '../sandbox/input-tree.ts';
import { type Audit, createAudit } from './builds/audit/audit.ts';
import { noAudits } from './builds/audit/auditor.ts';
import { denounceCall } from './builds/audit/denouncing.ts';
import { isDroppedResult, withoutDropped } from './builds/audit/dropping.ts';
import { openLedger } from './builds/audit/ledger.ts';
import * as auditLimits from './builds/audit/limits.ts';
import { auditInvocation, createReexecute } from './builds/audit/reexecute.ts';
import { createBuilds } from './builds/builds.ts';
import type { RecordedEvent } from './builds/events.ts';
import { observeCalls } from './builds/observed-calls.ts';
import { createOffloadTally } from './builds/offload-tally.ts';
import { type TopFrame, topFrame } from './builds/top.ts';
import { packageVersion } from './cli/version.ts';
import type { NodeConfig } from './config/config.ts';
import { type Clock, systemClock } from './execution/clock.ts';
import { createExecutor, type Executor } from './execution/executor.ts';
import { operatorWarning } from './execution/operator-warning.ts';
import { abortedMaxMs, schedulerLimits } from './execution/limits.ts';
import { createLogStreams } from './execution/log-streams.ts';
import { createPlatformOffer } from './execution/platform.ts';
import { createPreparer } from './execution/prepare.ts';
import { serveHttp } from './http/http-server.ts';
import type { MeshNode } from './mesh/mesh-node.ts';
import { peersOf } from './mesh/status.ts';
import { createOffload, type Offload } from './offload/offload.ts';
import { createOwnerWatch } from './owner/owner-watch.ts';
import type { OwnerStatus } from './owner/requests.ts';
import { auditMesh, bindExecution, offeredElsewhere, openMesh, openPeers, openSandbox, readAccess } from './parts.ts';
import { recentEventsMax } from './metrics/limits.ts';
import { createMetrics } from './metrics/metrics.ts';
import { createRecentEvents } from './metrics/recent-events.ts';
import { createCacheServices } from './reapi/cache-services.ts';
import { serveGrpc } from './reapi/grpc-server.ts';
import { bindService } from './reapi/handler.ts';
import { createHealth } from './reapi/health.ts';
import { checkInstances } from './reapi/instances.ts';
import { createReflection } from './reapi/reflection.ts';
import { createRemoteAsset } from './reapi/remote-asset.ts';
import type { ActionCache } from './storage/action-cache.ts';
import { executionStatus, type NodeStatus } from './status.ts';
import { openStore, type Store } from './storage/open-store.ts';

/** For the last words on connections that are about to be cut. */
const farewellMs = 500;
/** What Command.output_node_properties may ask for. */
const outputNodeProperties = ['mtime', 'unix_mode'];

type LogLevel = 'info' | 'warning' | 'error';

/** What a node needs of the world besides its configuration; production uses the defaults. */
export interface NodePorts {
  readonly clock?: Clock;
  /** Told in sentences what an operator may want to know. */
  readonly onLog?: (level: LogLevel, message: string) => void;
}

/** What is known once the node serves. Addresses have the ports that were picked. */
interface NodeFacts {
  readonly grpc: readonly string[];
  readonly http: string | undefined;
  readonly isolation: 'bubblewrap' | 'none';
  /** A sentence: why that isolation, and what to do for a better one. */
  readonly isolationReason: string;
}

export interface PotluckNode {
  readonly facts: NodeFacts;
  status(): NodeStatus;
  /**
   * Stops in good order: takes nothing new, gives what runs `drainMaxMs` to end, breaks off the rest, closes the store.
   * A second call waits for the first.
   */
  close(options: { readonly drainMaxMs: number }): Promise<void>;
}

/** Throws a StatusError that says what to do; nothing is left open then. */
export async function createNode(config: NodeConfig, ports: NodePorts = {}): Promise<PotluckNode> {
  const { clock = systemClock, onLog = () => {} } = ports;
  const startedMs = clock.nowMs();
  const recent = createRecentEvents(recentEventsMax);
  const log = (level: LogLevel, message: string): void => {
    if (level !== 'info') recent.add({ time: new Date(clock.nowMs()).toISOString(), level, message });
    onLog(level, message);
  };
  let draining = false;

  await using parts = new AsyncDisposableStack();
  const onDisk = await openStore({
    dataDir: config.dataDir,
    sizeLimitBytes: config.cacheSizeBytes,
    durability: config.durability,
    onWarning: (text) => log('warning', text),
  });
  parts.defer(() => onDisk.close());
  const ledger = openLedger(join(config.dataDir, 'audit.jsonl'), (reason) => log('warning', reason));
  const store: Store = { ...onDisk, actions: withoutDropped(onDisk.actions, ledger) };
  let audit: Audit | undefined;

  const checkInstance = checkInstances(config.instances);
  let mesh: MeshNode | undefined;
  let offload: Offload | undefined;
  const platform = createPlatformOffer(
    config.platformProperties,
    () => offeredElsewhere(mesh),
    () => offload?.current()?.offers ?? [],
  );
  const logs = createLogStreams();
  const peers =
    config.mesh &&
    (await openPeers(config, config.mesh, {
      store,
      members: () => [...(mesh?.active()?.machine.membership.members() ?? [])],
      registers: () => offload?.current()?.registers,
      calls: new Map([[denounceCall, async (peer, body) => (await audit?.take(peer, body)) ?? new Uint8Array()]]),
      isDropped: (key, result) => isDroppedResult(ledger, key, result),
      onFound: (key, from) => builds.results.onFound(key, from),
      onLog: log,
    }));
  const blobs = peers?.blobs ?? store.blobs;
  const builds = createBuilds({
    dataDir: config.dataDir,
    clock,
    name: hostname(),
    self: () => mesh?.active()?.identity.peerId,
    slots: config.slots,
    ...(peers && { tally: () => peers.tally() }),
    onProblem: (reason) => log('warning', reason),
  });
  parts.defer(() => builds.close());
  const counts = createOffloadTally();
  let lastEventMs = 0;
  const record = (event: RecordedEvent): void => {
    if ('invocation' in event && event.invocation === auditInvocation) return;
    lastEventMs = clock.nowMs();
    if (event.kind === 'lookedUp' && event.outcome === 'hit') audit?.onHit(event);
    counts.record(event);
    builds.record(event);
  };
  const actions = builds.results.observe(peers?.actions('upload') ?? store.actions);
  const trees = createInputTrees(blobs);
  const sandbox = config.slots === 0 ? undefined : await openSandbox(config, blobs, trees);
  // What the execution gave up as hanging would hold it open for ever.
  if (sandbox) parts.defer(() => firstOf(sandbox.close(), abortedMaxMs, clock));

  const preparer = createPreparer({
    blobs,
    trees,
    platform,
    defaultTimeoutMs: config.defaultActionTimeoutMs,
    maxTimeoutMs: config.maxActionTimeoutMs,
  });
  const worker = hostname();
  const owner =
    config.mesh &&
    createOwnerWatch({
      dataDir: config.dataDir,
      lend: config.mesh.lend ?? { when: 'idle', slots: undefined },
      slots: config.slots,
      isolated: sandbox?.isolation === 'bubblewrap',
      capabilities: platform.capabilities,
      clock,
      onLog: log,
    });
  if (owner) parts.defer(() => owner.close());
  offload =
    sandbox &&
    peers &&
    owner &&
    createOffload({
      ports: { sandbox, clock, worker },
      preparer,
      trees,
      platform,
      local: store.blobs,
      peers,
      trust: config.mesh?.trust ?? 'members',
      servesBlobs: config.mesh?.uploadBytesPerSecond !== 0,
      owner,
      record,
      onLog: log,
    });

  let executor: Executor | undefined;
  const metrics = createMetrics({
    version: packageVersion(),
    slots: config.slots,
    store: () => store.stats(),
    load: () => executor?.load() ?? new Map(),
    offload: () => counts.now(),
    audits: () => audit?.status().audits ?? noAudits,
    ...(peers && { sharing: () => peers.tally() }),
  });
  parts.defer(() => metrics.close());

  if (sandbox) {
    const made = createExecutor({
      sandbox,
      actions: peers?.actions(sandbox.describe().isolation) ?? store.actions,
      clock,
      worker,
      logs,
      offering: offload,
      record,
      limits: { ...schedulerLimits, slots: config.slots },
      onEvent: (event) => {
        metrics.onExecution(event);
        const warning = operatorWarning(event);
        if (warning !== undefined) log('warning', warning);
      },
    });
    executor = made;
    parts.defer(() => made.close({ drainMs: 0 }));
  }

  if (config.mesh) {
    const opened = await openMesh({
      dataDir: config.dataDir,
      config: config.mesh,
      onLog: log,
      onNote: (note) => counts.note(note),
      ...(peers && { openTier: (ports) => peers.open(ports), seed: (request) => peers.seed(request) }),
      ...(offload && { openOffloading: (ports) => offload.open(ports) }),
      ...(owner && { owner }),
    });
    mesh = opened;
    parts.defer(() => opened.close());
  }

  // A node that runs nothing audits nothing itself, and drops what members prove wrong all the same.
  const runs = executor;
  const auditing = createAudit({
    percent: runs ? config.auditPercent : 0,
    clock,
    ledger,
    stored: store.actions,
    blobs,
    builds,
    reexecute: runs
      ? createReexecute({ preparer, executor: runs, offering: () => offload?.current(), clock })
      : () => Promise.reject(new StatusError('FAILED_PRECONDITION', 'this node runs no actions (slots: 0)')),
    trust: config.mesh?.trust ?? 'members',
    peers,
    mesh: () => auditMesh(mesh),
    isIdle: () => {
      const isBusy = [...(runs?.load().values() ?? [])].some(({ queued, executing }) => queued + executing > 0);
      return !isBusy && clock.nowMs() - lastEventMs >= auditLimits.idleMs && !isOwnerThere(owner?.status());
    },
    onLog: log,
  });
  audit = auditing;
  parts.defer(() => auditing.close());

  // A run that is offered to the mesh is looked up there by whoever gets it.
  const here = peers && builds.results.observe(peers.known);
  const executeLookups: Pick<ActionCache, 'get'> = {
    get: (key, options) => ((offload?.isAwake() && here) || actions).get(key, options),
  };
  const cacheServices = createCacheServices({
    blobs,
    actions,
    maxBlobBytes: config.cacheSizeBytes,
    logStreams: logs,
    ...(config.instances && { instances: config.instances }),
    ...(sandbox && { execution: { supportedNodeProperties: outputNodeProperties } }),
  });
  const executionServices = executor
    ? bindExecution({
        preparer,
        blobs,
        actions: executeLookups,
        executor,
        clock,
        checkInstance,
        distrusts: ({ instance, action }) => ledger.isDroppedHere(digestKey(action), instance),
        metrics,
      })
    : [];
  const assetServices = config.remoteAsset
    ? createRemoteAsset({
        blobs,
        actions: store.actions,
        maxBlobBytes: config.cacheSizeBytes,
        ...(config.instances && { instances: config.instances }),
      })
    : [];
  const services = [...cacheServices, ...assetServices, ...executionServices].map(({ service }) => service);
  const health = createHealth(services.map(({ typeName }) => typeName));
  const access = await readAccess(config);
  const grpc = await serveGrpc({
    ...access,
    listen: config.listen,
    services: [
      ...observeCalls([...cacheServices, ...executionServices], { record, results: builds.results, clock }),
      ...assetServices,
      bindService(Health, health.handlers),
      ...createReflection([...services, Health]),
    ],
    onCall: (report) => metrics.onCall(report),
  });
  parts.defer(() => grpc.close());

  const status = (): NodeStatus => ({
    version: packageVersion(),
    pid: process.pid,
    state: draining ? 'draining' : 'serving',
    uptimeSeconds: Math.round((clock.nowMs() - startedMs) / 1000),
    grpc: grpc.addresses,
    http: http?.address ?? null,
    dataDir: config.dataDir,
    durability: config.durability,
    instances: config.instances ?? null,
    store: store.stats(),
    execution: sandbox && executor ? executionStatus(config, sandbox, executor, platform, builds.elsewhere()) : null,
    mesh: mesh?.status() ?? null,
    sharing: peers?.tally() ?? null,
    owner: owner?.status() ?? null,
    offload: counts.now(),
    recentProblems: recent.list(),
  });
  const top = (): TopFrame => {
    const { state, execution, sharing } = status();
    const active = mesh?.active();
    const peerLines = active ? peersOf(active) : [];
    return topFrame({
      builds,
      counts,
      name: hostname(),
      peerId: active?.identity.peerId ?? null,
      state,
      execution,
      peers: peerLines,
      sharing,
      nowMs: clock.nowMs(),
    });
  };
  const http =
    config.http === undefined
      ? undefined
      : await serveHttp({
          ...access,
          listen: config.http,
          blobs,
          actions,
          checkInstance,
          validateActionResults: config.validateHttpActionResults,
          maxBlobBytes: config.cacheSizeBytes,
          metrics: () => metrics.text(),
          status,
          api: {
            builds: () => builds.list(),
            build: (id) => builds.show(id),
            explain: (action) => builds.explain(action),
            top,
            audits: () => auditing.status(),
            audit: (action, begin) => (begin ? auditing.begin(action) : auditing.job(action)),
          },
          onRequest: (report) => metrics.onHttp(report),
        });
  if (http) parts.defer(() => http.close());

  const open = parts.move();
  const stop = async (drainMaxMs: number): Promise<void> => {
    draining = true;
    health.stopServing();
    offload?.current()?.turnGuestsAway();
    const drained = Promise.all([executor?.close({ drainMs: drainMaxMs }), grpc.drain(), http?.drain()]);
    await firstOf(drained, drainMaxMs, clock);
    // What still runs is killed now, and its clients hear so before their connections are cut.
    await executor?.close({ drainMs: 0 });
    await firstOf(drained, farewellMs, clock);
    await open.disposeAsync();
    await drained;
  };
  let stopped: Promise<void> | undefined;
  const description = sandbox?.describe();
  return {
    facts: {
      grpc: grpc.addresses,
      http: http?.address,
      isolation: description?.isolation ?? 'none',
      isolationReason: description?.isolationReason ?? 'this node runs no actions (slots: 0)',
    },
    status,
    close({ drainMaxMs }) {
      stopped ??= stop(drainMaxMs);
      return stopped;
    },
  };
}

/** Whether the owner of this machine would notice work that nobody asked for. */
function isOwnerThere(owner: OwnerStatus | undefined): boolean {
  return owner?.when === 'idle' && owner.reading !== null && !owner.guestsWelcome;
}

/** Resolves when the work is done or the time is over. */
async function firstOf(work: Promise<unknown>, delayMs: number, clock: Clock): Promise<void> {
  const late = Promise.withResolvers<void>();
  const cancelTimer = clock.setTimer(delayMs, late.resolve);
  await Promise.race([work, late.promise]);
  cancelTimer();
}
