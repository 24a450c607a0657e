/**
 * Runs what the mesh's machine orders on this node: guests, whose inputs come from their submitter first, and actions of
 * own clients. What a run leaves is signed, stored and pinned before the machine hears of it.
 */
import { anyIs } from '@bufbuild/protobuf/wkt';
import type { ActionKey as ActionName, NodeId, RequestId } from '../../mesh/core/ids.ts';
import type { PeerEvent } from '../../mesh/core/peer.ts';
import { PreconditionFailureSchema } from '../../protos/gen/google/rpc/error_details_pb.ts';
import { codes, StatusError, toStatusError } from '../../protos/status.ts';
import { createRunControl, type RunControl } from '../../sandbox/run-control.ts';
import type { LogWriter } from '../execution/log-streams.ts';
import type { PreparedAction, Preparer } from '../execution/prepare.ts';
import { type RunPorts, type RunReport, runAction } from '../execution/run-action.ts';
import { serverLogName } from '../execution/server-log.ts';
import type { OffloadWork } from '../mesh/offloading.ts';
import type { Ending } from '../peers/vouching.ts';
import type { ActionCache, ActionKey } from '../storage/action-cache.ts';
import type { EndOutcome } from './events.ts';
import type { BroughtInputs } from './inputs.ts';
import { actionName, actionOf, isAction } from './keys.ts';
import type { Followable } from './log-relay.ts';
import { type HandedResult, outcomeOf, type Results } from './results.ts';
import { createTail } from './tail.ts';

export type RunWork = Extract<OffloadWork, { readonly kind: 'fetchInputs' | 'run' | 'freeze' | 'thaw' | 'kill' }>;
type RunEvent = Extract<PeerEvent, { readonly kind: 'inputsFetched' | 'ran' | 'runFailed' }>;

/** An own client's request, as far as a run needs it. */
export interface OwnRequest {
  readonly prepared: PreparedAction;
  readonly queuedAtMs: number;
  readonly stdout: Pick<LogWriter, 'write'>;
  readonly stderr: Pick<LogWriter, 'write'>;
  /** The action could not be run; true when the client was told, because trying again is of no use. */
  failed(report: RunReport): boolean;
}

export interface RunsOptions {
  readonly ports: Omit<RunPorts, 'actions'>;
  readonly preparer: Preparer;
  readonly results: Results;
  readonly bringInputs: (key: ActionKey, from: NodeId, signal: AbortSignal) => Promise<BroughtInputs>;
  /** Keeps what a run left until the machine has decided about it; false when some of it is gone. */
  /** `doNotCache`: it is held until it was handed over, and kept by nobody. */
  readonly hold: (handed: HandedResult, doNotCache: boolean) => Promise<boolean>;
  /** The result of an own action is about to be here; it may be kept for later lookups. */
  readonly onOwnResult: (handed: HandedResult) => void;
  /** The result of a guest is here, and its submitter will fetch it. */
  readonly onMade: (handed: HandedResult, submitter: NodeId) => void;
  /** An own client's request for this very action: this one, or one that was merged with it. */
  readonly ownRequest: (request: RequestId, key: ActionName) => OwnRequest | undefined;
  readonly deliver: (event: RunEvent) => void;
  /** Runs that the machine has. One that was only prepared ends there without a word, when its claim goes to somebody else. */
  readonly known: () => ReadonlySet<number>;
  /** A sentence, for the operator of this machine. */
  readonly onFailed: (key: ActionKey, reason: string) => void;
  readonly onGuest?: (key: ActionKey, submitter: NodeId, change: GuestChange) => void;
}

export type GuestChange =
  | { readonly kind: 'started' }
  | { readonly kind: 'frozen'; readonly frozen: boolean }
  | {
      readonly kind: 'ended';
      readonly outcome: EndOutcome;
      readonly runMs: number;
      readonly error: string | undefined;
    };

export interface Runs {
  perform(work: RunWork): void;
  /** A run under way here whose output can be followed. */
  followable(key: ActionKey): Followable | undefined;
  /** Kills everything; resolves when nothing is left. */
  close(): Promise<void>;
}

interface Run {
  readonly id: number;
  readonly key: ActionKey;
  readonly name: ActionName;
  readonly submitter: NodeId | undefined;
  readonly abort: AbortController;
  readonly control: RunControl;
  readonly output: Followable & { end(): void };
  prepared: PreparedAction | undefined;
  /** Why it cannot run here. */
  problem: StatusError | undefined;
  runs: boolean;
}

