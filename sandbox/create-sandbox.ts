/** Makes the sandbox of this machine: bubblewrap where it works, the plain runner otherwise. */
import { access, constants, mkdir, realpath, statfs } from 'node:fs/promises';
import { totalmem } from 'node:os';
import { delimiter, join } from 'node:path';
import { digestOf } from '../protos/hasher.ts';
import { StatusError } from '../protos/status.ts';
import { createBubblewrapRunner } from './bubblewrap.ts';
import { createGuestDisk } from './guest-disk.ts';
import { createInputTrees, type InputTrees } from './input-tree.ts';
import { guestDiskBytesMax, guestDiskShare, guestMemoryShare } from './limits.ts';
import { createPipePool } from './pipes.ts';
import { createPlainRunner } from './plain.ts';
import { runTask } from './run-task.ts';
import type { Runner } from './runner.ts';
import type { Sandbox, SandboxBlobs } from './sandbox.ts';
import { createTreeCache } from './staging.ts';
import { createSystemView } from './system-view.ts';
import { createWorkplace, reachableDirectory, unprivileged, type Workplace } from './workplace.ts';

export interface CreateSandboxOptions {
  /** A directory for the sandbox alone, on the file system of the store; what it holds is removed. */
  readonly workDir: string;
  readonly blobs: SandboxBlobs;
  /** Read input trees; by default of its own. Shared with whoever looks at trees before they come here. */
  readonly trees?: InputTrees;
  /** The bubblewrap program; default: `bwrap` on PATH. A path that does not exist forces the plain runner. */
  readonly bubblewrapPath?: string;
  /** Directories no action may see even when they lie below a visible one such as /usr or /opt: the data directory. */
  readonly hiddenPaths?: readonly string[];
  /** What guests may have together; by default a share of this machine. */
  readonly guests?: { readonly memoryBytes?: number; readonly diskBytes?: number };
}

/** What `status` and `doctor` show. */
export interface SandboxDescription {
  readonly isolation: Sandbox['isolation'];
  /** Why that isolation, and what to do for a better one; a sentence. */
  readonly isolationReason: string;
  /** What is limited for each action, one text each, such as `memory 8 GiB (cgroup v1)`. */
  readonly limitsInForce: readonly string[];
  /** The same for actions of other members; empty where none can run. */
  readonly guestLimitsInForce: readonly string[];
}

export interface LocalSandbox extends Sandbox {
  describe(): SandboxDescription;
}

/** Tries bubblewrap by running it; a sandbox without isolation says why. Throws when `workDir` cannot be used. */
export async function createSandbox(options: CreateSandboxOptions): Promise<LocalSandbox> {
  const { blobs, trees = createInputTrees(options.blobs) } = options;
  await mkdir(options.workDir, { recursive: true, mode: 0o700 });
  const { runner, workplace } = await chooseRunner(options, await realpath(options.workDir));
  const treeCache = createTreeCache({
    blobs,
    directory: join(workplace.path, 'trees'),
    owner: runner.owner,
    remove: workplace.remove,
  });
  const diskBytes = options.guests?.diskBytes ?? (await guestDiskBytes(workplace.path));
  const guestDisk = createGuestDisk(diskBytes);
  const guestLimitsInForce = runner.guestLimitsInForce
    ? [...runner.guestLimitsInForce, `disk ${(diskBytes / 2 ** 30).toFixed(1)} GiB together`]
    : [];
  const closing = new AbortController();
  const running = new Set<Promise<unknown>>();

  const closeAll = async () => {
    closing.abort();
    await Promise.all(running);
    await treeCache.settle();
    await runner.close();
    await workplace.close();
  };
  let closed: Promise<void> | undefined;

  return {
    isolation: runner.isolation,
    limitsInForce: runner.limitsInForce,
    describe: () => ({
      isolation: runner.isolation,
      isolationReason: runner.isolationReason,
      limitsInForce: runner.limitsInForce,
      guestLimitsInForce,
    }),
    async run(task, taskOptions) {
      if (closing.signal.aborted) throw new StatusError('UNAVAILABLE', 'the node is shutting down');
      const signal = AbortSignal.any([taskOptions.signal, closing.signal]);
      const run = runTask(task, { ...taskOptions, signal }, { blobs, trees, treeCache, runner, workplace, guestDisk });
      const settled = run.catch(() => undefined).finally(() => running.delete(settled));
      running.add(settled);
      return run;
    },
    async keepLog(fn, text) {
      const bytes = Buffer.from(text);
      const digest = digestOf(fn, bytes);
      await blobs.putAll([{ digest, bytes }]);
      return digest;
    },
    close() {
      closed ??= closeAll();
      return closed;
    },
  };
}

async function chooseRunner(
  options: CreateSandboxOptions,
  workDir: string,
): Promise<{ runner: Runner; workplace: Workplace }> {
  const plain = async (reason: string) => {
    const workplace = await createWorkplace({ path: workDir, own: false }, undefined);
    return { runner: createPlainRunner(reason, createPipePool(join(workDir, 'notes'), undefined)), workplace };
  };
  if (process.platform !== 'linux') {
    return plain(`bubblewrap exists for Linux only; on ${process.platform} actions run without isolation`);
  }
  const program = options.bubblewrapPath ?? (await findOnPath('bwrap'));
  if (!program || !(await isExecutable(program))) {
    return plain(
      `${program ?? 'bwrap'} was not found, so actions run without isolation; install bubblewrap (apt-get install bubblewrap) and restart`,
    );
  }
  // Root's own files stay out of reach of an action even where a mount would let it through.
  const owner = process.getuid?.() === 0 ? unprivileged : undefined;
  const place = owner ? await reachableDirectory(workDir) : { path: workDir, own: false };
  if (!place) {
    return plain(
      `actions of a node that runs as root run as user ${unprivileged.uid}, who cannot reach ${workDir}, and in /var/tmp somebody else holds the place; choose a data directory whose parents others may enter`,
    );
  }
  const workplace = await createWorkplace(place, owner);
  try {
    const system = await createSystemView(join(place.path, 'etc'), [workDir, ...(options.hiddenPaths ?? [])]);
    const runner = await createBubblewrapRunner({
      program,
      system,
      owner,
      trialDirectory: join(place.path, 'actions'),
      notesDirectory: join(place.path, 'notes'),
      pool: createPipePool(join(place.path, 'notes'), owner),
      guestMemoryBytes: options.guests?.memoryBytes ?? Math.floor(totalmem() * guestMemoryShare),
    });
    return { runner, workplace };
  } catch (error) {
    await workplace.close();
    if (!(error instanceof StatusError)) throw error;
    return plain(
      `bubblewrap does not work here, so actions run without isolation: ${error.reason}. Often the system refuses user namespaces to ordinary users (sysctl user.max_user_namespaces, kernel.apparmor_restrict_unprivileged_userns)`,
    );
  }
}

async function guestDiskBytes(path: string): Promise<number> {
  const { bavail, bsize } = await statfs(path);
  return Math.min(guestDiskBytesMax, Math.floor(bavail * bsize * guestDiskShare));
}

async function findOnPath(name: string): Promise<string | undefined> {
  for (const directory of (process.env['PATH'] ?? '').split(delimiter)) {
    const path = join(directory, name);
    if (directory && (await isExecutable(path))) return path;
  }
  return undefined;
}

async function isExecutable(path: string): Promise<boolean> {
  return access(path, constants.X_OK).then(
    () => true,
    () => false,
  );
}
