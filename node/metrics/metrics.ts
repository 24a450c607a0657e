/**
 * What a node counts, as Prometheus reads it. Units are in the names: `_seconds`, `_bytes`, `_total`.
 *
 * Numbers that others keep (store, scheduler) are read when the text is asked for; the rest is counted as it happens.
 */
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { Counter, Gauge, Histogram, Registry } from 'prom-client';
import type { ExecutionEvent } from '../execution/executor.ts';
import type { InstanceLoad } from '../execution/scheduler.ts';
import type { HttpReport } from '../http/http-server.ts';
import type { CallReport } from '../reapi/grpc-call.ts';
import type { StoreStats } from '../storage/open-store.ts';
import { createLabelBound } from './label-bound.ts';
import * as limits from './limits.ts';

export interface MetricsSources {
  readonly version: string;
  readonly slots: number;
  readonly store: () => StoreStats;
  readonly load: () => ReadonlyMap<string, InstanceLoad>;
}

export interface Metrics {
  /** The text of `/metrics`. */
  text(): Promise<string>;
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
  const registry = new Registry();
  const registers = [registry];
  const counter = <L extends string>(name: string, help: string, labelNames: readonly L[] = []) =>
    new Counter({ name, help, labelNames, registers });
  const histogram = <L extends string>(name: string, help: string, labelNames: readonly L[], buckets: number[]) =>
    new Histogram({ name, help, labelNames, buckets, registers });
  /** A number that somebody else keeps, read at each scrape. */
  const gauge = (name: string, help: string, read: () => number) =>
    new Gauge({
      name,
      help,
      registers,
      collect() {
        this.set(read());
      },
    });

  const instanceLabel = createLabelBound(limits.instanceLabelsMax);
  describeStore(registry, sources.store);
  const lag = describeProcess(registry, sources.version);

  gauge('potluck_execution_slots', 'Actions that may run at once.', () => sources.slots);
  const byInstance = (name: string, help: string, read: (load: InstanceLoad) => number) =>
    new Gauge({
      name,
      help,
      labelNames: ['instance'],
      registers,
      collect() {
        this.reset();
        for (const [instance, load] of sources.load()) this.inc({ instance: instanceLabel(instance) }, read(load));
      },
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
    text: () => registry.metrics(),
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
          return merged.inc();
        case 'refused':
          return refused.inc();
        case 'run-ended':
          if (event.retried) return retries.inc();
          executions.inc({ instance: instanceLabel(event.instance), outcome: event.outcome });
          queueSeconds.observe(event.queuedMs / 1000);
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
  const registers = [registry];
  const gauges: readonly [name: string, help: string, read: (stats: StoreStats) => number][] = [
    ['store_bytes', 'Disk space in use or reserved by the store.', (s) => s.usedBytes],
    ['store_limit_bytes', 'Hard limit of the disk space of the store.', (s) => s.sizeLimitBytes],
    ['store_blobs', 'Blobs held.', (s) => s.blobs],
    ['store_blob_bytes', 'Sum of the sizes of the blobs held.', (s) => s.blobBytes],
    ['store_index_bytes', 'Size of the index.', (s) => s.indexBytes],
    ['store_pinned_blobs', 'Blobs that cannot be evicted now.', (s) => s.pinnedBlobs],
    ['action_results', 'Action results held.', (s) => s.results],
  ];
  for (const [name, help, read] of gauges) {
    new Gauge({
      name: `potluck_${name}`,
      help,
      registers,
      collect() {
        this.set(read(stats()));
      },
    });
  }
  const counters: readonly [name: string, help: string, read: (counters: StoreStats['counters']) => number][] = [
    ['store_evicted_blobs_total', 'Blobs evicted.', (c) => c.evictedBlobs],
    ['store_evicted_bytes_total', 'Bytes of evicted blobs.', (c) => c.evictedBytes],
    ['store_evicted_results_total', 'Action results evicted.', (c) => c.evictedResults],
    ['store_bad_blobs_total', 'Blobs found bad on disk and dropped.', (c) => c.badBlobs],
    ['store_written_blobs_total', 'Blobs stored.', (c) => c.storedBlobs],
    ['store_written_bytes_total', 'Bytes of stored blobs.', (c) => c.storedBytes],
  ];
  for (const [name, help, read] of counters) {
    new Counter({
      name: `potluck_${name}`,
      help,
      registers,
      collect() {
        this.reset();
        this.inc(read(stats().counters));
      },
    });
  }
  new Counter({
    name: 'potluck_cache_lookups_total',
    help: 'Lookups in the store: blobs (cas) and action results (ac); an incomplete result lacks a blob.',
    labelNames: ['cache', 'outcome'],
    registers,
    collect() {
      const { counters: c } = stats();
      this.reset();
      this.inc({ cache: 'cas', outcome: 'hit' }, c.blobHits);
      this.inc({ cache: 'cas', outcome: 'miss' }, c.blobMisses);
      this.inc({ cache: 'ac', outcome: 'hit' }, c.resultHits);
      this.inc({ cache: 'ac', outcome: 'miss' }, c.resultMisses);
      this.inc({ cache: 'ac', outcome: 'incomplete' }, c.resultIncomplete);
    },
  });
}

const nanosecondsPerSecond = 1e9;
const microsecondsPerSecond = 1e6;

/** What the operating system and Node say of this process. */
function describeProcess(registry: Registry, version: string) {
  const registers = [registry];
  const lag = monitorEventLoopDelay({ resolution: 20 });
  lag.enable();
  const info = new Gauge({
    name: 'potluck_build_info',
    help: 'Always 1; the labels tell.',
    labelNames: ['version', 'node'],
    registers,
  });
  info.set({ version, node: process.versions.node }, 1);
  new Gauge({
    name: 'potluck_process_resident_bytes',
    help: 'Resident memory of the process.',
    registers,
    collect() {
      this.set(process.memoryUsage.rss());
    },
  });
  new Counter({
    name: 'potluck_process_cpu_seconds_total',
    help: 'User and system time of the process.',
    registers,
    collect() {
      const { user, system } = process.cpuUsage();
      this.reset();
      this.inc((user + system) / microsecondsPerSecond);
    },
  });
  new Gauge({
    name: 'potluck_process_uptime_seconds',
    help: 'Since the process started.',
    registers,
    collect() {
      this.set(process.uptime());
    },
  });
  new Gauge({
    name: 'potluck_event_loop_lag_seconds',
    help: 'How late the event loop was since the last reading.',
    labelNames: ['quantile'],
    registers,
    collect() {
      for (const percentile of [50, 99, 100]) {
        this.set({ quantile: percentile / 100 }, lag.percentile(percentile) / nanosecondsPerSecond);
      }
      lag.reset();
    },
  });
  return lag;
}
