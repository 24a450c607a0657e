import { expect, test } from 'vitest';
import { createOffloadTally } from '../../../../node/builds/offload-tally.ts';
import { createLabelBound } from '../../../../node/metrics/label-bound.ts';
import { instanceLabelsMax } from '../../../../node/metrics/limits.ts';
import { createMetrics } from '../../../../node/metrics/metrics.ts';
import { createRecentEvents } from '../../../../node/metrics/recent-events.ts';
import { createTally } from '../../../../node/peers/tally.ts';
import { digestOf } from '../../../../protos/hasher.ts';
import type { StoreStats } from '../../../../node/storage/open-store.ts';

const stats: StoreStats = {
  sizeLimitBytes: 1_000,
  usedBytes: 500,
  blobs: 3,
  blobBytes: 400,
  smallBlobs: 1,
  smallBlobBytes: 10,
  chunkedBlobs: 0,
  chunkedBlobBytes: 0,
  indexBytes: 100,
  results: 2,
  pinnedBlobs: 1,
  counters: {
    evictedBlobs: 7,
    evictedBytes: 70,
    evictedResults: 1,
    badBlobs: 0,
    storedBlobs: 10,
    storedBytes: 470,
    blobHits: 5,
    blobMisses: 6,
    resultHits: 8,
    resultMisses: 9,
    resultIncomplete: 4,
  },
};

const audits = () => ({ same: 3, wrong: 1, nonDeterministic: 0, unconfirmed: 0, refuted: 0, impossible: 0 });

function given() {
  const load = new Map([['main', { queued: 2, executing: 1 }]]);
  const counts = createOffloadTally();
  const offload = () => counts.now();
  const metrics = createMetrics({ version: '1.2.3', slots: 4, store: () => stats, load: () => load, offload, audits });
  const samples = (): Map<string, number> => {
    const lines = metrics
      .text()
      .split('\n')
      .filter((line) => line !== '' && !line.startsWith('#'));
    return new Map(
      lines.map((line) => {
        const at = line.lastIndexOf(' ');
        return [line.slice(0, at), Number(line.slice(at + 1))];
      }),
    );
  };
  return { metrics, load, samples, counts };
}

test('what others keep is read at each scrape', () => {
  const { metrics, load, samples } = given();
  const first = samples();
  expect(first.get('potluck_store_bytes')).toBe(500);
  expect(first.get('potluck_store_evicted_bytes_total')).toBe(70);
  expect(first.get('potluck_cache_lookups_total{cache="ac",outcome="incomplete"}')).toBe(4);
  expect(first.get('potluck_queued_executions{instance="main"}')).toBe(2);
  load.clear();
  const second = samples();
  expect(second.get('potluck_store_evicted_bytes_total')).toBe(70);
  expect(second.has('potluck_queued_executions{instance="main"}')).toBe(false);
  metrics.close();
});

test('calls, requests and executions are counted by what is bounded', () => {
  const { metrics, samples } = given();
  const call = { service: 's', method: 'm', seconds: 0.2, requestBytes: 10, responseBytes: 20 };
  metrics.onCall({ ...call, code: 'OK' });
  metrics.onCall({ ...call, code: 'NOT_FOUND' });
  metrics.onHttp({ kind: 'cas', method: 'GET', status: 404, seconds: 0.1, requestBytes: 1, responseBytes: 2 });
  metrics.onExecution({ kind: 'merged', instance: 'x' });
  metrics.onExecuteLookup('x', 'hit');
  const found = samples();
  expect(found.get('potluck_rpcs_total{service="s",method="m",code="NOT_FOUND"}')).toBe(1);
  expect(found.get('potluck_rpc_sent_bytes_total{service="s",method="m"}')).toBe(40);
  expect(found.get('potluck_http_requests_total{kind="cas",method="GET",status="404"}')).toBe(1);
  expect(found.get('potluck_executions_merged_total')).toBe(1);
  expect(found.get('potluck_execute_lookups_total{instance="x",outcome="hit"}')).toBe(1);
  metrics.close();
});

