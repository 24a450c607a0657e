import { expect, test } from 'vitest';
import type { CallContext } from '../../../../node/reapi/handler.ts';
import { createHealth } from '../../../../node/reapi/health.ts';
import {
  HealthCheckRequestSchema,
  HealthCheckResponse_ServingStatus,
} from '../../../../protos/gen/grpc/health/v1/health_pb.ts';
import { create } from '@bufbuild/protobuf';

test('a watcher that leaves is not waited for', async () => {
  const { handlers } = createHealth([]);
  const leaving = new AbortController();
  const context = { signal: leaving.signal } as CallContext;
  const watching = handlers.watch(create(HealthCheckRequestSchema), context)[Symbol.asyncIterator]();
  const first = await watching.next();
  expect(first.value).toMatchObject({ status: HealthCheckResponse_ServingStatus.SERVING });
  const next = watching.next();
  leaving.abort();
  expect((await next).value).toMatchObject({ status: HealthCheckResponse_ServingStatus.SERVING });
  expect((await watching.next()).done).toBe(true);
});
