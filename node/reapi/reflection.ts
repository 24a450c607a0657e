/**
 * Server reflection, so that generic clients (grpcurl and the like) can call this server without its .proto texts.
 *
 * @see grpc.reflection.v1 and v1alpha, which differ by name only
 */
import { create, createRegistry, type DescFile, type DescService, fromBinary, toBinary } from '@bufbuild/protobuf';
import { FileDescriptorProtoSchema } from '@bufbuild/protobuf/wkt';
import {
  ErrorResponseSchema,
  ExtensionNumberResponseSchema,
  FileDescriptorResponseSchema,
  ListServiceResponseSchema,
  ServerReflection,
  type ServerReflectionRequest,
  ServerReflectionRequestSchema,
  type ServerReflectionResponse,
  ServerReflectionResponseSchema,
} from '../../protos/gen/grpc/reflection/v1/reflection_pb.ts';
import {
  ServerReflection as ServerReflectionAlpha,
  ServerReflectionRequestSchema as ServerReflectionRequestAlphaSchema,
} from '../../protos/gen/grpc/reflection/v1alpha/reflection_pb.ts';
import { codes } from '../../protos/status.ts';
import { type BoundService, bindService } from './handler.ts';

/** Reflection over `services` and over itself, in both versions. */
export function createReflection(services: readonly DescService[]): BoundService[] {
  const answer = createAnswers([...services, ServerReflection, ServerReflectionAlpha]);
  return [
    bindService(ServerReflection, {
      async *serverReflectionInfo(requests) {
        for await (const request of requests) yield answer(request);
      },
    }),
    bindService(ServerReflectionAlpha, {
      async *serverReflectionInfo(requests) {
        for await (const request of requests) {
          // Equal on the wire, so the bytes of one version are read as the other.
          const same = fromBinary(ServerReflectionRequestSchema, toBinary(ServerReflectionRequestAlphaSchema, request));
          yield { wire: [toBinary(ServerReflectionResponseSchema, answer(same))] };
        }
      },
    }),
  ];
}

type Question = ServerReflectionRequest['messageRequest'];
type Answer = ServerReflectionResponse['messageResponse'];

function createAnswers(
  services: readonly DescService[],
): (request: ServerReflectionRequest) => ServerReflectionResponse {
  const files = new Map<string, DescFile>();
  const addFile = (file: DescFile) => {
    if (files.has(file.proto.name)) return;
    files.set(file.proto.name, file);
    for (const dependency of file.dependencies) addFile(dependency);
  };
  for (const { file } of services) addFile(file);
  const registry = createRegistry(...files.values());

  /** A file and, so that no second question is needed, all it imports; every file before those that it imports. */
  const describe = (file: DescFile): Uint8Array[] => {
    const visited = new Set<DescFile>();
    const imported: DescFile[] = [];
    const visit = (next: DescFile) => {
      if (visited.has(next)) return;
      visited.add(next);
      for (const dependency of next.dependencies) visit(dependency);
      imported.push(next);
    };
    visit(file);
    return imported.reverse().map(({ proto }) => toBinary(FileDescriptorProtoSchema, proto));
  };
  /** Messages, enums and services by full name; fields, values and methods by the name of what holds them. */
  const fileOf = (symbol: string): DescFile | undefined => {
    const holder = symbol.slice(0, Math.max(0, symbol.lastIndexOf('.')));
    return (registry.get(symbol) ?? registry.get(holder))?.file;
  };
  const respond = (messageRequest: Question): Answer => {
    const file = (found: DescFile | undefined, what: string): Answer =>
      found
        ? {
            case: 'fileDescriptorResponse',
            value: create(FileDescriptorResponseSchema, { fileDescriptorProto: describe(found) }),
          }
        : { case: 'errorResponse', value: create(ErrorResponseSchema, notFound(what)) };
    switch (messageRequest.case) {
      case 'listServices':
        return {
          case: 'listServicesResponse',
          value: create(ListServiceResponseSchema, {
            service: services.map(({ typeName }) => ({ name: typeName })).sort((a, b) => (a.name < b.name ? -1 : 1)),
          }),
        };
      case 'fileByFilename':
        return file(files.get(messageRequest.value), `file ${messageRequest.value}`);
      case 'fileContainingSymbol':
        return file(fileOf(messageRequest.value), `symbol ${messageRequest.value}`);
      case 'fileContainingExtension':
        return file(undefined, `extension of ${messageRequest.value.containingType}`);
      case 'allExtensionNumbersOfType':
        return registry.getMessage(messageRequest.value)
          ? {
              case: 'allExtensionNumbersResponse',
              value: create(ExtensionNumberResponseSchema, { baseTypeName: messageRequest.value }),
            }
          : { case: 'errorResponse', value: create(ErrorResponseSchema, notFound(`type ${messageRequest.value}`)) };
      case undefined:
        return {
          case: 'errorResponse',
          value: create(ErrorResponseSchema, {
            errorCode: codes.INVALID_ARGUMENT,
            errorMessage: 'the request asks nothing',
          }),
        };
    }
  };
  return (request) =>
    create(ServerReflectionResponseSchema, {
      validHost: request.host,
      originalRequest: request,
      messageResponse: respond(request.messageRequest),
    });
}

function notFound(what: string) {
  return { errorCode: codes.NOT_FOUND, errorMessage: `no ${what} here` };
}