/** What ran for the mesh is stored by who submitted it, or when its claim was accepted. */
const storesNothing: ActionCache = { get: async () => undefined, put: async () => {} };

export function createRuns(options: RunsOptions): Runs {
  const { ports, preparer, results, bringInputs, hold, ownRequest, deliver, onGuest = () => {} } = options;
  const { clock } = ports;
  const runs = new Map<number, Run>();
  const going = new Set<Promise<void>>();
  let isClosed = false;

  function begin(id: number, name: ActionName, submitter: NodeId | undefined): Run {
    const run: Run = {
      id,
      key: actionOf(name),
      name,
      submitter,
      abort: new AbortController(),
      control: createRunControl(),
      output: createOutput(),
      prepared: undefined,
      problem: undefined,
      runs: false,
    };
    runs.set(id, run);
    return run;
  }

  function end(run: Run): void {
    runs.delete(run.id);
    run.output.end();
    run.prepared?.[Symbol.dispose]();
    run.prepared = undefined;
  }

  /** Reports once, unless the machine has killed the run by then. */
  function report(run: Run, event: RunEvent): void {
    if (runs.get(run.id) === run && !isClosed) deliver(event);
  }

  function spawn(run: Run, work: Promise<void>): void {
    const settled = work
      .catch((error: unknown) => options.onFailed(run.key, toStatusError(error).reason))
      .finally(() => going.delete(settled));
    going.add(settled);
  }

  function dropForgotten(): void {
    const known = options.known();
    for (const run of [...runs.values()]) {
      if (run.runs || known.has(run.id)) continue;
      run.abort.abort();
      end(run);
    }
  }

  async function fetchInputs(run: Run, from: NodeId): Promise<void> {
    const { signal } = run.abort;
    try {
      const { action } = await bringInputs(run.key, from, signal);
      run.prepared = await preparer.prepare(run.key.action, action, { signal });
      if (signal.aborted) return run.prepared[Symbol.dispose]();
      report(run, { kind: 'inputsFetched', run: run.id, ok: true });
    } catch (thrown) {
      const error = toStatusError(thrown);
      // What this node refuses for other reasons is no lack of inputs: it is said when the run should begin.
      if (!isMissing(error)) run.problem = error;
      report(run, { kind: 'inputsFetched', run: run.id, ok: run.problem !== undefined });
      if (!run.problem) end(run);
    }
  }

  async function execute(
    run: Run,
    own: OwnRequest | undefined,
    { guest, token, doNotCache }: Extract<RunWork, { readonly kind: 'run' }>,
  ) {
    const startedAtMs = clock.nowMs();
    run.runs = true;
    if (guest && run.submitter !== undefined) onGuest(run.key, run.submitter, { kind: 'started' });
    let ended: RunReport | undefined;
    let runMs = 0;
    // The machine is in the middle of a step, and what it hears begins another one.
    await Promise.resolve();
    try {
      if (run.problem) throw run.problem;
      // Only for a client of this node anything runs as no guest; what a claim says of itself is no proof of one.
      const prepared = guest ? run.prepared : own?.prepared;
      if (!prepared) throw new StatusError('ABORTED', 'no client of this node waits for the action any more');
      const { stdout, stderr } = run.output;
      const both = (tail: Pick<LogWriter, 'write'>, log: Pick<LogWriter, 'write'> | undefined) => ({
        write(chunk: Uint8Array) {
          tail.write(chunk);
          log?.write(chunk);
        },
      });
      ended = await runAction(
        { ...ports, actions: storesNothing },
        {
          prepared,
          instance: run.key.instance,
          queuedAtMs: own?.queuedAtMs ?? startedAtMs,
          startedAtMs,
          signal: run.abort.signal,
          stdout: both(stdout, own?.stdout),
          stderr: both(stderr, own?.stderr),
          guest,
          control: run.control,
        },
      );
      runMs = Math.max(0, (ended.phaseMs.get('running') ?? 0) - run.control.frozenMs);
      const { result } = ended.response;
      if (!result) return fail(run, own, guest, ended);
      const isKeptByNobody = doNotCache || prepared.action.doNotCache;
      const handed = await results.make(run.key, result, ports.sandbox.isolation, {
        token,
        ending: endingOf(ended),
        // An own client's is kept whatever becomes of the claim.
        ...(!guest && !isKeptByNobody && { onNamed: options.onOwnResult }),
      });
      if (!(await hold(handed, isKeptByNobody)))
        throw new StatusError('UNAVAILABLE', 'the outputs were lost before they were named');
      if (run.submitter !== undefined) options.onMade(handed, run.submitter);
      report(run, { kind: 'ran', run: run.id, outcome: outcomeOf(handed), runMs });
    } catch (thrown) {
      const error = toStatusError(thrown, 'running the action');
      if (!run.abort.signal.aborted) options.onFailed(run.key, error.reason);
      report(run, { kind: 'runFailed', run: run.id, reason: isMissing(error) ? 'inputsMissing' : 'executorFault' });
      ended = undefined;
    } finally {
      if (guest && run.submitter !== undefined) {
        const outcome = run.abort.signal.aborted ? 'cancelled' : (ended?.outcome ?? 'error');
        onGuest(run.key, run.submitter, { kind: 'ended', outcome, runMs, error: ended?.error?.reason });
      }
      end(run);
    }
  }

  /** There is no result. Of a guest it is never said that its action cannot run: its submitter has checked that. */
  function fail(run: Run, own: OwnRequest | undefined, guest: boolean, ended: RunReport): void {
    if (run.abort.signal.aborted) return;
    options.onFailed(run.key, ended.error?.reason ?? 'for no reason that is known');
    const isTold = own?.failed(ended) ?? false;
    const isMissingInputs = ended.error !== undefined && isMissing(ended.error);
    const isInvalid = !guest && isTold && !isMissingInputs;
    const reason = isMissingInputs ? 'inputsMissing' : isInvalid ? 'actionInvalid' : 'executorFault';
    report(run, { kind: 'runFailed', run: run.id, reason });
  }

  /** For a name that somebody made up: it may come in a claim. */
  function refuse(event: RunEvent): void {
    queueMicrotask(() => {
      if (!isClosed) deliver(event);
    });
  }

  return {
    perform(work) {
      if (isClosed) return;
      const known = runs.get(work.run);
      switch (work.kind) {
        case 'fetchInputs': {
          dropForgotten();
          if (!isAction(work.key)) return refuse({ kind: 'inputsFetched', run: work.run, ok: false });
          const run = begin(work.run, work.key, work.from);
          return spawn(run, fetchInputs(run, work.from));
        }
        case 'run': {
          if (!isAction(work.key)) return refuse({ kind: 'runFailed', run: work.run, reason: 'executorFault' });
          const own = work.guest ? undefined : ownRequest(work.request, work.key);
          const run = known ?? begin(work.run, work.key, undefined);
          return spawn(run, execute(run, own, work));
        }
        case 'freeze':
        case 'thaw':
          if (!known) return;
          void known.control[work.kind]();
          if (known.submitter !== undefined) {
            onGuest(known.key, known.submitter, { kind: 'frozen', frozen: work.kind === 'freeze' });
          }
          return;
        case 'kill':
          if (!known) return;
          runs.delete(known.id);
          known.abort.abort();
          // What runs ends its things itself.
          if (!known.runs) end(known);
          return;
        default:
          work satisfies never;
      }
    },
    followable(key) {
      const name = actionName(key);
      let newest: Followable | undefined;
      for (const run of runs.values()) if (run.name === name && run.runs) newest = run.output;
      return newest;
    },
    async close() {
      isClosed = true;
      for (const run of [...runs.values()]) {
        run.abort.abort();
        if (!run.runs) end(run);
      }
      await Promise.all(going);
    },
  };
}

function isMissing({ code, details }: StatusError): boolean {
  return code === 'NOT_FOUND' || details.some((detail) => anyIs(detail, PreconditionFailureSchema));
}

function endingOf({ response, error }: RunReport): Ending {
  const log = response.serverLogs[serverLogName]?.digest;
  return {
    statusCode: error ? codes[error.code] : 0,
    statusMessage: error?.reason ?? '',
    message: response.message,
    serverLog: log ? `${log.hash}/${log.sizeBytes}` : '',
  };
}

function createOutput(): Followable & { end(): void } {
  let change = Promise.withResolvers<void>();
  let ended = false;
  const tell = (): void => {
    change.resolve();
    change = Promise.withResolvers();
  };
  return {
    stdout: createTail(tell),
    stderr: createTail(tell),
    changed: () => change.promise,
    get ended() {
      return ended;
    },
    end() {
      ended = true;
      tell();
    },
  };
}
