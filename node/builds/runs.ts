/** Follows runs under way: puts what is told about each together until it ends. */
import { digestKey } from '../../protos/digest.ts';
import type { NamedAction } from '../offload/events.ts';
import type { EventOf } from './events.ts';
import * as limits from './limits.ts';
import { reasonText } from './reasons.ts';
import type { ActionRecord, ActionSource, Decision, RunningAction, Step } from './records.ts';

export interface Runs {
  submitted(event: EventOf<'submitted'>): void;
  joined(event: EventOf<'joined'>): void;
  decided(event: EventOf<'decided'>): void;
  progress(event: EventOf<'progress'>): void;
  retried(event: EventOf<'retried'>): void;
  /** One record for who submitted the run and for each build that joined it. */
  ended(event: EventOf<'ended'>): readonly { readonly named: NamedAction; readonly record: ActionRecord }[];
  /** Whose actions are under way. */
  invocations(): Iterable<string>;
  /** Oldest first. */
  running(atMs: number): RunningAction[];
  /** How many other members run. */
  elsewhere(): number;
}

interface Run {
  readonly named: NamedAction;
  readonly joined: (NamedAction & { readonly atMs: number })[];
  readonly startedMs: number;
  stage: RunningAction['stage'];
  stageSinceMs: number;
  node: string | null;
  fetchMs: number;
  retries: number;
  decision: Decision | null;
  readonly history: Step[];
}

const sources = { cache: 'hit-local', 'peer-cache': 'hit-peer', here: 'here', peer: 'peer' } as const;

/** @param isSelf - whether a peer id is this node's own, which records leave out */
export function createRuns(isSelf: (node: string) => boolean): Runs {
  const runs = new Map<string, Run>();

  const other = (node: string | null | undefined): string | null =>
    node === null || node === undefined || isSelf(node) ? null : node;

  function note(run: Run, atMs: number, what: string, node: string | null): void {
    // The beginning and the latest explain most: what falls out is in between.
    if (run.history.length >= limits.historyMax) run.history.splice(limits.historyMax / 2, 1);
    run.history.push({ afterMs: Math.max(0, Math.round(atMs - run.startedMs)), what, node });
  }

  function enter(run: Run, stage: RunningAction['stage'], node: string | null, atMs: number): void {
    if (run.stage === 'fetching') run.fetchMs += Math.max(0, atMs - run.stageSinceMs);
    run.stage = stage;
    run.stageSinceMs = atMs;
    run.node = node;
  }

  return {
    submitted({ run: id, atMs, action, instance, invocation, mnemonic, target }) {
      const [oldest] = runs.keys();
      // An end that was never told must not be kept for ever.
      if (runs.size >= limits.openRunsMax && oldest !== undefined) runs.delete(oldest);
      const run: Run = {
        named: { action, instance, invocation, mnemonic, target },
        joined: [],
        startedMs: atMs,
        stage: 'queued',
        stageSinceMs: atMs,
        node: null,
        fetchMs: 0,
        retries: 0,
        decision: null,
        history: [],
      };
      note(run, atMs, 'submitted', null);
      runs.set(id, run);
    },
    joined({ run: id, atMs, action, instance, invocation, mnemonic, target }) {
      const run = runs.get(id);
      if (!run || run.joined.length >= limits.openBuildsMax) return;
      run.joined.push({ atMs, action, instance, invocation, mnemonic, target });
    },
    decided({ run: id, atMs, where, hereMs, elsewhereMs, why }) {
      const run = runs.get(id);
      if (!run) return;
      run.decision = { where, hereMs: finite(hereMs), elsewhereMs: finite(elsewhereMs), why };
      note(run, atMs, `${where === 'here' ? 'kept here' : 'offered to the mesh'}: ${reasonText(why)}`, null);
    },
    progress({ run: id, atMs, stage, node: said }) {
      const run = runs.get(id);
      const node = other(said);
      if (!run || (run.stage === stage && run.node === node)) return;
      enter(run, stage, node, atMs);
      note(run, atMs, stage, node);
    },
    retried({ run: id, atMs, why }) {
      const run = runs.get(id);
      if (!run) return;
      run.retries += 1;
      note(run, atMs, `tried again: ${why}`, run.node);
      enter(run, 'queued', null, atMs);
    },
    ended(event) {
      const run = runs.get(event.run);
      if (!run) return [];
      runs.delete(event.run);
      const node = other(event.node);
      enter(run, run.stage, node, event.atMs);
      note(run, event.atMs, event.outcome, node);
      const record = recordOf(run, event, node);
      const others = run.joined.map((named) => {
        const totalMs = Math.max(0, event.atMs - named.atMs);
        const started = new Date(named.atMs).toISOString();
        return {
          named,
          record: { ...record, ...named_(named), source: 'joined', started, totalMs, savedMs: 0 } as const,
        };
      });
      return [{ named: run.named, record }, ...others];
    },
    *invocations() {
      for (const { named, joined } of runs.values()) yield* [named, ...joined].map(({ invocation }) => invocation);
    },
    running: (atMs) =>
      [...runs.values()].map(({ named, stage, node, startedMs, decision, history }) => ({
        action: digestKey(named.action),
        mnemonic: named.mnemonic,
        target: named.target,
        stage,
        node,
        ageMs: Math.max(0, Math.round(atMs - startedMs)),
        decision,
        history: [...history],
      })),
    elsewhere: () => [...runs.values()].filter(({ stage, node }) => stage === 'executing' && node !== null).length,
  };
}

function recordOf(
  run: Run,
  { outcome, source, token, error, times, result }: EventOf<'ended'>,
  node: string | null,
): ActionRecord {
  const recorded: ActionSource = sources[source];
  return {
    action: digestKey(run.named.action),
    ...named_(run.named),
    source: recorded,
    node,
    outcome,
    error: error?.slice(0, limits.errorCharsMax) ?? null,
    started: new Date(run.startedMs).toISOString(),
    queuedMs: Math.round(times.queuedMs),
    fetchMs: Math.round(run.fetchMs),
    runMs: Math.round(times.runMs),
    handOverMs: Math.round(times.handOverMs),
    totalMs: Math.round(times.totalMs),
    savedMs: recorded === 'here' ? 0 : savedMs(times.runMs, run.decision),
    decision: run.decision,
    token: token ?? null,
    retries: run.retries,
    history: run.history,
    result: result ?? null,
  };
}

function named_({ instance, mnemonic, target }: NamedAction) {
  return {
    instance,
    mnemonic: mnemonic.slice(0, limits.mnemonicCharsMax),
    target: target.slice(0, limits.targetCharsMax),
  };
}

/** The run itself, and what it would have waited here for a slot: what was expected here beyond the run. */
function savedMs(runMs: number, decision: Decision | null): number {
  return Math.round(runMs + Math.max(0, (decision?.hereMs ?? 0) - runMs));
}

function finite(ms: number): number | null {
  return Number.isFinite(ms) ? Math.round(ms) : null;
}
