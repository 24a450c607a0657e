/** From what the mesh's machine answers to what the client of an action is told. */
import { create } from '@bufbuild/protobuf';
import { anyPack } from '@bufbuild/protobuf/wkt';
import { tokenText } from '../../mesh/core/ids.ts';
import type { PeerEffect } from '../../mesh/core/peer.ts';
import { makeDigest } from '../../protos/digest.ts';
import {
  type ActionResult,
  ExecutedActionMetadataSchema,
} from '../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { type MeshExecution, MeshExecutionSchema } from '../../protos/gen/potluck/mesh/v1/results_pb.ts';
import { type Code, codeName, StatusError } from '../../protos/status.ts';
import { executeResponse } from '../execution/responses.ts';
import type { RunOutcome, RunReport } from '../execution/run-action.ts';
import type { HandedResult } from './results.ts';

export type Answer = Extract<PeerEffect, { readonly kind: 'answer' }>['answer'];
type FailedReason = Extract<Answer, { readonly kind: 'failed' }>['reason'];

/** Where the time went, by the clock of this node. */
export type Times = Pick<MeshExecution, 'queueMs' | 'awayMs' | 'handOverMs'>;

/** @param message - for a person; may be empty */
export function reportOf(handed: HandedResult, source: string, message: string, times: Times): RunReport {
  const { result, ending, executor, token, key } = handed;
  const error =
    ending.statusCode === 0 ? undefined : new StatusError(codeName(ending.statusCode), ending.statusMessage);
  const [hash = '', size = ''] = ending.serverLog.split('/');
  const log = hash === '' ? undefined : makeDigest(key.action.fn, hash, Number(size));
  const told = create(MeshExecutionSchema, { executor, source, token: token ? tokenText(token) : '', ...times });
  return {
    response: executeResponse({
      result: withTimes(result, told),
      error,
      cachedResult: source === 'cache',
      message,
      log,
    }),
    outcome: outcomeOf(result, error?.code),
    retriable: false,
    error,
    phaseMs: new Map(),
    vouched: handed.vouched,
  };
}

/** Beside what the executor signed; the client alone sees it. */
function withTimes(result: ActionResult, told: MeshExecution): ActionResult {
  const metadata = result.executionMetadata ?? create(ExecutedActionMetadataSchema);
  const auxiliaryMetadata = [...metadata.auxiliaryMetadata, anyPack(MeshExecutionSchema, told)];
  return { ...result, executionMetadata: { ...metadata, auxiliaryMetadata } };
}

function outcomeOf(result: ActionResult, code: Code | undefined): RunOutcome {
  if (code !== undefined) return code === 'DEADLINE_EXCEEDED' ? 'timed-out' : 'error';
  return result.exitCode === 0 ? 'succeeded' : 'command-failed';
}

export function failedReport(error: StatusError, retriable = false): RunReport {
  const outcome = error.code === 'CANCELLED' ? 'cancelled' : 'error';
  return { response: executeResponse({ error }), outcome, retriable, error, phaseMs: new Map() };
}

const failures: { readonly [R in FailedReason]: readonly [Code, string] } = {
  cancelled: ['CANCELLED', 'the action was cancelled'],
  // A code that no client tries again by itself: that would cost further nodes.
  tooManyDeaths: [
    'FAILED_PRECONDITION',
    'every node that ran the action went away while it ran, so it is not run again: it may be what takes them down',
  ],
  tooManyRetries: ['UNAVAILABLE', 'the nodes that tried could not run the action; their logs say why'],
  actionInvalid: ['INVALID_ARGUMENT', 'the action cannot be run by anybody'],
  queueFull: ['RESOURCE_EXHAUSTED', 'too many actions wait in the mesh; try again later'],
  executorFault: ['UNAVAILABLE', 'this node could not run the action; its log says why'],
  inputsMissing: [
    'FAILED_PRECONDITION',
    'inputs of the action are not to be had from anybody; upload them and execute again',
  ],
  unmatched: ['FAILED_PRECONDITION', 'no node of the mesh that is there now offers what the action asks for'],
};

/** @param own - what this node itself ran into, which says more than the reason */
export function failureOf(reason: FailedReason, own: StatusError | undefined): StatusError {
  const [code, text] = failures[reason];
  if (own && reason !== 'cancelled' && reason !== 'unmatched' && reason !== 'tooManyDeaths') return own;
  return new StatusError(code, text);
}
