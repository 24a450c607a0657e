/** Planted faults of executions and of the server around them. */
import { create } from '@bufbuild/protobuf';
import { anyPack } from '@bufbuild/protobuf/wkt';
import { Fetch } from '../../../protos/gen/build/bazel/remote/asset/v1/remote_asset_pb.ts';
import {
  Capabilities,
  ContentAddressableStorage,
  ExecuteResponseSchema,
  Execution,
  ExecutionStage_Value,
} from '../../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { ByteStream } from '../../../protos/gen/google/bytestream/bytestream_pb.ts';
import { StatusSchema } from '../../../protos/gen/google/rpc/status_pb.ts';
import { codes } from '../../../protos/status.ts';
import type { PlantedFault } from './storage.ts';
import {
  changedMetadata,
  changedOperations,
  changedResponses,
  changedResults,
  changedSubjects,
  changeResponse,
  responseOf,
  rewrittenActions,
} from './operations.ts';
import { fault, faults } from './proxy.ts';

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
        command.arguments = ['/bin/sh', '-c', 'sleep 12'];
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
    does: 'ignores qualifiers of assets that it does not know',
    breaks: ['P61'],
    plant: () => fault(Fetch.method.fetchBlob, () => ({ request: (message) => void (message.qualifiers = []) })),
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
