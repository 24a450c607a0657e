import { appendFile, mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { type Builds, createBuilds } from '../../../../node/builds/builds.ts';
import type { RecordedEvent } from '../../../../node/builds/events.ts';
import { buildIdleMs, buildsMax, historyMax, slowestKept } from '../../../../node/builds/limits.ts';
import type { NamedAction } from '../../../../node/offload/events.ts';
import { digestOf } from '../../../../protos/hasher.ts';
import { createTestClock } from '../../../support/test-clock.ts';

let dataDir: string;
let clock: ReturnType<typeof createTestClock>;
let builds: Builds;
let problems: string[];

beforeEach(async () => {
  dataDir = await mkdtemp(join(tmpdir(), 'potluck-builds-'));
  clock = createTestClock();
  problems = [];
  builds = opened();
});
afterEach(async () => {
  await builds.close();
  await rm(dataDir, { recursive: true });
  expect(problems).toEqual([]);
});

function opened(): Builds {
  return createBuilds({
    dataDir,
    clock,
    name: 'laptop',
    self: () => 'me',
    slots: 4,
    onProblem: (reason) => problems.push(reason),
  });
}

function named(text: string, invocation = 'build-1'): NamedAction {
  return {
    action: digestOf('sha256', Buffer.from(text)),
    instance: 'main',
    invocation,
    mnemonic: 'CppCompile',
    target: `//:${text}`,
  };
}

type Ended = Extract<RecordedEvent, { kind: 'ended' }>;

function run(text: string, ended: Partial<Ended> = {}, between: readonly RecordedEvent[] = []): void {
  const atMs = clock.nowMs();
  const action = named(text, ended.invocation);
  builds.record({ kind: 'submitted', atMs, run: text, ...action });
  for (const event of between) builds.record(event);
  builds.record({
    kind: 'ended',
    atMs: atMs + 1_000,
    run: text,
    outcome: 'succeeded',
    source: 'here',
    node: undefined,
    token: undefined,
    error: undefined,
    times: { queuedMs: 100, runMs: 800, handOverMs: 0, totalMs: 1_000 },
    result: undefined,
    ...action,
    ...ended,
  });
}

test('a build adds up what came from the cache, what ran here and what ran elsewhere', async () => {
  builds.record({ kind: 'client', invocation: 'build-1', tool: 'bazel 8.4', correlated: 'ci-7' });
  const atMs = clock.nowMs();
  builds.record({ kind: 'lookedUp', atMs, outcome: 'miss', from: undefined, ...named('a') });
  builds.record({ kind: 'lookedUp', atMs, outcome: 'hit', from: undefined, ...named('b') });
  builds.record({ kind: 'lookedUp', atMs, outcome: 'hit', from: 'anna', ...named('c') });
  builds.record({ kind: 'client', invocation: 'build-1', tool: 'bazel 8.4', correlated: 'ci-7' });
  run('a');
  run('d', { source: 'peer', node: 'ben', times: { queuedMs: 10, runMs: 4_000, handOverMs: 20, totalMs: 4_030 } });
  run('e', { outcome: 'command-failed' });
  const [summary] = await builds.list();
  expect(summary).toMatchObject({ id: 'build-1', tool: 'bazel 8.4', correlated: 'ci-7', active: true });
  expect(summary?.sources).toEqual({ 'hit-local': 1, 'hit-peer': 1, here: 2, peer: 1, joined: 0, uploaded: 0 });
  expect(summary).toMatchObject({ misses: 1, failed: 1, workElsewhereMs: 4_000, savedMs: 1_000 });
  const report = await builds.show('build');
  expect(report.nodes).toEqual([
    { node: null, executed: 2, hits: 1, runMs: 1_600 },
    { node: 'anna', executed: 0, hits: 1, runMs: 0 },
    { node: 'ben', executed: 1, hits: 0, runMs: 4_000 },
  ]);
  expect(report.slowest.map(({ target }) => target)).toEqual(['//:d', '//:a', '//:e']);
  expect(report.failures.map(({ target }) => target)).toEqual(['//:e']);
});

test('an action is explained with the whole way of its request', async () => {
  const at = (afterMs: number) => clock.nowMs() + afterMs;
  run('a', { source: 'peer', node: 'ben', token: '1.2.3' }, [
    {
      kind: 'decided',
      atMs: at(1),
      run: 'a',
      where: 'mesh',
      hereMs: 9_000,
      elsewhereMs: Number.POSITIVE_INFINITY,
      why: 'soonerElsewhere',
    },
    { kind: 'progress', atMs: at(2), run: 'a', stage: 'fetching', node: 'carl' },
    { kind: 'retried', atMs: at(20), run: 'a', why: 'carl is gone' },
    { kind: 'progress', atMs: at(30), run: 'a', stage: 'fetching', node: 'ben' },
    { kind: 'progress', atMs: at(70), run: 'a', stage: 'executing', node: 'ben' },
  ]);
  run('b');
  const { hash, sizeBytes } = named('a').action;
  for (const text of [hash, hash.slice(0, 8), `${hash}/${sizeBytes}`, `sha256/${hash}/${sizeBytes}`]) {
    const { requests } = await builds.explain(text);
    expect(requests).toHaveLength(1);
    expect(requests[0]).toMatchObject({
      build: 'build-1',
      source: 'peer',
      node: 'ben',
      token: '1.2.3',
      retries: 1,
      fetchMs: 58,
    });
    expect(requests[0]?.decision).toEqual({ where: 'mesh', hereMs: 9_000, elsewhereMs: null, why: 'soonerElsewhere' });
    // It would have waited here for what was expected beyond its own run.
    expect(requests[0]?.savedMs).toBe(9_000);
    expect(requests[0]?.history.map(({ afterMs, what, node }) => `${afterMs} ${what} ${node ?? ''}`.trim())).toEqual([
      '0 submitted',
      '1 offered to the mesh: elsewhere was expected to be sooner',
      '2 fetching carl',
      '20 tried again: carl is gone carl',
      '30 fetching ben',
      '70 executing ben',
      '1000 succeeded ben',
    ]);
  }
  // A size is no beginning of a digest.
  run('z'.repeat(10));
  const sized = { ...named('z').action, sizeBytes: 77_777 };
  builds.record({
    kind: 'lookedUp',
    atMs: clock.nowMs(),
    outcome: 'hit',
    from: undefined,
    ...named('z'),
    action: sized,
  });
  await expect(builds.explain('77777')).rejects.toMatchObject({ code: 'NOT_FOUND' });
  await expect(builds.explain('ffffffff')).rejects.toMatchObject({ code: 'NOT_FOUND' });
  await expect(builds.explain('../..')).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
});

test('two builds that share one run both have it', async () => {
  const atMs = clock.nowMs();
  builds.record({ kind: 'submitted', atMs, run: 'a', ...named('a') });
  builds.record({ kind: 'joined', atMs: atMs + 400, run: 'a', ...named('a', 'build-2') });
  expect(builds.running().map(({ target, stage }) => [target, stage])).toEqual([['//:a', 'queued']]);
  const ended = { times: { queuedMs: 0, runMs: 900, handOverMs: 0, totalMs: 1_000 } };
  builds.record({ ...endOf('a'), ...ended, atMs: atMs + 1_000 });
  expect((await builds.show('build-1')).sources.here).toBe(1);
  expect((await builds.show('build-2')).sources).toMatchObject({ here: 0, joined: 1 });
  expect((await builds.show('build-2')).slowest[0]).toMatchObject({ totalMs: 600, savedMs: 0 });
  expect(builds.running()).toEqual([]);
});

function endOf(text: string): Ended {
  const times = { queuedMs: 0, runMs: 0, handOverMs: 0, totalMs: 0 };
  return {
    kind: 'ended',
    atMs: clock.nowMs() + 1_000,
    run: text,
    outcome: 'succeeded',
    source: 'here',
    node: undefined,
    token: undefined,
    error: undefined,
    times,
    result: undefined,
    ...named(text),
  };
}

test('a build that nobody speaks of any more is closed, and says the same after a restart', async () => {
  run('a');
  const before = await builds.show('build-1');
  clock.advance(3 * buildIdleMs);
  expect(builds.active()).toEqual([]);
  await builds.close();
  builds = opened();
  expect(await builds.show('build-1')).toEqual({ ...before, active: false });
});

test('a build under way that is silent for long stays open', async () => {
  builds.record({ kind: 'submitted', atMs: clock.nowMs(), run: 'a', ...named('a') });
  clock.advance(5 * buildIdleMs);
  expect(builds.active().map(({ id }) => id)).toEqual(['build-1']);
});

test('what a crash tore is passed over; the rest of the record counts', async () => {
  run('a');
  run('b');
  // As after kill -9: what was written is there, the last line in part, and no summary.
  await builds.explain(named('a').action.hash);
  const crashed = builds;
  const [name = ''] = await readdir(join(dataDir, 'builds'));
  await appendFile(join(dataDir, 'builds', name), '{"kind":"action","acti');
  builds = opened();
  const report = await builds.show('build-1');
  expect(report).toMatchObject({ active: false, sources: { here: 2 } });
  expect(report.slowest).toHaveLength(2);
  await crashed.close();
});

test('clients that name no invocation are kept under the name of this node', async () => {
  run('a', { invocation: '' });
  const [summary] = await builds.list();
  expect(summary?.id).toMatch(/^laptop-\d{8}T\d{6}Z$/);
});

test('records are bounded: files, slowest actions, histories', async () => {
  for (let at = 0; at < buildsMax + 20; at += 1) {
    run(`x${at}`, { invocation: `many-${at}` });
    clock.advance(1_000);
  }
  const stages = Array.from(
    { length: 200 },
    (_, at): RecordedEvent => ({
      kind: 'progress',
      atMs: clock.nowMs() + at,
      run: 'long',
      stage: at % 2 === 0 ? 'fetching' : 'executing',
      node: 'ben',
    }),
  );
  run('long', {}, stages);
  for (let at = 0; at < 30; at += 1) run(`y${at}`);
  const report = await builds.show('build-1');
  expect(report.slowest).toHaveLength(slowestKept);
  expect(report.slowest.find(({ target }) => target === '//:long')?.history).toHaveLength(historyMax);
  clock.advance(2 * buildIdleMs);
  await builds.close();
  builds = opened();
  run('last', { invocation: 'last' });
  clock.advance(2 * buildIdleMs);
  await expect.poll(async () => (await readdir(join(dataDir, 'builds'))).length).toBeLessThanOrEqual(buildsMax);
  expect((await builds.list())[0]?.id).toBe('last');
});

test('what others run takes no slot here', () => {
  const atMs = clock.nowMs();
  for (const [id, node] of [
    ['a', 'ben'],
    ['b', 'me'],
    ['c', 'carl'],
  ] as const) {
    builds.record({ kind: 'submitted', atMs, run: id, ...named(id) });
    builds.record({ kind: 'progress', atMs, run: id, stage: id === 'c' ? 'fetching' : 'executing', node });
  }
  expect(builds.elsewhere()).toBe(1);
});

test('this node is nobody else in its own records, in a mesh too', async () => {
  run('a', { source: 'here', node: 'me' }, [
    { kind: 'progress', atMs: clock.nowMs(), run: 'a', stage: 'executing', node: 'me' },
  ]);
  const { requests } = await builds.explain(named('a').action.hash);
  expect(requests[0]).toMatchObject({ source: 'here', node: null });
  expect(requests[0]?.history.map(({ node }) => node)).toEqual([null, null, null]);
  expect((await builds.show('build-1')).nodes).toMatchObject([{ node: null, executed: 1 }]);
});
