/**
 * What this node knows about builds: an append-only record of each client invocation, made of events as they come, and
 * what people and programs ask of it. It is a projection: nothing is ever decided from it.
 *
 * @see docs/adr/0032-build-records.md
 */
import { join } from 'node:path';
import { digestKey } from '../../protos/digest.ts';
import { StatusError } from '../../protos/status.ts';
import type { Clock } from '../execution/clock.ts';
import type { NamedAction } from '../offload/events.ts';
import type { Tally } from '../peers/tally.ts';
import { createBuildFiles } from './build-files.ts';
import type { EventOf, RecordedEvent } from './events.ts';
import * as limits from './limits.ts';
import type { ActionRecord, BuildReport, BuildSummary, Explanation, MovedBytes, RunningAction } from './records.ts';
import { createRecentResults, type RecentResults } from './recent-results.ts';
import { createRuns } from './runs.ts';
import { type BuildFacts, createSumming, nothingMoved, type Summing } from './summary.ts';

export interface BuildsOptions {
  readonly dataDir: string;
  readonly clock: Clock;
  /** This node's name; it stands for clients that name no invocation. */
  readonly name: string;
  /** This node's peer id while it is in a mesh. */
  readonly self: () => string | undefined;
  /** Of this node; 0 for one that only caches. */
  readonly slots: number;
  /** What went over the mesh so far. */
  readonly tally?: () => Tally | undefined;
  readonly onProblem: (reason: string) => void;
}

export interface Builds {
  /** Takes events; never throws. */
  record(event: RecordedEvent): void;
  readonly results: RecentResults;
  /** Newest first. */
  list(): Promise<BuildSummary[]>;
  /** By id or the beginning of one that is the only such. Throws NOT_FOUND. */
  show(id: string): Promise<BuildReport>;
  /** By `function/hash/size`, `hash/size`, hash or the beginning of one. Throws INVALID_ARGUMENT or NOT_FOUND. */
  explain(action: string): Promise<Explanation>;
  /** Builds that something was heard of lately, newest first. */
  active(): BuildSummary[];
  running(): RunningAction[];
  /** How many actions of this node's clients other members run now. */
  elsewhere(): number;
  close(): Promise<void>;
}

interface OpenBuild {
  readonly id: string;
  readonly name: string;
  readonly startedMs: number;
  tool: string;
  correlated: string;
  lastMs: number;
  readonly movedBefore: MovedBytes;
  readonly summing: Summing;
}

