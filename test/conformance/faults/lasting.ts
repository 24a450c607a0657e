/** Planted faults of what a server keeps, collects and shares, beyond the answer to one call. */
import { create } from '@bufbuild/protobuf';
import type { Digest } from '../../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import {
  ActionCache,
  ActionResultSchema,
  ContentAddressableStorage,
  DigestSchema,
  DirectorySchema,
  Execution,
} from '../../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { ByteStream } from '../../../protos/gen/google/bytestream/bytestream_pb.ts';
import { Operations } from '../../../protos/gen/google/longrunning/operations_pb.ts';
import { codes } from '../../../protos/status.ts';
import { digestOf } from '../../../protos/hasher.ts';
import type { Client } from '../client.ts';
import { changedResponses, load, responseOf, rewrittenActions, store } from './operations.ts';
import { fault, faults } from './proxy.ts';
import type { PlantedFault } from './storage.ts';

const { execute } = Execution.method;
const cas = ContentAddressableStorage.method;
const absentHash = digestOf('sha256', Buffer.from('never stored by anybody')).hash;

export const lastingFaults: readonly PlantedFault[] = [
  {
    does: 'leaves out what has an impossible name instead of refusing it',
    breaks: ['P23'],
    plant: () =>
      rewrittenActions(async (action, _command, upstream, fn) => {
        const root = await load(upstream, DirectorySchema, action.inputRootDigest, fn);
        const before = root?.files.length ?? 0;
        if (!root || before === 0) return false;
        const names = new Set<string>();
        root.files = root.files.filter(({ name }) => {
          const possible = !/^\.{0,2}$|[/\0]/.test(name) && !names.has(name);
          names.add(name);
          return possible;
        });
        if (root.files.length === before) return false;
        action.inputRootDigest = await store(upstream, DirectorySchema, root, fn);
        return true;
      }),
  },
  {
    does: 'ends a shared run when one of its clients leaves',
    breaks: ['P35'],
    plant: () => {
      /** Operations by the hash of their action. */
      const running = new Map<string, Set<string>>();
      return fault(execute, () => {
        let server: Client | undefined;
        let shared = new Set<string>();
        return {
          request(message, upstream) {
            server = upstream;
            const hash = message.actionDigest?.hash ?? '';
            shared = running.get(hash) ?? new Set();
            running.set(hash, shared);
          },
          response: (operation) => void shared.add(operation.name),
          cancelled() {
            // Those who asked at the same time have joined by then.
            setTimeout(() => {
              if (shared.size < 2) return;
              for (const name of shared) void server?.unary(Operations.method.cancelOperation, { name });
            }, 500);
          },
        };
      });
    },
  },
  {
    does: 'caches what timed out',
    breaks: ['P38', 'P39'],
    plant: () => {
      const timedOut = new Set<string>();
      return faults(
        fault(execute, () => {
          let hash = '';
          return {
            request: (message) => {
              hash = message.actionDigest?.hash ?? '';
            },
            response: (operation) => {
              if (responseOf(operation)?.status?.code === codes.DEADLINE_EXCEEDED) timedOut.add(hash);
            },
          };
        }),
        fault(ActionCache.method.getActionResult, () => {
          let hash = '';
          return {
            request: (message) => {
              hash = message.actionDigest?.hash ?? '';
            },
            ending: (ending, say) => {
              if (!timedOut.has(hash)) return;
              ending.code = 'OK';
              say(create(ActionResultSchema));
            },
          };
        }),
      );
    },
  },
  {
    does: 'takes a named pipe among outputs for a defect of its own',
    breaks: ['P51'],
    plant: () =>
      changedResponses(({ status }) => {
        if (status?.code === codes.FAILED_PRECONDITION && /pipe|fifo/i.test(status.message))
          status.code = codes.INTERNAL;
      }),
  },
  {
    does: 'evicts an output before it is fetched',
    breaks: ['P57'],
    plant: () => {
      const { hash } = digestOf('sha256', Buffer.from('kept\n'));
      return faults(
        fault(ByteStream.method.read, () => ({
          request: (message) => {
            message.resourceName = message.resourceName.replace(hash, absentHash);
          },
        })),
        fault(cas.batchReadBlobs, () => ({ request: (message) => message.digests.forEach(lose(hash)) })),
      );
    },
  },
  {
    does: 'loses what it acknowledged when it is killed',
    breaks: ['P58'],
    plant: () => faults(),
    afterRestart: () =>
      fault(cas.findMissingBlobs, () => {
        let asked: Digest[] = [];
        return {
          request: (message) => {
            asked = message.blobDigests;
          },
          response: (message) => {
            message.missingBlobDigests = asked.map(({ hash, sizeBytes }) => create(DigestSchema, { hash, sizeBytes }));
          },
        };
      }),
  },
];

function lose(hash: string): (digest: Digest) => void {
  return (digest) => {
    if (digest.hash === hash) digest.hash = absentHash;
  };
}
