/**
 * What a node counts, as Prometheus reads it. Units are in the names: `_seconds`, `_bytes`, `_total`.
 *
 * Numbers that others keep (store, scheduler) are read when the text is asked for; the rest is counted as it happens.
 */
import { monitorEventLoopDelay } from 'node:perf_hooks';
import type { AuditStatus } from '../builds/audit/auditor.ts';
import type { OffloadTally } from '../builds/offload-tally.ts';
import type { ExecutionEvent } from '../execution/executor.ts';
import type { InstanceLoad } from '../execution/scheduler.ts';
import type { HttpReport } from '../http/http-server.ts';
import type { Tally } from '../peers/tally.ts';
import type { CallReport } from '../reapi/grpc-call.ts';
import type { StoreStats } from '../storage/open-store.ts';
import { createLabelBound } from './label-bound.ts';
import * as limits from './limits.ts';
import { createRegistry, type Registry, type Sample } from './registry.ts';

export interface MetricsSources {
  readonly version: string;
  readonly slots: number;
  readonly store: () => StoreStats;
  readonly load: () => ReadonlyMap<string, InstanceLoad>;
  readonly offload: () => OffloadTally;
  /** Re-executions by how they ended. */
  readonly audits: () => AuditStatus['audits'];
  /** What went over the mesh; `undefined` on a node that takes part in none. */
  readonly sharing?: () => Tally | undefined;
}

export interface Metrics {
  /** The text of `/metrics`. */
  text(): string;
  onCall(report: CallReport): void;
  onHttp(report: HttpReport): void;
  onExecution(event: ExecutionEvent): void;
  /** Whether an Execute call was answered from the action cache. */
  onExecuteLookup(instance: string, outcome: 'hit' | 'miss' | 'skipped'): void;
  close(): void;
}

/** From a cached lookup to the longest build step. */
const executionBuckets = [0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3600];
const callBuckets = [0.0005, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 60];

export function createMetrics(sources: MetricsSources): Metrics {
  const registry = createRegistry();
  const { counter, histogram } = registry;
  const instanceLabel = createLabelBound(limits.instanceLabelsMax);
  describeStore(registry, sources.store);
  if (sources.sharing) describeSharing(registry, sources.sharing);
  describeOffload(registry, sources.offload);
  registry.read('counter', 'potluck_audits_total', 'Results that were audited, by what came out.', () =>
    Object.entries(sources.audits()).map(([outcome, value]) => ({ labels: { outcome }, value })),
  );
  const lag = describeProcess(registry, sources.version);

  registry.read('gauge', 'potluck_execution_slots', 'Actions that may run at once.', () => sources.slots);
  const byInstance = (name: string, help: string, read: (load: InstanceLoad) => number) =>
    registry.read('gauge', name, help, () => {
      const sums = new Map<string, number>();
      for (const [instance, load] of sources.load()) {
        const label = instanceLabel(instance);
        sums.set(label, (sums.get(label) ?? 0) + read(load));
      }
      return Array.from(sums, ([instance, value]) => ({ labels: { instance }, value }));
    });
  byInstance('potluck_queued_executions', 'Executions that wait for a slot.', (load) => load.queued);
  byInstance('potluck_active_executions', 'Executions that hold a slot.', (load) => load.executing);

  const executions = counter('potluck_executions_total', 'Ended executions by outcome.', ['instance', 'outcome']);
  const retries = counter('potluck_execution_retries_total', 'Executions begun again for reasons of this machine.');
  const merged = counter('potluck_executions_merged_total', 'Execute calls that joined a running execution.');
  const refused = counter('potluck_executions_refused_total', 'Execute calls refused: queue full or shutting down.');
  const lookups = counter('potluck_execute_lookups_total', 'Execute calls by what the action cache had for them.', [
    'instance',
    'outcome',
  ]);
  const queueSeconds = histogram(
    'potluck_execution_queue_duration_seconds',
    'From acceptance to a slot.',
    [],
    executionBuckets,
  );
  const runSeconds = histogram(
    'potluck_execution_duration_seconds',
    'From slot to result, all phases.',
    ['outcome'],
    executionBuckets,
  );
  const phaseSeconds = histogram(
    'potluck_execution_phase_duration_seconds',
    'Staging inputs, running the command, collecting outputs, committing the result.',
    ['phase'],
    executionBuckets,
  );

  const rpcLabels = ['service', 'method'] as const;
  const rpcs = counter('potluck_rpcs_total', 'gRPC calls by status code.', [...rpcLabels, 'code']);
  const rpcSeconds = histogram('potluck_rpc_duration_seconds', 'Duration of gRPC calls.', rpcLabels, callBuckets);
  const rpcIn = counter('potluck_rpc_received_bytes_total', 'Message bytes received by gRPC.', rpcLabels);
  const rpcOut = counter('potluck_rpc_sent_bytes_total', 'Message bytes sent by gRPC.', rpcLabels);
  const requests = counter('potluck_http_requests_total', 'HTTP requests by what they asked for and status.', [
    'kind',
    'method',
    'status',
  ]);
  const requestSeconds = histogram(
    'potluck_http_request_duration_seconds',
    'Duration of HTTP requests.',
    ['kind', 'method'],
    callBuckets,
  );
  const httpIn = counter('potluck_http_received_bytes_total', 'Bytes received by HTTP.', ['kind']);
  const httpOut = counter('potluck_http_sent_bytes_total', 'Bytes sent by HTTP.', ['kind']);

  return {
    text: () => registry.text(),
    onCall({ service, method, code, seconds, requestBytes, responseBytes }) {
      rpcs.inc({ service, method, code });
      rpcSeconds.observe({ service, method }, seconds);
      rpcIn.inc({ service, method }, requestBytes);
      rpcOut.inc({ service, method }, responseBytes);
    },
    onHttp({ kind, method, status, seconds, requestBytes, responseBytes }) {
      requests.inc({ kind, method, status });
      requestSeconds.observe({ kind, method }, seconds);
      httpIn.inc({ kind }, requestBytes);
      httpOut.inc({ kind }, responseBytes);
    },
    onExecution(event) {
      switch (event.kind) {
        case 'merged':
          return merged.inc({});
        case 'refused':
          return refused.inc({});
        case 'run-ended':
          if (event.retried) return retries.inc({});
          executions.inc({ instance: instanceLabel(event.instance), outcome: event.outcome });
          queueSeconds.observe({}, event.queuedMs / 1000);
          runSeconds.observe({ outcome: event.outcome }, event.runMs / 1000);
          for (const [phase, ms] of event.phaseMs) phaseSeconds.observe({ phase }, ms / 1000);
          return;
        default:
          event satisfies never;
      }
    },
    onExecuteLookup: (instance, outcome) => lookups.inc({ instance: instanceLabel(instance), outcome }),
    close: () => void lag.disable(),
  };
}

