/**
 * Runs a sample of cache hits again while this node is idle, and what a person asks for at once; compares bit for bit, has a
 * mismatch confirmed by a third run, and drops what turns out wrong.
 *
 * @see docs/adr/0033-audit.md
 */
import { digestKey } from '../../../protos/digest.ts';
import type { ActionResult } from '../../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import type { VouchedResult } from '../../../protos/gen/potluck/mesh/v1/results_pb.ts';
import { StatusError, toStatusError } from '../../../protos/status.ts';
import type { Clock } from '../../execution/clock.ts';
import type { BlobStore } from '../../storage/blob-store.ts';
import type { ActionKey } from '../../storage/action-cache.ts';
import { type Comparison, compareResults, fingerprint } from './compare.ts';
import { knownRun, type Evidence, type Proven } from './denouncing.ts';
import { judge, type Run, type Verdict } from './judge.ts';
import type { Ledger, Mismatch } from './ledger.ts';
import * as limits from './limits.ts';
import type { Reexecute, Rerun } from './reexecute.ts';

/** A result that is known here. */
export interface KnownResult {
  readonly result: ActionResult;
  /** As it was signed; undefined outside of a mesh. */
  readonly vouched: VouchedResult | undefined;
}

/** An action and what its client called it. */
export interface AuditedAction extends ActionKey {
  readonly mnemonic: string;
  readonly target: string;
}

export interface AuditorOptions {
  /** Of hits, that are audited unasked. */
  readonly percent: number;
  readonly clock: Clock;
  /** From 0 up to 1. */
  readonly random: () => number;
  /** This node's peer id; '' while it is in no mesh. */
  readonly self: () => string;
  /** Other live members. */
  readonly others: () => readonly string[];
  readonly known: (key: ActionKey) => Promise<KnownResult | undefined>;
  readonly reexecute: Reexecute;
  /** With members behind it: outputs of the known result may have to be fetched. */
  readonly blobs: Pick<BlobStore, 'get' | 'open'>;
  readonly ledger: Ledger;
  /** Whether nothing runs here, and its owner would not notice. */
  readonly isIdle: () => boolean;
  /** Members can be convinced. */
  readonly onEvidence: (evidence: Evidence) => void;
  /** A result is not used here any more. */
  readonly onDropped: (dropped: Dropped) => void;
  readonly onLog: (level: 'info' | 'warning', text: string) => void;
}

export interface Dropped {
  readonly key: ActionKey;
  readonly vouched: VouchedResult | undefined;
  readonly reason: 'wrong' | 'nonDeterministic';
  /** Who made it; '' for this node outside of a mesh. */
  readonly node: string;
  readonly isUpload: boolean;
}

/** An audit that somebody asked for. */
export interface AuditJob {
  readonly action: string;
  readonly instance: string;
  readonly state: 'running' | 'done' | 'failed';
  readonly verdict: 'same' | Mismatch['verdict'] | null;
  /** Why it could not be done; a sentence. */
  readonly error: string | null;
  readonly mismatch: Mismatch | null;
}

/** The object of `/api/audit`. Fields are only ever added. */
export interface AuditStatus {
  readonly percent: number;
  /** Since the node started, by how they ended. `impossible`: it could not be run again. */
  readonly audits: Readonly<Record<AuditOutcome, number>>;
  readonly waiting: number;
  /** Newest first. */
  readonly mismatches: readonly Mismatch[];
  /** Denouncements of members that proved nothing; newest first. */
  readonly refused: readonly RefusedDenouncement[];
}

export interface RefusedDenouncement {
  /** ISO 8601. */
  readonly time: string;
  readonly peer: string;
  /** Why it proves nothing. */
  readonly reason: string;
}

export type AuditOutcome = 'same' | Mismatch['verdict'] | 'impossible';

export const noAudits: AuditStatus['audits'] = {
  same: 0,
  wrong: 0,
  nonDeterministic: 0,
  unconfirmed: 0,
  refuted: 0,
  impossible: 0,
};

