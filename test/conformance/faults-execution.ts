/** Planted faults of executions and of the server around them. */
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import type { DescMessage, MessageShape } from '@bufbuild/protobuf';
import { type Any, anyPack, anyUnpack } from '@bufbuild/protobuf/wkt';
import type { DigestFunction } from '../../protos/digest.ts';
import {
  ActionCache,
  type Action,
  type ActionResult,
  ActionSchema,
  Capabilities,
  type Command,
  CommandSchema,
  ContentAddressableStorage,
  type Digest,
  DigestFunction_Value,
  DigestSchema,
  type ExecuteOperationMetadata,
  ExecuteOperationMetadataSchema,
  type ExecuteResponse,
  ExecuteResponseSchema,
  Execution,
  ExecutionStage_Value,
} from '../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { ByteStream } from '../../protos/gen/google/bytestream/bytestream_pb.ts';
import type { Operation } from '../../protos/gen/google/longrunning/operations_pb.ts';
import { PreconditionFailureSchema } from '../../protos/gen/google/rpc/error_details_pb.ts';
import { StatusSchema } from '../../protos/gen/google/rpc/status_pb.ts';
import { digestOf } from '../../protos/hasher.ts';
import { codes } from '../../protos/status.ts';
import type { Client } from './client.ts';
import type { PlantedFault } from './faults-storage.ts';
import { type Ending, type Fault, fault, faults } from './faulty-proxy.ts';

const { execute, waitExecution } = Execution.method;

