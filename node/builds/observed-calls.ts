/** Listens at the door: what clients of the action cache and of execution say of themselves and of their actions. */
import { anyUnpack } from '@bufbuild/protobuf/wkt';
import type { Digest } from '../../protos/digest.ts';
import { fromWireDigest } from '../../protos/digest.ts';
import {
  ActionCache,
  ExecuteResponseSchema,
  Execution,
  type RequestMetadata,
} from '../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import type { Operation } from '../../protos/gen/google/longrunning/operations_pb.ts';
import { StatusError } from '../../protos/status.ts';
import type { Clock } from '../execution/clock.ts';
import type { NamedAction } from '../offload/events.ts';
import type { BoundService, CallContext, Reply, ServiceHandlers } from '../reapi/handler.ts';
import type { RecordedEvent } from './events.ts';
import { type RecentResults, runMsOf } from './recent-results.ts';

export interface ObservedCallsOptions {
  readonly record: (event: RecordedEvent) => void;
  readonly results: Pick<RecentResults, 'foundAt'>;
  readonly clock: Clock;
}

/** The services with their calls of interest recorded; what is asked and answered stays as it is. */
export function observeCalls(services: readonly BoundService[], options: ObservedCallsOptions): BoundService[] {
  return services.map((bound) => {
    if (bound.service.typeName === ActionCache.typeName) {
      const handlers = bound.handlers as unknown as ServiceHandlers<typeof ActionCache>;
      return { ...bound, handlers: { ...handlers, ...observeCache(handlers, options) } };
    }
    if (bound.service.typeName === Execution.typeName) {
      const handlers = bound.handlers as unknown as ServiceHandlers<typeof Execution>;
      return { ...bound, handlers: { ...handlers, ...observeExecution(handlers, options) } };
    }
    return bound;
  });
}

function observeCache(
  inner: ServiceHandlers<typeof ActionCache>,
  { record, results, clock }: ObservedCallsOptions,
): ServiceHandlers<typeof ActionCache> {
  return {
    async getActionResult(request, context) {
      const askedMs = clock.nowMs();
      const action = (): Digest => fromWireDigest(request.actionDigest, request.digestFunction, 'action_digest');
      try {
        const result = await inner.getActionResult(request, context);
        const named = nameAction(action(), request.instanceName, context.requestMetadata);
        const from = results.foundAt(named, askedMs);
        record({ kind: 'lookedUp', atMs: clock.nowMs(), outcome: 'hit', from, ...named });
        recordClient(record, context);
        return result;
      } catch (error) {
        if (error instanceof StatusError && error.code === 'NOT_FOUND') {
          const named = nameAction(action(), request.instanceName, context.requestMetadata);
          record({ kind: 'lookedUp', atMs: clock.nowMs(), outcome: 'miss', from: undefined, ...named });
          recordClient(record, context);
        }
        throw error;
      }
    },
    async updateActionResult(request, context) {
      const answer = await inner.updateActionResult(request, context);
      const action = fromWireDigest(request.actionDigest, request.digestFunction, 'action_digest');
      const named = nameAction(action, request.instanceName, context.requestMetadata);
      const runMs = request.actionResult ? runMsOf(request.actionResult) : 0;
      record({ kind: 'uploaded', atMs: clock.nowMs(), runMs, ...named });
      recordClient(record, context);
      return answer;
    },
  };
}

function observeExecution(
  inner: ServiceHandlers<typeof Execution>,
  { record, results, clock }: ObservedCallsOptions,
): Pick<ServiceHandlers<typeof Execution>, 'execute'> {
  return {
    async *execute(request, context) {
      const askedMs = clock.nowMs();
      let isFirst = true;
      for await (const operation of inner.execute(request, context)) {
        // By then the run is known, and with it the build that the client belongs to.
        if (isFirst) {
          if (isCached(operation)) {
            const action = fromWireDigest(request.actionDigest, request.digestFunction, 'action_digest');
            const named = nameAction(action, request.instanceName, context.requestMetadata);
            const from = results.foundAt(named, askedMs);
            record({ kind: 'lookedUp', atMs: clock.nowMs(), outcome: 'hit', from, ...named });
          }
          recordClient(record, context);
        }
        isFirst = false;
        yield operation;
      }
    },
  };
}

/** Answered at once, with a result that was known. */
function isCached(operation: Reply<Operation>): boolean {
  if ('wire' in operation || !operation.done || operation.result.case !== 'response') return false;
  return anyUnpack(operation.result.value, ExecuteResponseSchema)?.cachedResult ?? false;
}

function recordClient(record: ObservedCallsOptions['record'], { requestMetadata }: CallContext): void {
  if (!requestMetadata) return;
  const { toolDetails, correlatedInvocationsId: correlated, toolInvocationId: invocation } = requestMetadata;
  const tool = [toolDetails?.toolName, toolDetails?.toolVersion].filter((text) => text).join(' ');
  record({ kind: 'client', invocation, tool, correlated });
}

function nameAction(action: Digest, instance: string, metadata: RequestMetadata | undefined): NamedAction {
  return {
    action,
    instance,
    invocation: metadata?.toolInvocationId ?? '',
    mnemonic: metadata?.actionMnemonic ?? '',
    target: metadata?.targetId ?? '',
  };
}
