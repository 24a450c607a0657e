/** Makes the Action and Command messages of a command line. */
import { create, toBinary } from '@bufbuild/protobuf';
import { durationFromMs } from '@bufbuild/protobuf/wkt';
import { type Digest, toWireDigest } from '../../../protos/digest.ts';
import {
  ActionSchema,
  CommandSchema,
} from '../../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { digestOf } from '../../../protos/hasher.ts';
import type { LocalBlob } from './inputs.ts';

export interface ActionParts {
  readonly arguments: readonly string[];
  /** Names and values; the last of equal names counts. */
  readonly environment: readonly (readonly [string, string])[];
  readonly outputPaths: readonly string[];
  readonly platform: readonly (readonly [string, string])[];
  readonly timeoutMs: number | undefined;
  readonly doNotCache: boolean;
  readonly inputRoot: Digest;
}

/** What a command finds on its PATH unless it is told otherwise: the same everywhere, so that results can be shared. */
const defaultPath = '/usr/local/bin:/usr/bin:/bin';

/** The digest to execute, and the two blobs that the server needs beside the inputs. Lists are sorted, as the API asks. */
export function makeAction(parts: ActionParts): { readonly action: Digest; readonly blobs: readonly LocalBlob[] } {
  const environment = new Map([['PATH', defaultPath] as const, ...parts.environment]);
  const properties = parts.platform
    .map(([name, value]) => ({ name, value }))
    .sort((a, b) => byBytes(a.name, b.name) || byBytes(a.value, b.value));
  const platform = properties.length > 0 ? { platform: { properties } } : {};
  const command = blobOf(
    toBinary(
      CommandSchema,
      create(CommandSchema, {
        arguments: [...parts.arguments],
        environmentVariables: [...environment]
          .map(([name, value]) => ({ name, value }))
          .sort((a, b) => byBytes(a.name, b.name)),
        outputPaths: [...new Set(parts.outputPaths)].sort(byBytes),
        ...platform,
      }),
    ),
  );
  const action = blobOf(
    toBinary(
      ActionSchema,
      create(ActionSchema, {
        commandDigest: toWireDigest(command.digest),
        inputRootDigest: toWireDigest(parts.inputRoot),
        ...(parts.timeoutMs === undefined ? {} : { timeout: durationFromMs(parts.timeoutMs) }),
        doNotCache: parts.doNotCache,
        ...platform,
      }),
    ),
  );
  return { action: action.digest, blobs: [command, action] };
}

function blobOf(bytes: Uint8Array): LocalBlob {
  return { digest: digestOf('sha256', bytes), content: { bytes } };
}

function byBytes(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a), Buffer.from(b));
}
