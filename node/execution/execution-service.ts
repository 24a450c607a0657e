/**
 * The services Execution and Operations of this node.
 *
 * Set-up problems fail the call; whatever happens once an action is accepted is told in its ExecuteResponse.
 *
 * @see REAPI v2.12, service Execution; google.longrunning, service Operations
 */
import { create, toBinary } from '@bufbuild/protobuf';
import { durationMs, EmptySchema } from '@bufbuild/protobuf/wkt';
import { type Digest, digestKey, fromWireDigest } from '../../protos/digest.ts';
import {
  type ExecuteRequest,
  type ExecuteResponse,
  type Execution,
  ExecutionStage_Value,
} from '../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import {
  ListOperationsResponseSchema,
  type Operation,
  type Operations,
  OperationSchema,
} from '../../protos/gen/google/longrunning/operations_pb.ts';
import { StatusError } from '../../protos/status.ts';
import { type InlineHints, inlineHints } from '../reapi/action-cache.ts';
import { detailsFit } from '../reapi/grpc-status.ts';
import type { CallContext, ServiceHandlers } from '../reapi/handler.ts';
import type { InstanceCheck } from '../reapi/instances.ts';
import { limits as reapiLimits } from '../reapi/limits.ts';
import type { ActionCache, ActionKey } from '../storage/action-cache.ts';
import type { BlobStore } from '../storage/blob-store.ts';
import type { Clock } from './clock.ts';
import { type Executor, operationName, type Watched } from './executor.ts';
import type { ActionContext } from './offering.ts';
import * as limits from './limits.ts';
import { missingBlobs } from './missing.ts';
import type { Preparer } from './prepare.ts';
import { executeResponse, operationMessage } from './responses.ts';

export interface ExecutionServiceOptions {
  readonly executor: Executor;
  readonly preparer: Preparer;
  readonly blobs: BlobStore;
  readonly actions: Pick<ActionCache, 'get'>;
  readonly clock: Clock;
  readonly checkInstance: InstanceCheck;
  /** An audit found that what others know of the action is wrong: it is run, whatever they know. */
  readonly distrusts?: (key: ActionKey) => boolean;
  readonly onLookup?: (instance: string, outcome: 'hit' | 'miss' | 'skipped') => void;
  /** Default: `limits.keepAliveMs`. */
  readonly keepAliveMs?: number;
}

export interface ExecutionServices {
  readonly execution: ServiceHandlers<typeof Execution>;
  readonly operations: ServiceHandlers<typeof Operations>;
}