export function createBuilds(options: BuildsOptions): Builds {
  const { clock, slots } = options;
  const files = createBuildFiles(join(options.dataDir, 'builds'), clock, options.onProblem);
  const runs = createRuns((node) => node === options.self());
  const results = createRecentResults(() => clock.nowMs());
  /** By what clients call them; the one heard of last is last. */
  const open = new Map<string, OpenBuild>();
  /** Of files that are not written to any more. */
  const closed = new Map<string, BuildReport>();
  let cancelIdle: (() => void) | undefined;

  function buildOf(invocation: string, nowMs: number): OpenBuild {
    const known = open.get(invocation);
    if (known) open.delete(invocation);
    const build = known ?? begin(invocation, nowMs);
    build.lastMs = Math.max(build.lastMs, nowMs);
    open.set(invocation, build);
    return build;
  }

  function begin(invocation: string, nowMs: number): OpenBuild {
    const [silent] = open.values();
    if (silent && open.size >= limits.openBuildsMax) finish(silent);
    const started = new Date(nowMs).toISOString();
    const id = invocation === '' ? `${options.name}-${started.replace(/[-:]|\.\d+/g, '')}` : invocation;
    const name = files.nameOf(id, nowMs);
    files.append(name, { kind: 'build', id, started });
    cancelIdle ??= clock.setTimer(limits.buildIdleMs, lookForIdle);
    const movedBefore = options.tally?.()?.links ?? nothingMoved;
    const [tool, correlated] = ['', ''];
    return { id, name, startedMs: nowMs, tool, correlated, lastMs: nowMs, movedBefore, summing: createSumming() };
  }

  function lookForIdle(): void {
    const nowMs = clock.nowMs();
    const busy = new Set(runs.invocations());
    for (const [invocation, build] of open) {
      if (nowMs - build.lastMs >= limits.buildIdleMs && !busy.has(invocation)) finish(build);
    }
    cancelIdle = open.size > 0 ? clock.setTimer(limits.buildIdleMs, lookForIdle) : undefined;
    files.tidy(nowMs).catch(() => {});
  }

  function finish(build: OpenBuild): void {
    for (const [invocation, one] of open) if (one === build) open.delete(invocation);
    const report = reportOf(build, false);
    files.append(build.name, { kind: 'summary', ...report });
    closed.set(build.name, report);
    const [oldest] = closed.keys();
    if (closed.size > limits.buildsMax && oldest !== undefined) closed.delete(oldest);
  }

  function reportOf(build: OpenBuild, active: boolean): BuildReport {
    return build.summing.report({
      id: build.id,
      correlated: build.correlated,
      tool: build.tool,
      started: new Date(build.startedMs).toISOString(),
      ended: new Date(build.lastMs).toISOString(),
      active,
      moved: difference(options.tally?.()?.links ?? nothingMoved, build.movedBefore),
      slots,
    });
  }

  function add(build: OpenBuild, record: ActionRecord): void {
    build.summing.add(record);
    if (!files.append(build.name, { kind: 'action', ...record })) build.summing.unrecorded();
  }

  function onLookedUp(event: EventOf<'lookedUp'>): void {
    const build = buildOf(cut(event.invocation), event.atMs);
    if (event.outcome === 'miss') return build.summing.miss();
    const runMs = Math.round(results.runMs(event));
    add(build, {
      ...simple(event),
      source: event.from === undefined ? 'hit-local' : 'hit-peer',
      node: event.from ?? null,
      runMs,
      savedMs: runMs,
    });
  }

  /** A record made elsewhere than of a run under way. */
  function take(event: RecordedEvent): void {
    switch (event.kind) {
      case 'client': {
        const build = open.get(cut(event.invocation));
        if (!build) return;
        build.tool ||= event.tool.slice(0, limits.idCharsMax);
        build.correlated ||= event.correlated.slice(0, limits.idCharsMax);
        return;
      }
      case 'lookedUp':
        return onLookedUp(event);
      case 'uploaded': {
        const build = buildOf(cut(event.invocation), event.atMs);
        return add(build, { ...simple(event), source: 'uploaded', runMs: Math.round(event.runMs) });
      }
      case 'submitted':
        buildOf(cut(event.invocation), event.atMs);
        return runs.submitted(event);
      case 'joined':
        buildOf(cut(event.invocation), event.atMs);
        return runs.joined(event);
      case 'decided':
        return runs.decided(event);
      case 'progress':
        return runs.progress(event);
      case 'retried':
        return runs.retried(event);
      case 'ended':
        for (const { named, record } of runs.ended(event)) add(buildOf(cut(named.invocation), event.atMs), record);
        return;
      // What is done for others belongs to their builds.
      case 'guestStarted':
      case 'guestFrozen':
      case 'guestEnded':
      case 'lied':
      case 'commitRefused':
        return;
      default:
        event satisfies never;
    }
  }

  async function readReport(name: string): Promise<BuildReport | undefined> {
    const known = closed.get(name);
    if (known) return known;
    const last = await files.last(name);
    const report = last?.kind === 'summary' ? reportOfLine(last) : await sumUp(name);
    if (report) closed.set(name, report);
    return report;
  }

  /** Of a build whose node died before it ended. */
  async function sumUp(name: string): Promise<BuildReport | undefined> {
    const summing = createSumming();
    let facts: BuildFacts | undefined;
    for await (const line of files.read(name)) {
      if (line.kind === 'build') {
        facts = {
          id: line.id,
          correlated: '',
          tool: '',
          started: line.started,
          ended: line.started,
          active: false,
          moved: nothingMoved,
          slots,
        };
      } else if (line.kind === 'action') {
        summing.add(line);
        const ended = new Date(Date.parse(line.started) + line.totalMs).toISOString();
        if (facts && ended > facts.ended) facts = { ...facts, ended };
      }
    }
    return facts && summing.report(facts);
  }

  /** Newest first; those under way as they are now. */
  async function reports(): Promise<BuildReport[]> {
    const underWay = new Map([...open.values()].map((build) => [build.name, build]));
    const found = [...underWay.values()].map((build) => reportOf(build, true));
    for (const { name } of await files.list()) {
      if (underWay.has(name)) continue;
      const report = await readReport(name);
      if (report) found.push(report);
    }
    return found.sort((a, b) => (a.started < b.started ? 1 : -1)).slice(0, limits.buildsMax);
  }

  return {
    results,
    record(event) {
      try {
        take(event);
      } catch (error) {
        options.onProblem(`an event was not recorded: ${error instanceof Error ? error.message : String(error)}`);
      }
    },
    active: () => [...open.values()].reverse().map((build) => summaryOf(reportOf(build, true))),
    running: () => runs.running(clock.nowMs()).slice(0, limits.topActionsMax),
    elsewhere: () => runs.elsewhere(),
    async list() {
      return (await reports()).map(summaryOf);
    },
    async show(id) {
      const all = await reports();
      const matching = all.filter((report) => report.id === id);
      const [found, second] = matching.length > 0 ? matching : all.filter((report) => report.id.startsWith(id));
      if (found && (!second || found.id === second.id)) return found;
      const problem = second ? 'is the beginning of several' : 'is not recorded here';
      throw new StatusError('NOT_FOUND', `build "${id}" ${problem}; see potluck builds`);
    },
    async explain(text) {
      const prefix = prefixOf(text);
      await files.flush();
      const running = runs.running(clock.nowMs()).filter(({ action }) => isNamed(action, prefix));
      const requests: (ActionRecord & { build: string })[] = [];
      for (const { name } of (await files.list()).slice(0, limits.explainBuildsMax)) {
        let build = '';
        const inBuild: (ActionRecord & { build: string })[] = [];
        for await (const line of files.read(name, `/${prefix}`)) {
          if (line.kind === 'build') build = line.id;
          if (line.kind !== 'action' || !isNamed(line.action, prefix)) continue;
          const { kind: _, ...record } = line;
          inBuild.unshift({ ...record, build });
        }
        requests.push(...inBuild);
        if (requests.length >= limits.explainedMax) break;
      }
      if (requests.length + running.length > 0) return { running, requests: requests.slice(0, limits.explainedMax) };
      throw new StatusError('NOT_FOUND', `no request for an action ${prefix}… is recorded on this node`);
    },
    async close() {
      cancelIdle?.();
      for (const build of [...open.values()]) finish(build);
      await files.close();
    },
  };
}

