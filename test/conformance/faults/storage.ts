/** Planted faults of the content-addressable store and the action cache. */
import { create } from '@bufbuild/protobuf';
import { emptyDigest } from '../../../protos/digest.ts';
import {
  ActionCache,
  type ActionResult,
  ActionResultSchema,
  Capabilities,
  Compressor_Value,
  ContentAddressableStorage,
  type Digest,
  DigestFunction_Value,
  DigestSchema,
  SpliceBlobResponseSchema,
} from '../../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { ByteStream, QueryWriteStatusResponseSchema } from '../../../protos/gen/google/bytestream/bytestream_pb.ts';
import { type Fault, fault, faults } from './proxy.ts';

/** A deliberately wrong server: what it does wrong, and the rules that must fail because of it. */
export interface PlantedFault {
  readonly does: string;
  readonly breaks: readonly string[];
  readonly plant: () => Fault;
  /** What goes wrong with a server that a rule started and killed, once it is there again. */
  readonly afterRestart?: () => Fault;
}

const cas = ContentAddressableStorage.method;
const stream = ByteStream.method;
const uploadName = /^(?:(.*)\/)?uploads\/([^/]+)\/(blobs|compressed-blobs\/zstd)\/((?:blake3\/)?[0-9a-f]+)\/(\d+)(.*)$/;
/** One that nothing is wrong with: an instance of whole segments or none, SHA256, a size as it should be written. */
const plainUploadName = /^((?!blobs\/)[^/]+\/)*?uploads\/[^/]+\/blobs\/[0-9a-f]{64}\/(0|[1-9]\d{0,14})(\/.*)?$/;

