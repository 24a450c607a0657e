/** From an action digest to everything that a run needs, checked before the action is queued. */
import { type DescMessage, fromBinary, type MessageShape } from '@bufbuild/protobuf';
import { durationMs } from '@bufbuild/protobuf/wkt';
import { type Digest, makeDigest } from '../../protos/digest.ts';
import {
  type Action,
  ActionSchema,
  type Command,
  CommandSchema,
  type Digest as WireDigest,
} from '../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { StatusError } from '../../protos/status.ts';
import { planCommand } from '../../sandbox/command.ts';
import { type FoundTree, type InputTrees, treeDigests } from '../../sandbox/input-tree.ts';
import type { CallOptions, LocalBlobStore, Pin } from '../storage/blob-store.ts';
import * as limits from './limits.ts';
import { missingBlobs } from './missing.ts';
import type { PlatformOffer } from './platform.ts';

export interface PreparedAction extends Disposable {
  readonly digest: Digest;
  readonly action: Action;
  readonly command: Command;
  readonly inputRoot: Digest;
  readonly timeoutMs: number;
  /** Keeps all inputs from eviction until disposed; throws the MISSING error when some are gone. No-op when pinned. */
  pin(): Promise<void>;
}

export interface PrepareOptions extends CallOptions {
  /** `anywhere`: a member of the mesh may run it. Default: here. */
  readonly where?: 'here' | 'anywhere';
}

export interface Preparer {
  /** The Action, or `undefined` when it is not held. Throws INVALID_ARGUMENT when the blob is no Action. */
  readAction(digest: Digest, options?: CallOptions): Promise<Action | undefined>;
  /**
   * Reads and checks command, platform, timeout and input tree. Throws FAILED_PRECONDITION with all missing blobs, or for
   * a platform that nobody has; INVALID_ARGUMENT for what no server could run.
   */
  prepare(digest: Digest, action: Action, options?: PrepareOptions): Promise<PreparedAction>;
}

export interface PreparerOptions {
  readonly blobs: Pick<LocalBlobStore, 'get' | 'pin'>;
  readonly trees: Pick<InputTrees, 'find'>;
  readonly platform: PlatformOffer;
  readonly defaultTimeoutMs: number;
  readonly maxTimeoutMs: number;
}

export function createPreparer({ blobs, trees, platform, defaultTimeoutMs, maxTimeoutMs }: PreparerOptions): Preparer {
  let pinnedDigests = 0;

  const readMessage = async <S extends DescMessage>(
    schema: S,
    digest: Digest,
    options: CallOptions | undefined,
  ): Promise<MessageShape<S> | undefined> => {
    if (digest.sizeBytes > limits.messageBytesMax) {
      throw new StatusError('INVALID_ARGUMENT', `${schema.name} ${digest.hash}/${digest.sizeBytes} is too large`);
    }
    const bytes = await blobs.get(digest, options);
    if (!bytes) return undefined;
    try {
      return fromBinary(schema, bytes);
    } catch (cause) {
      const what = `the blob ${digest.hash}/${digest.sizeBytes} is not a ${schema.name} message`;
      throw new StatusError('INVALID_ARGUMENT', what, { cause });
    }
  };

  const holdInputs = (digests: readonly Digest[], what: string) => {
    let pin: Pin | undefined;
    const release = (): void => {
      if (!pin) return;
      pinnedDigests -= digests.length;
      pin[Symbol.dispose]();
      pin = undefined;
    };
    return {
      async take(): Promise<void> {
        if (pin) return;
        const taken = await blobs.pin(digests);
        if (taken.missing.length > 0) {
          taken[Symbol.dispose]();
          throw missingBlobs(taken.missing, what);
        }
        pin = taken;
        pinnedDigests += digests.length;
      },
      release,
    };
  };

  return {
    readAction: (digest, options) => readMessage(ActionSchema, digest, options),

    async prepare(digest, action, options) {
      const where = options?.where ?? 'here';
      const what = `action ${digest.hash}/${digest.sizeBytes}`;
      const digestIn = (wire: WireDigest | undefined, name: string): Digest => {
        if (!wire) throw new StatusError('INVALID_ARGUMENT', `${what}: ${name} is not set`);
        return makeDigest(digest.fn, wire.hash, wire.sizeBytes);
      };
      const commandDigest = digestIn(action.commandDigest, 'command_digest');
      const inputRoot = digestIn(action.inputRootDigest, 'input_root_digest');
      const timeoutMs = checkTimeout(what, action, defaultTimeoutMs, maxTimeoutMs);
      if (action.platform) platform.check(action.platform.properties, where);

      const [command, tree] = await Promise.all([
        readMessage(CommandSchema, commandDigest, options),
        trees.find(inputRoot, options),
      ]);
      if (command) {
        // For its checks: the sandbox makes its own plan, and would complain only after the queue.
        planCommand(command);
        // Clients of 2.1 and before write it into the command alone.
        if (!action.platform && command.platform) platform.check(command.platform.properties, where);
      }
      const inputs = [digest, commandDigest, ...namedIn(tree)];
      const hold = holdInputs(inputs, what);
      if (!command || !('root' in tree)) {
        using pin = await blobs.pin(inputs);
        const unread = [...(command ? [] : [commandDigest]), ...('root' in tree ? [] : tree.missing)];
        throw missingBlobs(pin.missing.length > 0 ? pin.missing : unread, what);
      }
      await hold.take();
      // Too much is pinned for what waits: this one's inputs may be evicted, and are looked for again when it starts.
      if (pinnedDigests > limits.pinnedDigestsMax) hold.release();
      return {
        digest,
        action,
        command,
        inputRoot,
        timeoutMs,
        pin: () => hold.take(),
        [Symbol.dispose]: () => hold.release(),
      };
    },
  };
}

function namedIn(tree: FoundTree): readonly Digest[] {
  return 'root' in tree ? treeDigests(tree.root) : [...tree.missing, ...tree.named];
}

function checkTimeout(what: string, action: Action, defaultMs: number, maxMs: number): number {
  if (!action.timeout) return defaultMs;
  const timeoutMs = durationMs(action.timeout);
  if (timeoutMs < 0) throw new StatusError('INVALID_ARGUMENT', `${what}: the timeout is negative`);
  if (timeoutMs > maxMs) {
    throw new StatusError(
      'INVALID_ARGUMENT',
      `${what}: asks for a timeout of ${timeoutMs / 1000} s; this node allows at most ${maxMs / 1000} s (--max-action-timeout)`,
    );
  }
  // An explicit zero is how some clients write "none".
  return timeoutMs === 0 ? defaultMs : timeoutMs;
}