export interface Auditor {
  /** A client got a known result. */
  onHit(action: AuditedAction): void;
  /** Begins an audit now, unless one of the action is under way. */
  begin(action: AuditedAction): AuditJob;
  job(key: ActionKey): AuditJob | undefined;
  /** Members were convinced by a member. */
  onProven(proven: Proven): void;
  status(): Omit<AuditStatus, 'refused'>;
  close(): Promise<void>;
}

type Audited = { readonly verdict: 'same' } | { readonly verdict: Mismatch['verdict']; readonly mismatch: Mismatch };

export function createAuditor(options: AuditorOptions): Auditor {
  const { clock, ledger, onLog, reexecute } = options;
  const waiting = new Map<string, AuditedAction>();
  /** When it was audited last. */
  const audited = new Map<string, number>();
  const jobs = new Map<string, AuditJob>();
  const audits = { ...noAudits };
  const closing = new AbortController();
  const running = new Set<Promise<void>>();
  let sampled: Promise<void> | undefined;
  let begun: number[] = [];
  let cancelTimer: (() => void) | undefined;

  function onHit(action: AuditedAction): void {
    if (options.random() * 100 >= options.percent || closing.signal.aborted) return;
    const name = nameOf(action);
    // It would differ again, and be made again, for ever.
    if (ledger.isNonDeterministic(digestKey(action.action), action.instance)) return;
    const lastMs = audited.get(name);
    const isRecent = lastMs !== undefined && clock.nowMs() - lastMs < limits.auditedForMs;
    if (isRecent || waiting.size >= limits.waitingMax) return;
    waiting.set(name, action);
    cancelTimer ??= clock.setTimer(limits.idlePollMs, look);
  }

  /** Audits the next sampled hit when this node has nothing else to do. */
  function look(): void {
    cancelTimer = undefined;
    const nowMs = clock.nowMs();
    begun = begun.filter((atMs) => nowMs - atMs < 3_600_000);
    const [next] = waiting;
    if (next && !sampled && begun.length < limits.auditsPerHour && options.isIdle()) {
      const [name, action] = next;
      waiting.delete(name);
      begun.push(nowMs);
      sampled = run(action).then(
        () => {
          sampled = undefined;
        },
        () => {
          sampled = undefined;
        },
      );
    }
    if (waiting.size > 0) cancelTimer = clock.setTimer(limits.idlePollMs, look);
  }

  /** Counts and remembers; throws when the action could not be run again. */
  function run(action: AuditedAction): Promise<Audited> {
    remember(audited, nameOf(action), clock.nowMs(), limits.auditedMax);
    const work = audit(action);
    const done = work.then(
      ({ verdict }) => void (audits[verdict] += 1),
      (error: unknown) => {
        audits.impossible += 1;
        onLog('info', `action ${digestKey(action.action)} was not audited: ${toStatusError(error).reason}`);
      },
    );
    running.add(done);
    void done.finally(() => running.delete(done));
    return work;
  }

  async function audit(action: AuditedAction): Promise<Audited> {
    const key: ActionKey = { instance: action.instance, action: action.action };
    const signal = AbortSignal.any([closing.signal, AbortSignal.timeout(limits.rerunMaxMs)]);
    const found = await options.known(key);
    if (!found) throw new StatusError('NOT_FOUND', 'no result of it is known here');
    if (found.result.exitCode !== 0) throw new StatusError('FAILED_PRECONDITION', 'its command had failed');
    const self = options.self();
    const known = found.vouched ? knownRun(key, found.vouched) : unsignedRun(self, key, found.result);
    if (!known) throw new StatusError('DATA_LOSS', 'the result that is known is malformed');

    const first = await rerunElsewhere(key, [known], signal, (run) => run.fingerprint === known.fingerprint);
    const again = runOf(key, first);
    if (again.fingerprint === known.fingerprint) return { verdict: 'same' };
    const comparison = await compareResults(options.blobs, key.action.fn, found.result, first.result).catch(
      incomparable,
    );
    // What fails now where it succeeded then shows trouble, and not which of the two is right.
    const hasFailed = first.result.exitCode !== 0;
    const second = hasFailed ? undefined : await confirm(key, [known, again], signal);
    const third = second && runOf(key, second);
    const verdict: Verdict = hasFailed ? { kind: 'unconfirmed' } : judge(self, known, again, third);
    const mismatch = mismatchOf(action, verdict, { known, again, third, toldBy: null }, comparison);
    conclude(key, found, known, verdict, mismatch, [first, second]);
    return { verdict: mismatch.verdict, mismatch };
  }

  /**
   * Runs it by somebody else than those, while there is somebody: who is to be avoided runs it all the same when the others are
   * busy or slow, and that is no second opinion.
   */
  async function rerunElsewhere(
    key: ActionKey,
    runs: readonly Run[],
    signal: AbortSignal,
    isEnough: (run: Run) => boolean,
  ): Promise<Rerun> {
    const avoid = [...new Set(runs.flatMap(idsOf))];
    for (let tries = 1; ; tries += 1) {
      const rerun = await reexecute(key, { avoid, signal });
      const run = runOf(key, rerun);
      const isElsewhere = !avoid.includes(run.node) || !options.others().some((node) => !avoid.includes(node));
      if (isElsewhere || isEnough(run) || tries >= limits.elsewhereTries) return rerun;
      await pause(limits.elsewherePauseMs, signal);
    }
  }

  async function pause(delayMs: number, signal: AbortSignal): Promise<void> {
    const over = Promise.withResolvers<void>();
    const cancelPause = clock.setTimer(delayMs, over.resolve);
    signal.addEventListener('abort', () => over.resolve(), { once: true });
    await over.promise;
    cancelPause();
    signal.throwIfAborted();
  }

  /** A third run, if possible by somebody else. */
  async function confirm(key: ActionKey, runs: readonly Run[], signal: AbortSignal): Promise<Rerun | undefined> {
    try {
      const rerun = await rerunElsewhere(key, runs, signal, () => false);
      return rerun.result.exitCode === 0 ? rerun : undefined;
    } catch (error) {
      onLog(
        'info',
        `nobody could confirm the mismatch of action ${digestKey(key.action)}: ${toStatusError(error).reason}`,
      );
      return undefined;
    }
  }

  function conclude(
    key: ActionKey,
    { vouched }: KnownResult,
    known: Run,
    verdict: Verdict,
    mismatch: Mismatch,
    [first, second]: readonly (Rerun | undefined)[],
  ): void {
    ledger.add(mismatch);
    onLog('warning', `${sentences[mismatch.verdict]}: ${nameForPeople(mismatch)}; see potluck audit`);
    if (verdict.kind !== 'wrong') return;
    const reason = verdict.nonDeterministic ? 'nonDeterministic' : 'wrong';
    options.onDropped({ key, vouched, reason, node: known.node, isUpload: known.isUpload ?? false });
    if (verdict.everywhere && vouched && first?.vouched && second?.vouched) {
      options.onEvidence({ key, denounced: vouched, reruns: [first.vouched, second.vouched] });
    }
  }

  function runOf(key: ActionKey, { result, vouched }: Rerun): Run {
    const node = vouched ? knownRun(key, vouched)?.node : undefined;
    return { node: node ?? options.self(), fingerprint: printOf(key, result) };
  }

  function mismatchOf(
    { action, instance, mnemonic, target }: AuditedAction,
    verdict: Verdict,
    { known, again, third, toldBy }: { known: Run; again: Run; third: Run | undefined; toldBy: string | null },
    { differences, more, streams }: Comparison,
  ): Mismatch {
    const isWrong = verdict.kind === 'wrong';
    return {
      time: new Date(clock.nowMs()).toISOString(),
      action: digestKey(action),
      instance,
      mnemonic,
      target,
      verdict: isWrong
        ? verdict.nonDeterministic
          ? 'nonDeterministic'
          : 'wrong'
        : verdict.kind === 'refuted'
          ? 'refuted'
          : 'unconfirmed',
      dropped: isWrong ? (verdict.everywhere ? 'everywhere' : 'here') : 'no',
      known: plain(known),
      again: plain(again),
      third: third ? plain(third) : null,
      toldBy,
      differences,
      more,
      streams,
    };
  }

  return {
    onHit,
    begin(action) {
      const name = nameOf(action);
      const underWay = jobs.get(name);
      if (underWay?.state === 'running') return underWay;
      const blank = {
        action: digestKey(action.action),
        instance: action.instance,
        verdict: null,
        error: null,
        mismatch: null,
      };
      const job: AuditJob = { ...blank, state: 'running' };
      const end = (change: Partial<AuditJob>): void => remember(jobs, name, { ...job, ...change }, limits.jobsMax);
      remember(jobs, name, job, limits.jobsMax);
      run(action).then(
        (ended) =>
          end({ state: 'done', verdict: ended.verdict, mismatch: 'mismatch' in ended ? ended.mismatch : null }),
        (error: unknown) => end({ state: 'failed', error: toStatusError(error).reason }),
      );
      return job;
    },
    job: (key) => jobs.get(nameOf(key)),
    onProven({ key, denounced, known, again, third, auditor }) {
      const name = digestKey(key.action);
      if (ledger.isDropped(name, key.instance, known.fingerprint)) return;
      const nonDeterministic = again.fingerprint !== third.fingerprint;
      const verdict: Verdict = { kind: 'wrong', nonDeterministic, everywhere: true };
      const unnamed = { ...key, mnemonic: '', target: '' };
      const nothing = { differences: [], more: 0, streams: [] };
      ledger.add(mismatchOf(unnamed, verdict, { known, again, third, toldBy: auditor }, nothing));
      const reason = nonDeterministic ? 'nonDeterministic' : 'wrong';
      options.onDropped({ key, vouched: denounced, reason, node: known.node, isUpload: known.isUpload ?? false });
    },
    status: () => ({
      percent: options.percent,
      audits: { ...audits },
      waiting: waiting.size,
      mismatches: ledger.mismatches(),
    }),
    async close() {
      closing.abort();
      cancelTimer?.();
      await Promise.all(running);
      await ledger.settled();
    },
  };
}

