/**
 * The actions of this node's own clients while the mesh's machine has them: told to the machine, shown to their clients
 * as far as they are, their outputs fetched and checked, and answered.
 */
import type { ActionKey as ActionName, BlobKey, NodeId, RequestId } from '../../mesh/core/ids.ts';
import { tokenText } from '../../mesh/core/ids.ts';
import type { PeerEvent } from '../../mesh/core/peer.ts';
import { StatusError, toStatusError } from '../../protos/status.ts';
import type { InputDirectory } from '../../sandbox/input-tree.ts';
import type { Clock } from '../execution/clock.ts';
import { namedAction, type OfferedRun } from '../execution/offering.ts';
import type { PreparedAction } from '../execution/prepare.ts';
import type { RunReport } from '../execution/run-action.ts';
import type { OffloadWork } from '../mesh/offloading.ts';
import type { ActionKey } from '../storage/action-cache.ts';
import { type Answer, failedReport, failureOf, reportOf } from './answers.ts';
import type { AnswerSource, NamedAction, Recorder } from './events.ts';
import { itemOf } from './item.ts';
import { actionName, blobName } from './keys.ts';
import * as limits from './limits.ts';
import type { LogRelay } from './log-relay.ts';
import { type HandedResult, outcomeOf, type Results } from './results.ts';
import type { OwnRequest } from './runs.ts';

export type RequestWork = Extract<OffloadWork, { readonly kind: 'fetchOutputs' | 'stopFetch' | 'answer' | 'progress' }>;
type RequestEvent = Extract<PeerEvent, { readonly kind: 'execute' | 'cancel' | 'outputsFetched' }>;
type FetchOutputs = Extract<RequestWork, { readonly kind: 'fetchOutputs' }>;

export interface RequestsOptions {
  readonly self: NodeId;
  readonly shards: number;
  /** What the mesh offers and the action asks for beside it; undefined when somebody has it by now. */
  readonly unmatched: (offered: OfferedRun) => StatusError | undefined;
  /** What an action asks of whoever runs it. */
  readonly requires: (offered: OfferedRun) => readonly string[];
  readonly clock: Clock;
  readonly results: Results;
  /** The input tree of an action that was prepared. */
  readonly treeOf: (offered: OfferedRun) => Promise<InputDirectory>;
  readonly hold: (handed: HandedResult) => Promise<boolean>;
  /** Keeps a result for later lookups. */
  readonly keep: (handed: HandedResult) => Promise<void>;
  readonly logs: Pick<LogRelay, 'follow'>;
  /** Tells a member, which is about to fetch the inputs, what they are. */
  readonly hintInputs: (node: NodeId, key: ActionKey, prepared: PreparedAction, root: InputDirectory) => void;
  /** Fetches what a member says that the action has produced, until disposed. */
  readonly useOutputs: (key: ActionKey, node: NodeId) => Disposable;
  /** As results name a member. */
  readonly workerName: (node: NodeId) => string;
  readonly deliver: (event: RequestEvent) => void;
  readonly record: Recorder;
  /** Has the register drop a result that is wrong. */
  readonly invalidate: (key: ActionKey, result: BlobKey) => void;
  /** A member handed over what it should not have; a sentence. */
  readonly onLie: (node: NodeId, reason: string) => void;
}

export interface Requests {
  /** See RunOffering.run. */
  run(offered: OfferedRun): Promise<RunReport>;
  perform(work: RequestWork): void;
  /** A request for that action: this one, or another when they may share a run. */
  own(request: RequestId, name: ActionName): OwnRequest | undefined;
  /** How records name the run of a request. */
  runOf(request: RequestId): string | undefined;
  open(): number;
  /** Gives every request back: whoever offered them tries again, here. */
  close(): void;
}

