/** grpc.health.v1: whether the server takes calls, for load balancers and scripts. */
import { create } from '@bufbuild/protobuf';
import {
  type Health,
  HealthCheckResponse_ServingStatus,
  HealthCheckResponseSchema,
} from '../../protos/gen/grpc/health/v1/health_pb.ts';
import { StatusError } from '../../protos/status.ts';
import type { ServiceHandlers } from './handler.ts';

export interface HealthService {
  readonly handlers: ServiceHandlers<typeof Health>;
  /** From now on the answer is NOT_SERVING; those who watch are told, and their calls end. */
  stopServing(): void;
}

/** @param services - full names; the empty name, which stands for the whole server, is always known */
export function createHealth(services: readonly string[]): HealthService {
  const known = new Set(['', ...services]);
  /** Wakes those who watch. */
  const watching = new Set<() => void>();
  let serving = true;
  const status = (service: string) => {
    if (!known.has(service)) return HealthCheckResponse_ServingStatus.SERVICE_UNKNOWN;
    return serving ? HealthCheckResponse_ServingStatus.SERVING : HealthCheckResponse_ServingStatus.NOT_SERVING;
  };
  return {
    handlers: {
      async check({ service }) {
        if (!known.has(service)) throw new StatusError('NOT_FOUND', `no service ${service}`);
        return create(HealthCheckResponseSchema, { status: status(service) });
      },
      async *watch({ service }, { signal }) {
        yield create(HealthCheckResponseSchema, { status: status(service) });
        if (!serving) return;
        const { promise, resolve } = Promise.withResolvers<void>();
        watching.add(resolve);
        signal.addEventListener('abort', () => resolve(), { once: true });
        if (!signal.aborted) await promise;
        watching.delete(resolve);
        yield create(HealthCheckResponseSchema, { status: status(service) });
      },
    },
    stopServing() {
      serving = false;
      for (const wake of watching) wake();
    },
  };
}