/** The store keeps its own counts; they are read at each scrape. */
function describeStore(registry: Registry, stats: () => StoreStats): void {
  const gauges: readonly [name: string, help: string, read: (stats: StoreStats) => number][] = [
    ['store_bytes', 'Disk space in use or reserved by the store.', (s) => s.usedBytes],
    ['store_limit_bytes', 'Hard limit of the disk space of the store.', (s) => s.sizeLimitBytes],
    ['store_blobs', 'Blobs held.', (s) => s.blobs],
    ['store_blob_bytes', 'Sum of the sizes of the blobs held.', (s) => s.blobBytes],
    ['store_index_bytes', 'Size of the index.', (s) => s.indexBytes],
    ['store_pinned_blobs', 'Blobs that cannot be evicted now.', (s) => s.pinnedBlobs],
    ['action_results', 'Action results held.', (s) => s.results],
  ];
  for (const [name, help, read] of gauges) registry.read('gauge', `potluck_${name}`, help, () => read(stats()));
  const counters: readonly [name: string, help: string, read: (counters: StoreStats['counters']) => number][] = [
    ['store_evicted_blobs_total', 'Blobs evicted.', (c) => c.evictedBlobs],
    ['store_evicted_bytes_total', 'Bytes of evicted blobs.', (c) => c.evictedBytes],
    ['store_evicted_results_total', 'Action results evicted.', (c) => c.evictedResults],
    ['store_bad_blobs_total', 'Blobs found bad on disk and dropped.', (c) => c.badBlobs],
    ['store_written_blobs_total', 'Blobs stored.', (c) => c.storedBlobs],
    ['store_written_bytes_total', 'Bytes of stored blobs.', (c) => c.storedBytes],
  ];
  for (const [name, help, read] of counters) {
    registry.read('counter', `potluck_${name}`, help, () => read(stats().counters));
  }
  registry.read(
    'counter',
    'potluck_cache_lookups_total',
    'Lookups in the store: blobs (cas) and action results (ac); an incomplete result lacks a blob.',
    () => {
      const { counters: c } = stats();
      const sample = (cache: string, outcome: string, value: number): Sample => ({ labels: { cache, outcome }, value });
      return [
        sample('cas', 'hit', c.blobHits),
        sample('cas', 'miss', c.blobMisses),
        sample('ac', 'hit', c.resultHits),
        sample('ac', 'miss', c.resultMisses),
        sample('ac', 'incomplete', c.resultIncomplete),
      ];
    },
  );
}