interface Request {
  readonly id: RequestId;
  readonly offered: OfferedRun;
  readonly key: ActionKey;
  readonly named: NamedAction;
  readonly root: InputDirectory;
  readonly submittedAtMs: number;
  readonly done: PromiseWithResolvers<RunReport>;
  node: NodeId | undefined;
  /** When somebody began to run it, the last time; when its outputs were offered. */
  executingAtMs: number | undefined;
  handOverAtMs: number | undefined;
  /** Ends following the output of the member that runs it. */
  following: AbortController | undefined;
  /** Outputs that are fetched before they are handed over. */
  outputs: Disposable | undefined;
  isRead: boolean;
  /** Calls off waiting for the end of members' patience (limits.awaySlackMs). */
  cancelAway: (() => void) | undefined;
  /** What this node ran into when it tried itself. */
  problem: StatusError | undefined;
}

/** It is tried again, on this node if that can run it at all. */
const again = (text: string): RunReport => failedReport(new StatusError('UNAVAILABLE', text), true);
const leftMesh = (): RunReport => again('this node left its mesh');

export function createRequests(options: RequestsOptions): Requests {
  const { self, clock, results, hold, keep, deliver, record } = options;
  const requests = new Map<RequestId, Request>();
  const fetches = new Map<number, AbortController>();
  let isClosed = false;

  function settle(request: Request, report: RunReport): void {
    if (!requests.delete(request.id)) return;
    request.cancelAway?.();
    leave(request);
    request.done.resolve(report);
  }

  /** A claim names its oldest waiter, which may be another member's. */
  function find(id: RequestId, name: ActionName): Request | undefined {
    const named = requests.get(id);
    if (named) return actionName(named.key) === name ? named : undefined;
    for (const request of requests.values()) {
      if (!request.offered.prepared.action.doNotCache && actionName(request.key) === name) return request;
    }
    return undefined;
  }

  /** Nothing more is expected of the member that ran it. */
  function leave(request: Request): void {
    request.following?.abort();
    request.following = undefined;
    request.outputs?.[Symbol.dispose]();
    request.outputs = undefined;
  }

  async function fetchOutputs(work: FetchOutputs): Promise<void> {
    const { fetch, from, result, token } = work;
    const request = requests.get(work.request);
    const abort = new AbortController();
    fetches.set(fetch, abort);
    const { signal } = abort;
    if (request) request.handOverAtMs ??= clock.nowMs();
    try {
      if (!request) throw new StatusError('NOT_FOUND', 'the request was answered');
      const brought = await results.bring({ name: result, key: request.key, token }, { hints: [from], signal });
      if (signal.aborted) return;
      if (brought.kind === 'here' && (await hold(brought.handed))) {
        if (!signal.aborted) deliver({ kind: 'outputsFetched', fetch, outcome: outcomeOf(brought.handed) });
        return;
      }
      if (brought.kind === 'lie') blame(request, from, result, brought.reason);
      if (!signal.aborted) {
        deliver({ kind: 'outputsFetched', fetch, outcome: undefined, ...(brought.kind === 'lie' && { lied: true }) });
      }
    } catch {
      if (!signal.aborted) deliver({ kind: 'outputsFetched', fetch, outcome: undefined });
    } finally {
      fetches.delete(fetch);
    }
  }

  function blame({ named, key }: Request, node: NodeId, result: BlobKey, reason: string): void {
    record({ kind: 'lied', atMs: clock.nowMs(), action: named.action, node, reason });
    // It may have been committed all the same, or be about to.
    options.invalidate(key, result);
    options.onLie(node, `its result of action ${blobName(key.action)} was refused: ${reason}`);
  }

  /** Nobody could get the inputs from this node. If they are here, it runs them itself; otherwise the client hears which are not. */
  async function inputsMissing({ offered }: Request): Promise<RunReport> {
    await offered.prepared.pin();
    return again('members could not fetch the inputs from this node');
  }

  /** The answer as its client gets it. */
  async function reportFor(request: Request, answer: Answer): Promise<RunReport> {
    if (answer.kind === 'failed') {
      if (answer.reason === 'inputsMissing') return await inputsMissing(request);
      // One member's word fails no build: this node looks itself.
      if (answer.reason === 'actionInvalid' && !request.problem) return again('a member calls the action invalid');
      const unmatched = answer.reason === 'unmatched' ? options.unmatched(request.offered) : undefined;
      return failedReport(unmatched ?? failureOf(answer.reason, request.problem));
    }
    const { outcome, source, token, executor } = answer;
    // Nearly always it was just brought, and all of it is here.
    const expected = {
      name: outcome.result,
      key: request.key,
      token,
      // Who was to run it signs what it made: nobody passes off the result of an earlier run.
      ...(source === 'mesh' && { executor }),
    };
    const { signal } = request.offered;
    const brought = await results.bring(expected, { hints: executor === self ? [] : [executor], signal });
    if (brought.kind !== 'here') {
      if (brought.kind === 'lie') blame(request, executor, outcome.result, brought.reason);
      return failedReport(new StatusError('UNAVAILABLE', `the result was found, but ${brought.reason}`), true);
    }
    const { handed } = brought;
    let message = handed.ending.message;
    if (outcomeOf(handed).cacheable && !request.offered.prepared.action.doNotCache) {
      await keep(handed).catch((error: unknown) => {
        message = `the result is good but could not be cached: ${toStatusError(error).reason}`;
      });
    }
    const nowMs = clock.nowMs();
    const executingAtMs = request.executingAtMs ?? nowMs;
    const handOverAtMs = request.handOverAtMs ?? nowMs;
    const report = reportOf(handed, source, message, {
      queueMs: executingAtMs - request.submittedAtMs,
      awayMs: Math.max(0, handOverAtMs - executingAtMs),
      handOverMs: nowMs - handOverAtMs,
    });
    recordEnd(request, report, handed, source === 'cache' ? 'peer-cache' : executor === self ? 'here' : 'peer');
    return report;
  }

  function recordEnd(
    request: Request,
    report: RunReport,
    handed: HandedResult | undefined,
    source: AnswerSource,
  ): void {
    // It is tried again: that is not the end.
    if (report.retriable) return;
    const nowMs = clock.nowMs();
    const ran = handed?.result.executionMetadata?.virtualExecutionDuration;
    record({
      kind: 'ended',
      atMs: nowMs,
      run: request.offered.run,
      ...request.named,
      outcome: report.outcome,
      source,
      node: handed?.executor,
      token: handed?.token && tokenText(handed.token),
      error: report.error?.reason,
      times: {
        queuedMs: (request.executingAtMs ?? nowMs) - request.submittedAtMs,
        runMs: ran ? Number(ran.seconds) * 1_000 + ran.nanos / 1e6 : 0,
        handOverMs: request.handOverAtMs === undefined ? 0 : nowMs - request.handOverAtMs,
        totalMs: nowMs - request.submittedAtMs,
      },
      result: handed?.name,
    });
  }

  async function answered(request: Request, answer: Answer): Promise<void> {
    let report: RunReport;
    try {
      report = await reportFor(request, answer);
    } catch (thrown) {
      const error = toStatusError(thrown, 'taking the result');
      report = failedReport(error, error.code !== 'FAILED_PRECONDITION');
    }
    if (report.response.result === undefined) recordEnd(request, report, undefined, 'here');
    settle(request, report);
  }

  function progress(request: Request, stage: 'queued' | 'fetching' | 'executing', node: NodeId | undefined): void {
    const nowMs = clock.nowMs();
    record({ kind: 'progress', atMs: nowMs, run: request.offered.run, stage, node });
    if (stage === 'fetching' && node !== undefined && node !== self && node !== request.node) {
      options.hintInputs(node, request.key, request.offered.prepared, request.root);
    }
    if (node === self) {
      request.cancelAway?.();
      request.cancelAway = undefined;
    } else if (node !== undefined) {
      const patienceMs = request.offered.prepared.timeoutMs + limits.awaySlackMs;
      request.cancelAway ??= clock.setTimer(patienceMs, () => takeBack(request));
    }
    const isExecuting = stage === 'executing' && node !== undefined;
    if (request.node !== node || !isExecuting) leave(request);
    request.node = node;
    request.executingAtMs = isExecuting ? (request.executingAtMs ?? nowMs) : undefined;
    request.offered.onStage(isExecuting ? 'executing' : 'queued', isExecuting ? options.workerName(node) : '');
    if (!isExecuting) return;
    follow(request);
    if (node !== self) request.outputs ??= options.useOutputs(request.key, node);
  }

  /** Members had it for longer than anybody needs who keeps to its time limit: whatever they say, it is run here. */
  function takeBack(request: Request): void {
    settle(request, again('members had the action for longer than it may take, and brought no result'));
    deliver({ kind: 'cancel', request: request.id });
  }

  /** Only while a client reads the live output, and only from another member: what runs here writes by itself. */
  function follow(request: Request): void {
    const { node, key, offered, isRead, executingAtMs } = request;
    if (!isRead || node === undefined || node === self || executingAtMs === undefined || request.following) return;
    request.following = new AbortController();
    void options.logs.follow(node, key, offered, request.following.signal);
  }

  return {
    async run(offered) {
      const { request: id, context, prepared, signal } = offered;
      const cancel = (): void => deliver({ kind: 'cancel', request: id });
      try {
        const root = await options.treeOf(offered);
        signal.throwIfAborted();
        // Nothing is told to a machine that stops: it would never answer.
        if (isClosed) return leftMesh();
        const key: ActionKey = { instance: context.instance, action: prepared.digest };
        const request: Request = {
          id,
          offered,
          key,
          named: namedAction(prepared.digest, context),
          root,
          submittedAtMs: clock.nowMs(),
          done: Promise.withResolvers(),
          node: undefined,
          executingAtMs: undefined,
          handOverAtMs: undefined,
          following: undefined,
          outputs: undefined,
          isRead: false,
          cancelAway: undefined,
          problem: undefined,
        };
        requests.set(id, request);
        offered.onRead(() => {
          request.isRead = true;
          follow(request);
        });
        signal.addEventListener('abort', cancel, { once: true });
        deliver({ kind: 'execute', item: itemOf(offered, root, options.requires(offered), options.shards) });
        return await request.done.promise;
      } catch (thrown) {
        return failedReport(toStatusError(thrown, 'offering the action'));
      } finally {
        signal.removeEventListener('abort', cancel);
        requests.delete(id);
      }
    },

    perform(work) {
      switch (work.kind) {
        case 'fetchOutputs':
          void fetchOutputs(work);
          return;
        case 'stopFetch':
          fetches.get(work.fetch)?.abort();
          return;
        case 'answer': {
          const request = requests.get(work.request);
          if (request) void answered(request, work.answer);
          return;
        }
        case 'progress': {
          const request = requests.get(work.request);
          if (request) progress(request, work.stage, work.node);
          return;
        }
        default:
          work satisfies never;
      }
    },

    own(id, name) {
      const request = find(id, name);
      if (!request) return undefined;
      const { prepared, queuedAtMs, stdout, stderr } = request.offered;
      return {
        prepared,
        queuedAtMs,
        stdout,
        stderr,
        failed(report) {
          request.problem = report.error;
          if (report.retriable || report.error === undefined || report.error.code === 'RESOURCE_EXHAUSTED')
            return false;
          // The client can help itself, and nobody else can: it is told now.
          recordEnd(request, report, undefined, 'here');
          settle(request, report);
          deliver({ kind: 'cancel', request: request.id });
          return true;
        },
      };
    },

    runOf: (id) => requests.get(id)?.offered.run,
    open: () => requests.size,

    close() {
      isClosed = true;
      for (const abort of fetches.values()) abort.abort();
      for (const request of [...requests.values()]) settle(request, leftMesh());
    },
  };
}