export const executionFaults: readonly PlantedFault[] = [
  {
    does: 'takes exit code 255 for an error of the operation',
    breaks: ['P29'],
    plant: () =>
      changedOperations((operation) => {
        if (responseOf(operation)?.result?.exitCode !== 255) return;
        operation.result = { case: 'error', value: create(StatusSchema, { code: codes.INTERNAL }) };
      }),
  },
  {
    does: 'leaves the function out where it names missing BLAKE3 blobs',
    breaks: ['P30'],
    plant: () => changedSubjects((subject) => subject.replace('blobs/blake3/', 'blobs/')),
  },
  {
    does: 'names one missing blob of several',
    breaks: ['P30'],
    plant: () => changedSubjects((subject, index) => (index === 0 ? subject : undefined)),
  },
  {
    does: 'says COMPLETED before it is done',
    breaks: ['P31'],
    plant: () =>
      changedMetadata((metadata, operation) => {
        if (!operation.done) metadata.stage = ExecutionStage_Value.COMPLETED;
      }),
  },
  {
    does: 'does not say that a result is from the cache',
    breaks: ['P32'],
    plant: () => changedResponses((response) => void (response.cachedResult = false)),
  },
  {
    does: 'answers from the cache in spite of skip_cache_lookup',
    breaks: ['P33'],
    plant: () => fault(execute, () => ({ request: (message) => void (message.skipCacheLookup = false) })),
  },
  {
    does: 'ignores do_not_cache',
    breaks: ['P34'],
    // Of the actions that must not be cached only those that write a file are rewritten.
    plant: () =>
      rewrittenActions((action, command) => {
        if (!action.doNotCache || command.outputPaths.length === 0) return false;
        action.doNotCache = false;
        return true;
      }),
  },
  {
    does: 'says UNAVAILABLE for operations that it does not know',
    breaks: ['P36'],
    plant: () =>
      fault(waitExecution, () => ({
        ending: (ending) => {
          if (ending.code === 'NOT_FOUND') ending.code = 'UNAVAILABLE';
        },
      })),
  },
  {
    does: 'tells different waiters different results',
    breaks: ['P37'],
    plant: () => {
      const told = new Map<string, number>();
      return fault(waitExecution, () => ({
        response: (operation) => {
          const response = responseOf(operation);
          const [file] = response?.result?.outputFiles ?? [];
          if (!response || !file?.digest) return;
          const times = (told.get(operation.name) ?? 0) + 1;
          told.set(operation.name, times);
          file.digest.hash = file.digest.hash.replace(/^../, times.toString(16).padStart(2, '0'));
          operation.result = { case: 'response', value: anyPack(ExecuteResponseSchema, response) };
        },
      }));
    },
  },
  {
    does: 'calls a timeout ABORTED',
    breaks: ['P38'],
    plant: () =>
      changedResponses((response) => {
        if (response.status?.code === codes.DEADLINE_EXCEEDED) response.status.code = codes.ABORTED;
      }),
  },
  {
    does: 'queues what no worker can be, for ever',
    breaks: ['P40'],
    plant: () =>
      rewrittenActions((action, command) => {
        const impossible = action.platform?.properties.some(({ name }) => name === 'conformance-no-such-property');
        if (!impossible) return false;
        delete action.platform;
        command.arguments = ['/bin/sh', '-c', 'sleep 8'];
        return true;
      }),
  },
  {
    does: 'runs arguments through a shell',
    breaks: ['P41'],
    plant: () =>
      rewrittenActions((_action, command) => {
        if (!command.arguments.includes("it's") && !command.arguments.includes('a b')) return false;
        command.arguments = ['/bin/sh', '-c', command.arguments.join(' ')];
        return true;
      }),
  },
  {
    does: "adds its own variables to the command's",
    breaks: ['P42'],
    plant: () =>
      rewrittenActions((_action, command) => {
        if (!command.environmentVariables.some(({ name }) => name === 'GREETING')) return false;
        command.environmentVariables.push({
          ...command.environmentVariables[0]!,
          name: 'SSH_AUTH_SOCK',
          value: '/tmp/agent',
        });
        command.environmentVariables.sort((a, b) => (a.name < b.name ? -1 : 1));
        return true;
      }),
  },
  {
    does: 'runs in the root where the working directory does not exist',
    breaks: ['P43'],
    plant: () =>
      rewrittenActions((_action, command) => {
        if (command.workingDirectory !== 'not/there') return false;
        command.workingDirectory = '';
        return true;
      }),
  },
  {
    does: 'does not make the parents of outputs',
    breaks: ['P44'],
    plant: () =>
      rewrittenActions((_action, command) => {
        if (!command.outputFiles.includes('out/a/b')) return false;
        command.outputFiles = ['b'];
        return true;
      }),
  },
  {
    does: 'serves the older fields beside output_paths',
    breaks: ['P45'],
    plant: () =>
      rewrittenActions((_action, command) => {
        if (command.outputPaths.length === 0 || command.outputFiles.length === 0) return false;
        command.outputPaths = [...command.outputPaths, ...command.outputFiles].toSorted();
        return true;
      }),
  },
  {
    does: 'takes a directory for an output file',
    breaks: ['P46'],
    plant: () =>
      rewrittenActions((_action, command) => {
        if (command.outputFiles.join() !== 'a') return false;
        command.outputPaths = command.outputFiles;
        return true;
      }),
  },
  {
    does: 'tidies the targets of links',
    breaks: ['P47'],
    plant: () =>
      changedResults((result) => {
        for (const link of result.outputSymlinks) link.target = link.target.replaceAll('./x/./', 'x/');
      }),
  },
  {
    does: 'follows absolute links',
    breaks: ['P48'],
    plant: () =>
      changedResults((result) => {
        result.outputSymlinks = result.outputSymlinks.filter((link) => !link.target.startsWith('/'));
      }),
  },
  {
    does: 'names a root directory that is not that of the Tree',
    breaks: ['P49'],
    plant: () =>
      changedResults((result) => {
        for (const directory of result.outputDirectories) {
          if (directory.rootDirectoryDigest && directory.treeDigest)
            directory.rootDirectoryDigest = directory.treeDigest;
        }
      }),
  },
  {
    does: 'makes every output executable',
    breaks: ['P50'],
    plant: () =>
      changedResults((result) => {
        for (const file of result.outputFiles) file.isExecutable = true;
      }),
  },
  {
    does: 'tells modification times unasked',
    breaks: ['P52'],
    plant: () =>
      changedResults((result) => {
        for (const file of result.outputFiles) {
          file.nodeProperties ??= { $typeName: 'build.bazel.remote.execution.v2.NodeProperties', properties: [] };
          file.nodeProperties.mtime = { $typeName: 'google.protobuf.Timestamp', seconds: 1n, nanos: 0 };
        }
      }),
  },
  {
    does: 'sends stderr of a run inline although nobody asked',
    breaks: ['P53'],
    plant: () =>
      fault(execute, () => {
        let asked = false;
        return {
          request: (message) => {
            asked = message.inlineStderr;
          },
          response: (operation) => {
            changeResponse(operation, (response) => {
              if (!asked && response.result?.stderrDigest) response.result.stderrRaw = Buffer.from('unasked');
            });
          },
        };
      }),
  },
  {
    does: 'starts a command after its end',
    breaks: ['P54'],
    plant: () =>
      changedResults(({ executionMetadata: metadata }) => {
        if (!metadata?.executionStartTimestamp || !metadata.executionCompletedTimestamp) return;
        const start = metadata.executionStartTimestamp;
        metadata.executionStartTimestamp = metadata.executionCompletedTimestamp;
        metadata.executionCompletedTimestamp = start;
      }),
  },
  {
    does: 'forgets an operation when the client of its Execute goes away',
    breaks: ['P55'],
    plant: () => {
      const forgotten = new Set<string>();
      return faults(
        fault(execute, () => {
          let name = '';
          return {
            response: (operation) => {
              name = operation.name;
            },
            cancelled: () => forgotten.add(name),
          };
        }),
        fault(waitExecution, () => {
          // Looked at late, because the cancellation may arrive after the call that follows it.
          let name = '';
          return {
            request: (message) => {
              name = message.name;
            },
            response: () => !forgotten.has(name),
            ending: (ending) => {
              if (forgotten.has(name)) ending.code = 'NOT_FOUND';
            },
          };
        }),
      );
    },
  },
  {
    does: 'lets a thrown error through as UNKNOWN',
    breaks: ['P56'],
    plant: () =>
      fault(ContentAddressableStorage.method.getTree, () => {
        let unset = false;
        return {
          request: (message) => {
            unset = message.rootDigest === undefined;
          },
          ending: (ending) => {
            if (unset) ending.code = 'UNKNOWN';
          },
        };
      }),
  },
  {
    does: 'refuses requests whose metadata it cannot read',
    breaks: ['P59'],
    plant: () =>
      fault(Capabilities.method.getCapabilities, () => {
        let bad = false;
        return {
          metadata: (metadata) => {
            const [bytes] = metadata.get('build.bazel.remote.execution.v2.requestmetadata-bin');
            bad = bytes instanceof Buffer && bytes[0] === 0xff;
          },
          ending: (ending) => {
            if (bad) ending.code = 'INVALID_ARGUMENT';
          },
        };
      }),
  },
  {
    does: 'serves a hundred reads at once and refuses more',
    breaks: ['P60'],
    plant: () => {
      let running = 0;
      return fault(ByteStream.method.read, () => {
        running += 1;
        const refused = running > 100;
        return {
          response: () => !refused,
          ending: (ending) => {
            running -= 1;
            if (refused) ending.code = 'RESOURCE_EXHAUSTED';
          },
        };
      });
    },
  },
  {
    does: 'refuses priority 0',
    breaks: ['P62'],
    plant: () =>
      fault(execute, () => {
        let refused = false;
        return {
          request: (message) => {
            refused = message.executionPolicy?.priority === 0;
          },
          ending: (ending) => {
            if (refused) ending.code = 'INVALID_ARGUMENT';
          },
        };
      }),
  },
];