export const storageFaults: readonly PlantedFault[] = [
  {
    does: 'lists the empty blob as missing',
    breaks: ['P1'],
    plant: () => {
      const empty = new Set(
        ['sha256', 'blake3', 'sha1', 'sha384', 'sha512', 'md5'].map((fn) => emptyDigest(fn as 'sha256').hash),
      );
      return fault(cas.findMissingBlobs, () => {
        let asked: string[] = [];
        return {
          request: (message) => {
            asked = message.blobDigests.filter((digest) => empty.has(digest.hash)).map((digest) => digest.hash);
          },
          response: (message) => {
            for (const hash of asked) message.missingBlobDigests.push(create(DigestSchema, { hash }));
          },
        };
      });
    },
  },
  {
    does: 'finds blobs by their hash alone, whatever size is asked for',
    breaks: ['P2'],
    plant: () => {
      const stored = new Map<string, bigint>();
      return faults(
        fault(cas.batchUpdateBlobs, () => ({
          request: (message) => {
            for (const { digest } of message.requests) if (digest) stored.set(digest.hash, digest.sizeBytes);
          },
        })),
        fault(cas.findMissingBlobs, () => ({
          response: (message) => {
            message.missingBlobDigests = message.missingBlobDigests.filter(
              (digest) => (stored.get(digest.hash) ?? digest.sizeBytes) === digest.sizeBytes,
            );
          },
        })),
      );
    },
  },
  {
    does: 'takes hashes in upper case',
    breaks: ['P3'],
    plant: () =>
      fault(cas.findMissingBlobs, () => ({
        request: (message) => {
          for (const digest of message.blobDigests) digest.hash = digest.hash.toLowerCase();
        },
      })),
  },
  {
    does: 'ignores a digest function that it does not know',
    breaks: ['P4'],
    plant: () =>
      fault(cas.findMissingBlobs, () => ({
        request: (message) => {
          const known: readonly number[] = [0, 1, 2, 3, 5, 6, 9];
          if (!known.includes(message.digestFunction)) message.digestFunction = DigestFunction_Value.UNKNOWN;
        },
      })),
  },
  {
    does: 'refuses uploads with something behind the size',
    breaks: ['P5'],
    plant: () =>
      fault(stream.write, () => ({
        request: (message) => {
          if (uploadName.exec(message.resourceName)?.[6]) message.resourceName = 'refused';
        },
      })),
  },
  {
    does: 'keeps uploads by their uuid alone',
    breaks: ['P6'],
    plant: () => {
      const names = new Map<string, string>();
      return fault(stream.write, () => ({
        request: (message) => {
          const uuid = uploadName.exec(message.resourceName)?.[2];
          if (uuid === undefined) return;
          const known = names.get(uuid) ?? message.resourceName;
          names.set(uuid, known);
          message.resourceName = known;
        },
      }));
    },
  },
  {
    does: 'tells what arrived instead of the full size when an upload ends early',
    breaks: ['P7'],
    plant: () =>
      fault(stream.write, () => {
        let size = 0n;
        let arrived = 0n;
        return {
          request: (message) => {
            size ||= BigInt(uploadName.exec(message.resourceName)?.[5] ?? 0);
            arrived += BigInt(message.data.byteLength);
          },
          response: (message) => {
            if (message.committedSize === size && arrived < size) message.committedSize = arrived;
          },
        };
      }),
  },
  {
    does: 'reports content that does not hash to its name as DATA_LOSS',
    breaks: ['P8'],
    plant: () =>
      fault(stream.write, () => {
        let orderly = true;
        let finished = false;
        let at = 0n;
        return {
          metadata: (metadata) => {
            if (metadata.get('build.bazel.remote.execution.v2.resource-name').length > 0) orderly = false;
          },
          request: (message) => {
            if (at === 0n && !plainUploadName.test(message.resourceName)) orderly = false;
            if (at > 0n && message.resourceName !== '') orderly = false;
            if (message.writeOffset !== at || finished) orderly = false;
            at += BigInt(message.data.byteLength);
            finished ||= message.finishWrite;
          },
          ending: (ending) => {
            if (orderly && finished && ending.code === 'INVALID_ARGUMENT') ending.code = 'DATA_LOSS';
          },
        };
      }),
  },
  {
    does: 'tells a made-up committed_size for compressed uploads',
    breaks: ['P9'],
    plant: () =>
      fault(stream.write, () => {
        let compressed = false;
        return {
          request: (message) => {
            compressed ||= message.resourceName.includes('/compressed-blobs/');
          },
          response: (message) => {
            if (compressed && message.committedSize !== -1n) message.committedSize = 12_345n;
          },
        };
      }),
  },
  {
    does: 'does not look at later offsets of compressed uploads',
    breaks: ['P10'],
    plant: () => correctedOffsets(true),
  },
  {
    does: 'does not look at later offsets of plain uploads',
    breaks: ['P11'],
    plant: () => correctedOffsets(false),
  },
  {
    does: 'says 0 bytes of an upload that it never heard of',
    breaks: ['P12'],
    plant: () =>
      fault(stream.queryWriteStatus, () => ({
        ending: (ending, say) => {
          if (ending.code !== 'NOT_FOUND') return;
          ending.code = 'OK';
          say(create(QueryWriteStatusResponseSchema));
        },
      })),
  },
  {
    does: 'ignores read_limit',
    breaks: ['P13'],
    plant: () =>
      fault(stream.read, () => ({
        request: (message) => {
          message.readLimit = 0n;
        },
      })),
  },
  {
    does: 'calls an offset beyond the end INVALID_ARGUMENT',
    breaks: ['P13'],
    plant: () =>
      fault(stream.read, () => ({
        ending: (ending) => {
          if (ending.code === 'OUT_OF_RANGE') ending.code = 'INVALID_ARGUMENT';
        },
      })),
  },
  {
    does: 'overlooks garbage behind a zstd frame',
    breaks: ['P14'],
    plant: () =>
      fault(stream.write, () => ({
        request: (message) => {
          if (Buffer.from(message.data.subarray(-7)).toString('latin1') === 'garbage')
            message.data = message.data.subarray(0, -7);
        },
      })),
  },
  {
    does: 'reports absent blobs of a batch as INTERNAL',
    breaks: ['P15'],
    plant: () =>
      fault(cas.batchReadBlobs, () => ({
        response: (message) => {
          for (const { status } of message.responses) if (status?.code === 5) status.code = 13;
        },
      })),
  },
  {
    does: 'answers batches in a compressor nobody asked for',
    breaks: ['P16'],
    plant: () =>
      fault(cas.batchReadBlobs, () => ({
        response: (message) => {
          for (const entry of message.responses) entry.compressor = Compressor_Value.DEFLATE;
        },
      })),
  },
  {
    does: 'lists a thousand missing blobs at most',
    breaks: ['P17'],
    plant: () =>
      fault(cas.findMissingBlobs, () => ({
        response: (message) => {
          message.missingBlobDigests = message.missingBlobDigests.slice(0, 1000);
        },
      })),
  },
  {
    does: 'forgets the page token of GetTree',
    breaks: ['P18'],
    plant: () =>
      fault(cas.getTree, () => {
        let paged = false;
        let pages = 0;
        return {
          request: (message) => {
            paged = message.pageSize > 0;
          },
          response: (message) => {
            message.nextPageToken = '';
            pages += 1;
            return !paged || pages === 1;
          },
        };
      }),
  },
  {
    does: 'advertises UNKNOWN as its digest function for executions',
    breaks: ['P19'],
    plant: () =>
      fault(Capabilities.method.getCapabilities, () => ({
        response: (message) => {
          if (message.executionCapabilities)
            message.executionCapabilities.digestFunction = DigestFunction_Value.UNKNOWN;
        },
      })),
  },
  {
    does: 'believes the client about the digest of spliced chunks',
    breaks: ['P20'],
    plant: () =>
      fault(cas.spliceBlob, () => ({
        ending: (ending, say) => {
          if (ending.code !== 'INVALID_ARGUMENT') return;
          ending.code = 'OK';
          say(create(SpliceBlobResponseSchema));
        },
      })),
  },
  {
    does: 'leaves out the last chunk of a split blob',
    breaks: ['P21'],
    plant: () =>
      fault(cas.splitBlob, () => ({
        response: (message) => {
          if (message.chunkDigests.length > 1) message.chunkDigests.pop();
        },
      })),
  },
  {
    does: 'does not look at the resource-name header',
    breaks: ['P22'],
    plant: () =>
      faults(
        fault(stream.read, () => ({
          metadata: (metadata) => metadata.remove('build.bazel.remote.execution.v2.resource-name'),
        })),
        fault(stream.write, () => ({
          metadata: (metadata) => metadata.remove('build.bazel.remote.execution.v2.resource-name'),
        })),
      ),
  },
  {
    does: 'serves results whose blobs are gone',
    breaks: ['P24'],
    plant: () => {
      const results = new Map<string, ActionResult>();
      const key = (message: { instanceName: string; actionDigest?: Digest | undefined; digestFunction: number }) =>
        [
          message.instanceName,
          message.digestFunction,
          message.actionDigest?.hash,
          message.actionDigest?.sizeBytes,
        ].join('/');
      return faults(
        fault(ActionCache.method.updateActionResult, () => {
          let stored = '';
          let result = create(ActionResultSchema);
          return {
            request: (message) => {
              stored = key(message);
              result = message.actionResult ?? result;
            },
            ending: (ending, say) => {
              if (ending.code === 'FAILED_PRECONDITION') {
                ending.code = 'OK';
                say(result);
              }
              if (ending.code === 'OK') results.set(stored, result);
            },
          };
        }),
        fault(ActionCache.method.getActionResult, () => {
          let asked = '';
          return {
            request: (message) => {
              asked = key(message);
            },
            ending: (ending, say) => {
              const known = results.get(asked);
              if (ending.code !== 'NOT_FOUND' || !known) return;
              ending.code = 'OK';
              say(known);
            },
          };
        }),
      );
    },
  },
  {
    does: 'sends stderr inline although nobody asked',
    breaks: ['P25'],
    plant: () =>
      fault(ActionCache.method.getActionResult, () => ({
        response: (message) => {
          if (message.stderrDigest) message.stderrRaw = Buffer.from('unasked');
        },
      })),
  },
  {
    does: 'loses links when a result is stored',
    breaks: ['P26'],
    plant: () =>
      fault(ActionCache.method.updateActionResult, () => ({
        request: (message) => {
          if (message.actionResult) message.actionResult.outputSymlinks = [];
        },
      })),
  },
  {
    does: 'keeps one action cache for all instances',
    breaks: ['P27'],
    plant: () =>
      faults(
        fault(ActionCache.method.getActionResult, () => ({ request: (message) => void (message.instanceName = '') })),
        fault(ActionCache.method.updateActionResult, () => ({
          request: (message) => void (message.instanceName = ''),
        })),
      ),
  },
  {
    does: 'answers HEAD of a stored result with 404',
    breaks: ['P28'],
    plant: () => ({
      calls: new Map(),
      http: (request, response) => {
        if (request.method !== 'HEAD' || !request.url?.startsWith('/ac/')) return false;
        response.writeHead(404).end();
        return true;
      },
    }),
  },
];

/** Puts every offset after the first right, so that the server never sees a wrong one. */
function correctedOffsets(compressed: boolean): Fault {
  return fault(stream.write, () => {
    let concerned = false;
    let first = true;
    let next = 0n;
    return {
      request: (message) => {
        if (first) {
          concerned = message.resourceName.includes('/compressed-blobs/') === compressed;
          next = message.writeOffset;
          first = false;
        }
        if (concerned) message.writeOffset = next;
        next += BigInt(message.data.byteLength);
      },
    };
  });
}
