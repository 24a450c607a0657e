/** What bubblewrap and the plain runner have in common: starting one staged command and knowing when all of it is gone. */
import type { ChildProcess } from 'node:child_process';
import { constants } from 'node:os';
import { StatusError } from '../protos/status.ts';
import type { Capture } from './capture.ts';
import type { CommandPlan } from './command.ts';
import type { OutputPipes } from './pipes.ts';
import type { Freezable } from './run-control.ts';
import type { Sandbox } from './sandbox.ts';
import type { Owner } from './staging.ts';

/** A path of the host that the command finds, unchangeable, at `path` below its root. */
export interface SharedMount {
  readonly source: string;
  readonly path: string;
}

export interface StagedCommand {
  readonly plan: CommandPlan;
  /** The root of the input tree on the host. */
  readonly root: string;
  readonly mounts: readonly SharedMount[];
  /** For files of the runner; the command does not see it. */
  readonly directory: string;
}

export interface CommandStreams {
  readonly stdout: Capture;
  readonly stderr: Capture;
  readonly onStdout?: ((chunk: Uint8Array) => void) | undefined;
  readonly onStderr?: ((chunk: Uint8Array) => void) | undefined;
}

export interface Ended {
  readonly exitCode: number;
  /** The kernel killed some of it because its group had no memory left. */
  readonly outOfMemory: boolean;
}

export interface RunningCommand extends Freezable {
  /**
   * Resolves when no process of the command is left and both streams have ended. A signal is exit code 128 + its
   * number; a program that is not there or not executable is 127 or 126. Rejects when the command could not be started.
   */
  readonly ended: Promise<Ended>;
  /** Kills everything at once, frozen or not; `ended` follows. */
  readonly kill: () => void;
}

export interface Runner {
  readonly isolation: Sandbox['isolation'];
  readonly isolationReason: string;
  readonly limitsInForce: readonly string[];
  /** Who the command runs as on the host, when that is not the node's own user. */
  readonly owner?: Owner | undefined;
  /** What holds for guests, one text each; `undefined` where they cannot run. */
  readonly guestLimitsInForce: readonly string[] | undefined;
  /** @param guest - at the lowest class, within what all guests may have together */
  start(command: StagedCommand, streams: CommandStreams, guest: boolean): RunningCommand;
  /** Gives back what the runner holds of the system; no command may be running. */
  close(): Promise<void>;
}

/**
 * Gives a child the umask of every action, whatever the node's own is: a child takes it over at the moment it is spawned,
 * and spawning is one synchronous call.
 */
export function spawnUnderUmask(spawn: () => ChildProcess): ChildProcess {
  const umask = process.umask(0o022);
  try {
    return spawn();
  } finally {
    process.umask(umask);
  }
}

/** Hands on what comes. */
export function captureStreams({ stdout, stderr }: OutputPipes, streams: CommandStreams): void {
  stdout.on('data', (chunk: Buffer) => {
    streams.stdout.write(chunk);
    streams.onStdout?.(chunk);
  });
  stderr.on('data', (chunk: Buffer) => {
    streams.stderr.write(chunk);
    streams.onStderr?.(chunk);
  });
}

export function exitCodeOf(code: number | null, signal: NodeJS.Signals | null): number {
  return code ?? 128 + (signal ? constants.signals[signal] : 0);
}

/** A spawn that did not happen, as what its caller should be told. */
export function spawnFailure(error: unknown, program: string): StatusError {
  if (error instanceof StatusError) return error;
  const { code, message } = error as NodeJS.ErrnoException;
  if (code === 'EAGAIN' || code === 'ENOMEM' || code === 'EMFILE' || code === 'ENFILE') {
    return new StatusError(
      'RESOURCE_EXHAUSTED',
      `starting ${program}: this machine has no room for a process (${message})`,
      {
        cause: error,
      },
    );
  }
  return new StatusError('INTERNAL', `starting ${program}: ${message}`, { cause: error });
}