export function createExecutionServices(options: ExecutionServiceOptions): ExecutionServices {
  const { executor, preparer, blobs, actions, clock, checkInstance } = options;
  const keepAliveMs = options.keepAliveMs ?? limits.keepAliveMs;

  /** Resolves at the next change, after `delayMs`, or when the caller is gone. */
  const nextEvent = async (change: Promise<void>, delayMs: number, signal: AbortSignal): Promise<void> => {
    const other = Promise.withResolvers<void>();
    const cancelTimer = clock.setTimer(delayMs, other.resolve);
    const onAbort = (): void => other.resolve();
    signal.addEventListener('abort', onAbort, { once: true });
    try {
      if (!signal.aborted) await Promise.race([change, other.promise]);
    } finally {
      cancelTimer();
      signal.removeEventListener('abort', onAbort);
    }
  };

  const inlined = async (
    response: ExecuteResponse,
    fn: Digest['fn'],
    hints: InlineHints,
    signal: AbortSignal,
  ): Promise<ExecuteResponse> =>
    response.result ? { ...response, result: await inlineHints(blobs, fn, response.result, hints, signal) } : response;

  const messageOf = async (watched: Watched, signal: AbortSignal): Promise<Operation> => {
    const state = watched.state();
    if (!state.response) return operationMessage(state);
    return operationMessage({ ...state, response: await inlined(state.response, watched.fn, watched.hints, signal) });
  };

  /** The state now, at every change, and again after `keepAliveMs` of silence; ends after the one that is done. */
  async function* follow(watched: Watched, signal: AbortSignal): AsyncGenerator<Operation> {
    for (;;) {
      const change = watched.changed();
      if (watched.shutDown()) throw shutDown();
      const message = await messageOf(watched, signal);
      yield message;
      if (message.done) return;
      await nextEvent(change, keepAliveMs, signal);
      signal.throwIfAborted();
    }
  }

  /** Looks the result up unless told not to; a failed command in the cache is not an answer to Execute. */
  const lookUp = async (request: ExecuteRequest, digest: Digest, signal: AbortSignal) => {
    if (request.skipCacheLookup) return undefined;
    const result = await actions.get({ instance: request.instanceName, action: digest }, { signal });
    return result?.exitCode === 0 ? result : undefined;
  };

  async function* execute(request: ExecuteRequest, context: CallContext): AsyncGenerator<Operation> {
    const { instanceName: instance } = request;
    checkInstance(instance);
    const digest = fromWireDigest(request.actionDigest, request.digestFunction, 'action_digest');
    try {
      yield* lookUpOrRun(request, digest, context);
    } catch (error) {
      // A long list of missing blobs would burst the headers that clients take; in a response they find it as well.
      if (!(error instanceof StatusError) || detailsFit(error)) throw error;
      yield finishedOperation(instance, digest, executeResponse({ error }));
    }
  }

  async function* lookUpOrRun(
    request: ExecuteRequest,
    digest: Digest,
    context: CallContext,
  ): AsyncGenerator<Operation> {
    const { instanceName: instance } = request;
    const { signal } = context;
    const priority = request.executionPolicy?.priority ?? 0;
    const { min, max } = reapiLimits.priorities;
    if (priority < min || priority > max) {
      throw new StatusError('INVALID_ARGUMENT', `priority ${priority} is outside of the range ${min} to ${max}`);
    }
    const hints = inlineHintsOf(request);

    const [action, cached] = await Promise.all([
      preparer.readAction(digest, { signal }),
      lookUp(request, digest, signal),
    ]);
    if (!action && !cached) throw missingBlobs([digest], `action ${digest.hash}/${digest.sizeBytes}`);
    const cacheable = !action?.doNotCache;
    const looked = request.skipCacheLookup || !cacheable ? 'skipped' : cached ? 'hit' : 'miss';
    options.onLookup?.(instance, looked);
    if (cached && cacheable) {
      const response = executeResponse({ result: cached, cachedResult: true });
      yield finishedOperation(instance, digest, await inlined(response, digest.fn, hints, signal));
      return;
    }
    if (!action) throw missingBlobs([digest], `action ${digest.hash}/${digest.sizeBytes}`);

    const mergeKey = cacheable ? `${instance} ${digestKey(digest)}` : undefined;
    const joins = mergeKey !== undefined && executor.inFlight(mergeKey);
    const prepared = joins ? undefined : await preparer.prepare(digest, action, { signal, where: 'anywhere' });
    if (signal.aborted) {
      prepared?.[Symbol.dispose]();
      return;
    }
    const watched = executor.submit({
      prepared,
      action: digest,
      mergeKey,
      context: {
        ...contextOf(request, context),
        skipCacheLookup: request.skipCacheLookup || (options.distrusts?.({ instance, action: digest }) ?? false),
      },
      hints,
    });
    yield* followAsWaiter(watched, signal);
  }

  /** Follows and then gives up the place as a waiter that the caller holds. */
  async function* followAsWaiter(watched: Watched, signal: AbortSignal): AsyncGenerator<Operation> {
    const { name } = watched.state();
    try {
      yield* follow(watched, signal);
    } finally {
      executor.detach(name);
    }
  }

  const attach = (name: string): Watched => {
    const watched = executor.attach(name);
    if (!watched) throw unknownOperation(name);
    return watched;
  };

  async function* waitExecution({ name }: { readonly name: string }, { signal }: CallContext) {
    yield* followAsWaiter(attach(name), signal);
  }

  return {
    execution: { execute, waitExecution },
    operations: {
      async getOperation({ name }) {
        const state = executor.find(name);
        if (!state) throw unknownOperation(name);
        return operationMessage(state);
      },
      async listOperations({ name, pageSize, pageToken }) {
        const size = pageSize > 0 ? Math.min(pageSize, limits.operationsPageMax) : limits.operationsPageMax;
        const page: Operation[] = [];
        let roomBytes = reapiLimits.responseBytesMax;
        let more = false;
        // A forgotten token was among the oldest: what is left begins behind it.
        let started = pageToken === '' || !executor.find(pageToken);
        for (const operation of executor.list(parentInstance(name))) {
          if (started) {
            roomBytes -= toBinary(OperationSchema, operation).byteLength + fieldOverheadBytes;
            more = page.length === size || (roomBytes < 0 && page.length > 0);
            if (more) break;
            page.push(operation);
          }
          started ||= operation.name === pageToken;
        }
        // The token is the last name of a page: names are never used again, and the order is that of arrival.
        const nextPageToken = more ? (page.at(-1)?.name ?? '') : '';
        return create(ListOperationsResponseSchema, { operations: page, nextPageToken });
      },
      async cancelOperation({ name }) {
        if (!executor.find(name)) throw unknownOperation(name);
        executor.cancel(name);
        return create(EmptySchema);
      },
      async deleteOperation({ name }) {
        const state = executor.find(name);
        if (!state) throw unknownOperation(name);
        if (!state.response) {
          throw new StatusError('FAILED_PRECONDITION', `operation ${name} is under way; cancel it first`);
        }
        executor.forget(name);
        return create(EmptySchema);
      },
      async waitOperation({ name, timeout }, { signal }) {
        const watched = attach(name);
        const askedMs = timeout ? durationMs(timeout) : limits.waitOperationMs;
        const untilMs = clock.nowMs() + Math.min(Math.max(askedMs, 0), limits.waitOperationMs);
        try {
          for (;;) {
            const change = watched.changed();
            const leftMs = untilMs - clock.nowMs();
            if (watched.state().response || leftMs <= 0) return await messageOf(watched, signal);
            await nextEvent(change, leftMs, signal);
            signal.throwIfAborted();
          }
        } finally {
          executor.detach(name);
        }
      },
    },
  };
}