const sentences: Readonly<Record<Mismatch['verdict'], string>> = {
  wrong: 'a result came out otherwise when its action was run again, twice, and was dropped',
  nonDeterministic: 'an action does not come out the same twice; its result was dropped',
  unconfirmed: 'a result came out otherwise when its action was run again; nobody else could confirm it',
  refuted: 'a result came out otherwise once, and as it was known the next time',
};

/** That two results differ is known; whoever made one of them must not escape by what cannot be looked at. */
function incomparable(error: unknown): Comparison {
  const what = `could not be compared: ${toStatusError(error).reason}`;
  return { differences: [{ output: 'outputs', what }], more: 0, streams: [] };
}

function nameForPeople({ action, mnemonic, target }: Mismatch): string {
  return [mnemonic, target, `action ${action}`].filter((text) => text !== '').join(' ');
}

/** Of a result that was kept before this node was in a mesh: clients name no worker in what they bring. */
function unsignedRun(self: string, key: ActionKey, result: ActionResult): Run {
  const isUpload = !result.executionMetadata?.worker;
  return { node: self, fingerprint: printOf(key, result), isUpload };
}

function plain({ node, fingerprint: print }: Run) {
  return { node, fingerprint: print };
}

function idsOf({ node }: Run): string[] {
  return node === '' ? [] : [node];
}

function printOf({ action }: ActionKey, result: ActionResult): string {
  return fingerprint(action.fn, result);
}

function nameOf({ action, instance }: ActionKey): string {
  return `${digestKey(action)} ${instance}`;
}

function remember<T>(map: Map<string, T>, name: string, value: T, max: number): void {
  map.delete(name);
  map.set(name, value);
  const [oldest] = map.keys();
  if (map.size > max && oldest !== undefined) map.delete(oldest);
}