function responseOf(operation: Operation): ExecuteResponse | undefined {
  return operation.result.case === 'response' ? anyUnpack(operation.result.value, ExecuteResponseSchema) : undefined;
}

function changedOperations(change: (operation: Operation) => void): Fault {
  return faults(
    fault(execute, () => ({ response: change })),
    fault(waitExecution, () => ({ response: change })),
  );
}

function changedMetadata(change: (metadata: ExecuteOperationMetadata, operation: Operation) => void): Fault {
  return changedOperations((operation) => {
    const metadata = operation.metadata && anyUnpack(operation.metadata, ExecuteOperationMetadataSchema);
    if (!metadata) return;
    change(metadata, operation);
    operation.metadata = anyPack(ExecuteOperationMetadataSchema, metadata);
  });
}

function changeResponse(operation: Operation, change: (response: ExecuteResponse) => void): void {
  const response = responseOf(operation);
  if (!response) return;
  change(response);
  operation.result = { case: 'response', value: anyPack(ExecuteResponseSchema, response) };
}

function changedResponses(change: (response: ExecuteResponse) => void): Fault {
  return changedOperations((operation) => changeResponse(operation, change));
}

function changedResults(change: (result: ActionResult) => void): Fault {
  return changedResponses((response) => {
    if (response.result) change(response.result);
  });
}

