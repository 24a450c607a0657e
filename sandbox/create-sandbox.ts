/** Makes the sandbox of this machine: bubblewrap where it works, the plain runner otherwise. */
import { StatusError } from '../protos/status.ts';
import type { Sandbox, SandboxBlobs } from './sandbox.ts';

export interface CreateSandboxOptions {
  /** A directory for the sandbox alone, on the file system of the store; what it holds is removed. */
  readonly workDir: string;
  readonly blobs: SandboxBlobs;
  /** The bubblewrap program; default: `bwrap` on PATH. A path that does not exist forces the plain runner. */
  readonly bubblewrapPath?: string;
  /** Directories no action may see even when they lie below a visible one such as /usr or /opt: the data directory. */
  readonly hiddenPaths?: readonly string[];
}

/** What `status` and `doctor` show. */
export interface SandboxDescription {
  readonly isolation: Sandbox['isolation'];
  /** Why that isolation, and what to do for a better one; a sentence. */
  readonly isolationReason: string;
  /** What is limited for each action, one text each, such as `memory 8 GiB (cgroup v1)`. */
  readonly limitsInForce: readonly string[];
}

export interface LocalSandbox extends Sandbox {
  describe(): SandboxDescription;
}

export async function createSandbox(options: CreateSandboxOptions): Promise<LocalSandbox> {
  throw new StatusError('UNIMPLEMENTED', `sandbox in ${options.workDir}`);
}