function contextOf(
  request: ExecuteRequest,
  { requestMetadata, peer }: CallContext,
): Omit<ActionContext, 'skipCacheLookup'> {
  const text = (value = ''): string => value.slice(0, limits.metadataCharsMax);
  return {
    instance: request.instanceName,
    invocation: text(requestMetadata?.toolInvocationId) || peer,
    isUnnamed: !requestMetadata?.toolInvocationId,
    priority: request.executionPolicy?.priority ?? 0,
    mnemonic: text(requestMetadata?.actionMnemonic),
    target: text(requestMetadata?.targetId),
  };
}

/** An operation that never was under way. */
function finishedOperation(instance: string, action: Digest, response: ExecuteResponse): Operation {
  return operationMessage({
    name: operationName(instance),
    action,
    stage: ExecutionStage_Value.COMPLETED,
    stdoutStreamName: '',
    stderrStreamName: '',
    worker: '',
    queuedAtMs: undefined,
    startedAtMs: undefined,
    response,
  });
}

/** Tag and length before an embedded message, at most. */
const fieldOverheadBytes = 8;

/** `name` of ListOperations: an instance, an instance's `…/operations`, or nothing for all instances. */
function parentInstance(name: string): string | undefined {
  if (name === '') return undefined;
  return name === 'operations' ? '' : name.replace(/\/operations$/, '');
}

/** Nothing else of the request is kept with the operation. A list of files that is too long is not heeded. */
function inlineHintsOf({ inlineStdout, inlineStderr, inlineOutputFiles }: ExecuteRequest): InlineHints {
  let chars = 0;
  for (const path of inlineOutputFiles) chars += path.length;
  return { inlineStdout, inlineStderr, inlineOutputFiles: chars > limits.inlinedPathCharsMax ? [] : inlineOutputFiles };
}

function unknownOperation(name: string): StatusError {
  return new StatusError(
    'NOT_FOUND',
    `operation "${name}" is not known: it ended long ago or the node was restarted; execute again`,
  );
}

function shutDown(): StatusError {
  return new StatusError('UNAVAILABLE', 'this node is shutting down; execute again later or elsewhere');
}
