import { createFileRegistry, create, type DescService, fromBinary } from '@bufbuild/protobuf';
import { type FileDescriptorProto, FileDescriptorProtoSchema, FileDescriptorSetSchema } from '@bufbuild/protobuf/wkt';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { connectGrpc, type GrpcConnection, type GrpcServer, serveGrpc } from '../../../node/reapi/grpc.ts';
import { bindService } from '../../../node/reapi/handler.ts';
import { createHealth } from '../../../node/reapi/health.ts';
import { createReflection } from '../../../node/reapi/reflection.ts';
import {
  ActionCache,
  Capabilities,
  ContentAddressableStorage,
  Execution,
} from '../../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { ByteStream } from '../../../protos/gen/google/bytestream/bytestream_pb.ts';
import { Operations } from '../../../protos/gen/google/longrunning/operations_pb.ts';
import { Health, HealthCheckResponse_ServingStatus } from '../../../protos/gen/grpc/health/v1/health_pb.ts';
import { ServerReflection } from '../../../protos/gen/grpc/reflection/v1/reflection_pb.ts';
import { ServerReflection as ServerReflectionAlpha } from '../../../protos/gen/grpc/reflection/v1alpha/reflection_pb.ts';
import { codeOf } from './harness.ts';

const served: DescService[] = [
  Execution,
  Operations,
  ActionCache,
  Capabilities,
  ContentAddressableStorage,
  ByteStream,
  Health,
];
const health = createHealth([ActionCache.typeName]);
let server: GrpcServer;
let connection: GrpcConnection;
beforeAll(async () => {
  server = await serveGrpc({
    listen: ['127.0.0.1:0'],
    services: [bindService(Health, health.handlers), ...createReflection(served)],
  });
  connection = connectGrpc(server.addresses[0] as string);
});
afterAll(async () => {
  connection.close();
  await server.close();
});

describe('reflection', () => {
  async function* single<T>(value: T) {
    yield value;
  }
  const versions = { v1: ServerReflection, v1alpha: ServerReflectionAlpha as unknown as typeof ServerReflection };

  test.each(Object.entries(versions))(
    '%s lets a client that knows nothing resolve every service',
    async (_name, version) => {
      const ask = async (messageRequest: Parameters<typeof create<typeof FileDescriptorSetSchema>>[1] | object) => {
        const requests = single({ messageRequest } as never);
        for await (const { messageResponse } of connection.client(version).serverReflectionInfo(requests)) {
          return messageResponse;
        }
        throw new Error('no answer');
      };
      const list = await ask({ case: 'listServices', value: '' });
      const names = list.case === 'listServicesResponse' ? list.value.service.map(({ name }) => name) : [];
      expect(names.toSorted()).toEqual(
        [...served, ServerReflection, ServerReflectionAlpha].map(({ typeName }) => typeName).toSorted(),
      );
      for (const name of names) {
        const answer = await ask({ case: 'fileContainingSymbol', value: name });
        if (answer.case !== 'fileDescriptorResponse') throw new Error(`${name}: ${answer.case}`);
        const file: FileDescriptorProto[] = answer.value.fileDescriptorProto.map((bytes) =>
          fromBinary(FileDescriptorProtoSchema, bytes),
        );
        // Dependencies first, as the registry wants them; they all must have come along.
        const registry = createFileRegistry(create(FileDescriptorSetSchema, { file: file.reverse() }));
        expect(registry.getService(name)?.methods.length).toBeGreaterThan(0);
      }
      const byName = await ask({ case: 'fileByFilename', value: 'google/rpc/status.proto' });
      expect(byName.case).toBe('fileDescriptorResponse');
      const method = await ask({
        case: 'fileContainingSymbol',
        value: 'build.bazel.remote.execution.v2.ActionCache.GetActionResult',
      });
      expect(method.case).toBe('fileDescriptorResponse');
      const unknown = await ask({ case: 'fileContainingSymbol', value: 'no.Such' });
      expect(unknown).toMatchObject({ case: 'errorResponse', value: { errorCode: 5 } });
    },
  );
});

describe('health', () => {
  test('is SERVING until it stops, and watchers are told', async () => {
    const client = connection.client(Health);
    const { SERVING, NOT_SERVING, SERVICE_UNKNOWN } = HealthCheckResponse_ServingStatus;
    expect((await client.check({})).status).toBe(SERVING);
    expect((await client.check({ service: ActionCache.typeName })).status).toBe(SERVING);
    expect(await codeOf(client.check({ service: 'no.Such' }))).toBe('NOT_FOUND');
    for await (const { status } of client.watch({ service: 'no.Such' })) {
      expect(status).toBe(SERVICE_UNKNOWN);
      break;
    }
    const seen: number[] = [];
    for await (const { status } of client.watch({})) {
      seen.push(status);
      health.stopServing();
    }
    expect(seen).toEqual([SERVING, NOT_SERVING]);
    expect((await client.check({})).status).toBe(NOT_SERVING);
  });
});