test('instance names that outsiders make up share a label once there are too many', () => {
  const { metrics, samples } = given();
  for (let n = 0; n < instanceLabelsMax + 30; n += 1) metrics.onExecuteLookup(`made-up-${n}`, 'miss');
  const labels = [...samples().keys()].filter((name) => name.startsWith('potluck_execute_lookups_total'));
  expect(labels.length).toBeLessThanOrEqual(instanceLabelsMax + 1);
  expect(labels).toContain('potluck_execute_lookups_total{instance="other",outcome="miss"}');
  metrics.close();
});

test('a bounded label keeps the names it knows', () => {
  const bound = createLabelBound(2);
  expect(['a', 'b', 'c', 'a'].map(bound)).toEqual(['a', 'b', 'other', 'a']);
});

test('only the newest events are kept', () => {
  const events = createRecentEvents(2);
  for (const message of ['one', 'two', 'three']) events.add({ time: '', level: 'warning', message });
  expect(events.list().map(({ message }) => message)).toEqual(['two', 'three']);
});

test('what went over the mesh is told by how far away members are', () => {
  const tally = createTally();
  const metrics = createMetrics({
    version: '1',
    slots: 0,
    store: () => stats,
    load: () => new Map(),
    sharing: () => tally.now(),
    offload: () => createOffloadTally().now(),
    audits,
  });
  tally.onReceived('anna', 'subnet', 100);
  tally.onReceived('ben', 'other', 7);
  tally.onServed('site', 2, 30);
  tally.onResult('anna');
  const text = metrics.text();
  for (const line of [
    'potluck_mesh_received_bytes_total{link="subnet"} 100',
    'potluck_mesh_received_bytes_total{link="other"} 7',
    'potluck_mesh_sent_bytes_total{link="site"} 30',
    'potluck_mesh_received_blobs_total 2',
    'potluck_mesh_found_results_total 1',
  ]) {
    expect(text).toContain(`${line}\n`);
  }
  expect(text).not.toContain('anna');
  metrics.close();
});

test('where actions ran, and what was done for others, is told without naming members', () => {
  const { metrics, counts, samples } = given();
  const named = {
    action: digestOf('sha256', Buffer.from('x')),
    instance: '',
    invocation: 'b',
    mnemonic: '',
    target: '',
    atMs: 0,
  };
  counts.record({ kind: 'lookedUp', outcome: 'hit', from: 'anna', ...named });
  const times = { queuedMs: 0, runMs: 0, handOverMs: 0, totalMs: 0 };
  const ended = {
    kind: 'ended',
    run: '1',
    token: undefined,
    error: undefined,
    times,
    result: undefined,
    ...named,
  } as const;
  counts.record({ ...ended, outcome: 'succeeded', source: 'peer', node: 'anna' });
  counts.record({ ...ended, outcome: 'error', source: 'here', node: undefined });
  counts.record({ kind: 'decided', atMs: 0, run: '1', where: 'mesh', hereMs: 1, elsewhereMs: 0, why: '' });
  counts.record({ kind: 'retried', atMs: 0, run: '1', why: '' });
  counts.record({ kind: 'guestStarted', atMs: 0, action: named.action, instance: '', submitter: 'ben' });
  counts.record({ kind: 'guestFrozen', atMs: 1, action: named.action, frozen: true });
  expect(counts.guests(5)).toMatchObject([{ submitter: 'ben', ageMs: 5, frozen: true }]);
  const guest = { atMs: 9, action: named.action, instance: '', submitter: 'ben', runMs: 1, error: undefined };
  counts.record({ kind: 'guestEnded', outcome: 'succeeded', ...guest });
  counts.note({ kind: 'staleRefused' });
  const found = samples();
  expect(found.get('potluck_actions_total{source="hit-peer"}')).toBe(1);
  expect(found.get('potluck_actions_total{source="peer"}')).toBe(1);
  expect(found.get('potluck_actions_placed_total{where="mesh"}')).toBe(1);
  expect(found.get('potluck_guest_runs_total{outcome="succeeded"}')).toBe(1);
  expect(found.get('potluck_guests_frozen_total')).toBe(1);
  expect(found.get('potluck_claims_lost_total')).toBe(1);
  expect(found.get('potluck_actions_failed_total')).toBe(1);
  expect(found.get('potluck_stale_commits_refused_total')).toBe(1);
  expect(found.get('potluck_audits_total{outcome="wrong"}')).toBe(1);
  expect(metrics.text()).not.toMatch(/anna|ben"/);
  expect(counts.guests(9)).toEqual([]);
  metrics.close();
});
