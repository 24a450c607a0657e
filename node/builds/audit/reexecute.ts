/** Runs an action again without storing what comes out: through the mesh while it is awake, else here. */
import { randomUUID } from 'node:crypto';
import type { NodeId } from '../../../mesh/core/ids.ts';
import type {
  ActionResult,
  ExecuteResponse,
} from '../../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import type { VouchedResult } from '../../../protos/gen/potluck/mesh/v1/results_pb.ts';
import { codeName, StatusError } from '../../../protos/status.ts';
import type { Clock } from '../../execution/clock.ts';
import type { Executor } from '../../execution/executor.ts';
import type { ActionContext, OfferedRun } from '../../execution/offering.ts';
import type { PreparedAction, Preparer } from '../../execution/prepare.ts';
import type { RunReport } from '../../execution/run-action.ts';
import { limits as reapiLimits } from '../../reapi/limits.ts';
import type { ActionKey } from '../../storage/action-cache.ts';

export interface Rerun {
  readonly result: ActionResult;
  /** As who ran it signed it; undefined for a run outside of the mesh. */
  readonly vouched: VouchedResult | undefined;
}

/**
 * @param avoid - who should not run it; they may all the same when nobody else can
 * Throws a StatusError when it could not be run to its end: inputs are gone, nobody can run it, it took too long.
 */
export type Reexecute = (
  key: ActionKey,
  options: { readonly avoid: readonly NodeId[]; readonly signal: AbortSignal },
) => Promise<Rerun>;

export interface ReexecuteOptions {
  readonly preparer: Preparer;
  readonly executor: Pick<Executor, 'submit' | 'detach' | 'cancel'>;
  /** Runs through the mesh; undefined while it is asleep. */
  readonly offering: () => { run(offered: OfferedRun): Promise<RunReport> } | undefined;
  readonly clock: Clock;
}

/** Stands for the client that an audit is; records of builds leave it out. */
export const auditInvocation = 'audit';
const silentLog = { write: () => {}, end: () => {} };
/** Whoever builds goes first. */
const priority = reapiLimits.priorities.max;

export function createReexecute({ preparer, executor, offering, clock }: ReexecuteOptions): Reexecute {
  return async ({ instance, action: digest }, { avoid, signal }) => {
    const action = await preparer.readAction(digest, { signal });
    if (!action) throw new StatusError('NOT_FOUND', 'the action itself is not to be had any more');
    const mesh = offering();
    const where = mesh ? 'anywhere' : 'here';
    // Marked so, it is merged with no other run and no register or cache takes its result.
    const prepared = await preparer.prepare(digest, { ...action, doNotCache: true }, { signal, where });
    const context = {
      instance,
      invocation: auditInvocation,
      priority,
      mnemonic: '',
      target: '',
      skipCacheLookup: true,
      avoid,
    };
    if (!mesh) return { result: resultOf(await runHere(prepared, context, signal)), vouched: undefined };
    try {
      const request = `audit-${randomUUID()}`;
      const report = await mesh.run({
        request,
        run: request,
        prepared,
        context,
        queuedAtMs: clock.nowMs(),
        signal,
        stdout: silentLog,
        stderr: silentLog,
        onStage: () => {},
        onRead: () => {},
      });
      return { result: resultOf(report.response), vouched: report.vouched };
    } finally {
      prepared[Symbol.dispose]();
    }
  };

  async function runHere(
    prepared: PreparedAction,
    context: ActionContext,
    signal: AbortSignal,
  ): Promise<ExecuteResponse> {
    const hints = { inlineStdout: false, inlineStderr: false, inlineOutputFiles: [] };
    const watched = executor.submit({ prepared, action: prepared.digest, mergeKey: undefined, context, hints });
    const { name } = watched.state();
    const gone = Promise.withResolvers<void>();
    const onAbort = (): void => gone.resolve();
    signal.addEventListener('abort', onAbort, { once: true });
    try {
      for (;;) {
        const change = watched.changed();
        const { response } = watched.state();
        if (response) return response;
        if (signal.aborted) {
          executor.cancel(name);
          throw new StatusError('CANCELLED', 'it took too long, or this node is stopping');
        }
        await Promise.race([change, gone.promise]);
      }
    } finally {
      signal.removeEventListener('abort', onAbort);
      executor.detach(name);
    }
  }
}

/** Throws when the run did not come to its own end. */
function resultOf({ result, status }: ExecuteResponse): ActionResult {
  if (status && status.code !== 0) throw new StatusError(codeName(status.code), status.message);
  if (!result) throw new StatusError('INTERNAL', 'the run gave no result');
  return result;
}
