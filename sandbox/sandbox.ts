/**
 * Runs one action: stage the input tree, run the command, collect the outputs.
 *
 * The sandbox reaches blobs only through the ports below; the node wires them to its store.
 */
import type { Digest } from '../protos/digest.ts';
import type {
  Action,
  ActionResult,
  Command,
} from '../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import type { RunControl } from './run-control.ts';

/** What the sandbox needs of a store; `node/storage` provides it. */
export interface SandboxBlobs {
  /** A whole small blob, verified; `undefined` when it is not held. */
  get(digest: Digest, options?: { signal?: AbortSignal }): Promise<Uint8Array | undefined>;
  missing(digests: readonly Digest[], options?: { signal?: AbortSignal }): Promise<Digest[]>;
  /** A private copy at `path`, mode 0644 or 0755; false when the blob is not held. */
  copyTo(digest: Digest, path: string, options: { readonly executable: boolean }): Promise<boolean>;
  /** A file at `path` that may share its inode with the store: only where nothing can write to it or change its mode. */
  linkTo(digest: Digest, path: string, options: { readonly executable: boolean }): Promise<boolean>;
  /** Takes in a finished output file; durable when it resolves. */
  putFile(fn: Digest['fn'], path: string, options?: { signal?: AbortSignal; move?: boolean }): Promise<Digest>;
  /** Takes in small blobs at the price of one sync; throws the first failure. */
  putAll(blobs: readonly { readonly digest: Digest; readonly bytes: Uint8Array }[]): Promise<void>;
}

/** What to run. The caller has read and checked Action and Command and pins the inputs for the duration. */
export interface SandboxTask {
  readonly fn: Digest['fn'];
  readonly action: Action;
  readonly command: Command;
  readonly inputRoot: Digest;
  /** Wall time of the command alone; staging, collecting and being frozen do not count. */
  readonly timeoutMs: number;
  /**
   * Another member's action: it gets the processors and the disk when nobody else wants them, and a part of what all
   * guests together may have. Rejected with FAILED_PRECONDITION where actions are not isolated.
   */
  readonly guest?: boolean;
}

export type SandboxPhase = 'staging' | 'running' | 'collecting';

export interface SandboxOptions {
  /** Aborting kills the whole process tree; `run` then rejects with CANCELLED. */
  readonly signal: AbortSignal;
  /** Made with `createRunControl`; lets the run be frozen and thawed. */
  readonly control?: RunControl;
  readonly onPhase?: (phase: SandboxPhase) => void;
  readonly onStdout?: (chunk: Uint8Array) => void;
  readonly onStderr?: (chunk: Uint8Array) => void;
}

export interface SandboxOutcome {
  /** `timed-out`: the command was killed; the result then holds what stdout and stderr had by then and no outputs. */
  readonly kind: 'exited' | 'timed-out';
  /** Outputs, exit code, stdout/stderr digests (blobs are stored), and the timestamps of the phases. */
  readonly result: ActionResult;
}

/**
 * Set-up problems reject with a StatusError: missing inputs as FAILED_PRECONDITION with a PreconditionFailure of type
 * MISSING naming all of them; a malformed tree or command as INVALID_ARGUMENT; a full disk as RESOURCE_EXHAUSTED.
 */
export interface Sandbox {
  /** `none` runs the command unisolated: only for actions of this node's own clients. */
  readonly isolation: 'bubblewrap' | 'none';
  /** What is limited for each action, one text each, such as `memory 8 GiB (cgroup v1)`. */
  readonly limitsInForce: readonly string[];
  run(task: SandboxTask, options: SandboxOptions): Promise<SandboxOutcome>;
  /** Stores a text about an action, for those who look for the reason of a failure. */
  keepLog(fn: Digest['fn'], text: string): Promise<Digest>;
  /** Kills what runs and removes every directory it made. */
  close(): Promise<void>;
}