/** The record of a request that was answered at once. */
function simple(event: NamedAction & { readonly atMs: number }): ActionRecord {
  return {
    action: digestKey(event.action),
    instance: event.instance,
    mnemonic: event.mnemonic.slice(0, limits.mnemonicCharsMax),
    target: event.target.slice(0, limits.targetCharsMax),
    source: 'hit-local',
    node: null,
    outcome: 'succeeded',
    error: null,
    started: new Date(event.atMs).toISOString(),
    queuedMs: 0,
    fetchMs: 0,
    runMs: 0,
    handOverMs: 0,
    totalMs: 0,
    savedMs: 0,
    decision: null,
    token: null,
    retries: 0,
    history: [],
    result: null,
  };
}

function summaryOf(report: BuildReport): BuildSummary {
  const { nodes: _, slowest: __, failures: ___, ...summary } = report;
  return summary;
}

function reportOfLine(line: { readonly kind: string } & BuildReport): BuildReport {
  const { kind: _, ...report } = line;
  return report;
}

function cut(invocation: string): string {
  return invocation.slice(0, limits.idCharsMax);
}

function difference(now: MovedBytes, before: MovedBytes): MovedBytes {
  const of = (link: keyof MovedBytes) => ({
    receivedBytes: now[link].receivedBytes - before[link].receivedBytes,
    servedBytes: now[link].servedBytes - before[link].servedBytes,
  });
  return { subnet: of('subnet'), site: of('site'), other: of('other') };
}

/** @param action - `function/hash/size` */
function isNamed(action: string, prefix: string): boolean {
  return action.startsWith(prefix, action.indexOf('/') + 1);
}

/** The hash, or its beginning and the size, as it stands in an action's key. */
function prefixOf(text: string): string {
  const [, prefix] = /^(?:[a-z0-9]+\/)??([0-9a-f]+(?:\/\d+)?)$/.exec(text.toLowerCase()) ?? [];
  if (prefix !== undefined && prefix.split('/')[0]!.length >= limits.prefixCharsMin) return prefix;
  throw new StatusError(
    'INVALID_ARGUMENT',
    `"${text.slice(0, 100)}" is no action; give its digest or at least ${limits.prefixCharsMin} digits from its beginning`,
  );
}