/** By how far away members are, never by member: there may be hundreds. */
function describeSharing(registry: Registry, tally: () => Tally | undefined): void {
  const byLink = (name: string, help: string, which: 'receivedBytes' | 'servedBytes') =>
    registry.read('counter', `potluck_mesh_${name}`, help, () =>
      Object.entries(tally()?.links ?? {}).map(([link, bytes]) => ({ labels: { link }, value: bytes[which] })),
    );
  byLink('received_bytes_total', 'Bytes of blobs that came from members, by how far away they are.', 'receivedBytes');
  byLink('sent_bytes_total', 'Bytes of blobs that members fetched, by how far away they are.', 'servedBytes');
  const blobs = 'Blobs that came from members.';
  registry.read('counter', 'potluck_mesh_received_blobs_total', blobs, () => tally()?.receivedBlobs ?? 0);
  const results = 'Action results that were found at members.';
  registry.read('counter', 'potluck_mesh_found_results_total', results, () => tally()?.foundResults ?? 0);
}

/** Where actions ran and what the mesh did about it; never by member. */
function describeOffload(registry: Registry, offload: () => OffloadTally): void {
  const by = (
    name: string,
    help: string,
    label: string,
    read: (tally: OffloadTally) => Readonly<Record<string, number>>,
  ) =>
    registry.read('counter', `potluck_${name}`, help, () =>
      Object.entries(read(offload())).map(([key, value]) => ({ labels: { [label]: key }, value })),
    );
  by('actions_total', 'Results that clients got, by where they came from.', 'source', ({ answered }) => answered);
  by('actions_placed_total', 'Actions by what the policy decided: kept here or offered.', 'where', (t) => ({
    here: t.stayed,
    mesh: t.offered,
  }));
  by('guest_runs_total', 'Actions of members that ran here, by how they ended.', 'outcome', ({ guests }) => ({
    succeeded: guests.succeeded,
    failed: guests.failed,
  }));
  const counters: readonly [name: string, help: string, read: (tally: OffloadTally) => number][] = [
    ['actions_failed_total', 'Actions of clients that did not succeed.', (t) => t.failed],
    ['claims_lost_total', 'Runs begun again because a claim was lost or an executor failed.', (t) => t.claimsLost],
    ['guests_frozen_total', 'Times that a guest was frozen for the owner of this machine.', (t) => t.guests.frozen],
    [
      'stale_commits_refused_total',
      'Commits under an old claim refused by this node as leader.',
      (t) => t.staleRefused,
    ],
    ['own_commits_refused_total', 'Commits of this node, as executor, that a leader refused.', (t) => t.commitsRefused],
    ['lies_refused_total', 'Results of members refused for not being what they should be.', (t) => t.lies],
  ];
  for (const [name, help, read] of counters) registry.read('counter', `potluck_${name}`, help, () => read(offload()));
}

const nanosecondsPerSecond = 1e9;
const microsecondsPerSecond = 1e6;
/** Between two looks at the event loop: each wakes the processor, ten a second were half of all wakes of a node at rest. */
const lagResolutionMs = 1_000;

/** What the operating system and Node say of this process. */
function describeProcess(registry: Registry, version: string) {
  const lag = monitorEventLoopDelay({ resolution: lagResolutionMs });
  lag.enable();
  registry.read('gauge', 'potluck_build_info', 'Always 1; the labels tell.', () => [
    { labels: { version, node: process.versions.node }, value: 1 },
  ]);
  registry.read('gauge', 'potluck_process_resident_bytes', 'Resident memory of the process.', () =>
    process.memoryUsage.rss(),
  );
  registry.read('counter', 'potluck_process_cpu_seconds_total', 'User and system time of the process.', () => {
    const { user, system } = process.cpuUsage();
    return (user + system) / microsecondsPerSecond;
  });
  registry.read('gauge', 'potluck_process_uptime_seconds', 'Since the process started.', () => process.uptime());
  registry.read(
    'gauge',
    'potluck_event_loop_lag_seconds',
    'How late the event loop was since the last reading.',
    () => {
      const found = [50, 99, 100].map((percentile) => ({
        labels: { quantile: String(percentile / 100) },
        // What is measured is the time between two looks; only what it exceeds the intended one by is late.
        value: Math.max(0, lag.percentile(percentile) / nanosecondsPerSecond - lagResolutionMs / 1_000),
      }));
      lag.reset();
      return found;
    },
  );
  return lag;
}