/** Changes or (by `undefined`) drops the subjects of MISSING violations, wherever they are told. */
function changedSubjects(change: (subject: string, index: number) => string | undefined): Fault {
  const changed = (details: Any[]): Any[] =>
    details.map((detail) => {
      const failure = anyUnpack(detail, PreconditionFailureSchema);
      if (!failure) return detail;
      failure.violations = failure.violations.flatMap((violation, index) => {
        const subject = change(violation.subject, index);
        return subject === undefined ? [] : [{ ...violation, subject }];
      });
      return anyPack(PreconditionFailureSchema, failure);
    });
  const inTrailers = (ending: Ending) => {
    const [packed] = ending.metadata.get('grpc-status-details-bin');
    if (!(packed instanceof Buffer)) return;
    const status = fromBinary(StatusSchema, packed);
    status.details = changed(status.details);
    ending.metadata.set('grpc-status-details-bin', Buffer.from(toBinary(StatusSchema, status)));
  };
  const inResponse = (operation: Operation) =>
    changeResponse(operation, (response) => {
      if (response.status) response.status.details = changed(response.status.details);
    });
  return faults(
    fault(execute, () => ({ ending: inTrailers, response: inResponse })),
    fault(waitExecution, () => ({ ending: inTrailers, response: inResponse })),
  );
}

/**
 * Runs another action than the one that was asked for, where `rewrite` changes it (and returns true), and answers as if
 * it were the one; its result is found in the action cache under both.
 */
function rewrittenActions(rewrite: (action: Action, command: Command) => boolean): Fault {
  const rewritten = new Map<string, Digest>();
  return faults(
    fault(execute, () => {
      let asked: Digest | undefined;
      return {
        async request(message, upstream) {
          asked = message.actionDigest;
          const fn: DigestFunction = message.digestFunction === DigestFunction_Value.BLAKE3 ? 'blake3' : 'sha256';
          const action = await load(upstream, ActionSchema, message.actionDigest, fn);
          const command = action && (await load(upstream, CommandSchema, action.commandDigest, fn));
          if (!asked || !action || !command || !rewrite(action, command)) return;
          action.commandDigest = await store(upstream, CommandSchema, command, fn);
          message.actionDigest = await store(upstream, ActionSchema, action, fn);
          rewritten.set(asked.hash, message.actionDigest);
        },
        response(operation) {
          const metadata = operation.metadata && anyUnpack(operation.metadata, ExecuteOperationMetadataSchema);
          if (!metadata || !asked) return;
          metadata.actionDigest = asked;
          operation.metadata = anyPack(ExecuteOperationMetadataSchema, metadata);
        },
      };
    }),
    fault(ActionCache.method.getActionResult, () => ({
      request(message) {
        const other = rewritten.get(message.actionDigest?.hash ?? '');
        if (other) message.actionDigest = other;
      },
    })),
  );
}

async function load<D extends DescMessage>(
  upstream: Client,
  schema: D,
  digest: Digest | undefined,
  fn: DigestFunction,
): Promise<MessageShape<D> | undefined> {
  if (!digest) return undefined;
  const { response } = await upstream.unary(ContentAddressableStorage.method.batchReadBlobs, {
    digests: [digest],
    digestFunction: fn === 'blake3' ? DigestFunction_Value.BLAKE3 : DigestFunction_Value.SHA256,
  });
  const [entry] = response?.responses ?? [];
  if (!entry || (entry.status?.code ?? 0) !== 0) return undefined;
  try {
    return fromBinary(schema, entry.data);
  } catch {
    // Not such a message: the server will say so.
    return undefined;
  }
}

async function store<D extends DescMessage>(
  upstream: Client,
  schema: D,
  message: MessageShape<D>,
  fn: DigestFunction,
): Promise<Digest> {
  const data = toBinary(schema, message);
  const { hash, sizeBytes } = digestOf(fn, data);
  const digest = create(DigestSchema, { hash, sizeBytes: BigInt(sizeBytes) });
  await upstream.unary(ContentAddressableStorage.method.batchUpdateBlobs, {
    requests: [{ digest, data }],
    digestFunction: fn === 'blake3' ? DigestFunction_Value.BLAKE3 : DigestFunction_Value.SHA256,
  });
  return digest;
}
