/**
 * Shells that wait to become the next sandbox.
 *
 * Forking a process as large as Node takes milliseconds, and joining a control group waits for the kernel's other
 * processors (11 ms measured): both are done ahead. A launcher has its limits and its group when it is taken, and one
 * line on its standard input makes it bubblewrap. It ends by itself when the node does.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, mkdirSync, openSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { once } from 'node:events';
import { constants, setPriority } from 'node:os';
import { join } from 'node:path';
import type { Cgroup, Cgroups } from './cgroups.ts';
import { fileBytesMax, openFilesMax, spareLaunchersMax } from './limits.ts';
import type { OutputPipes, PipePool } from './pipes.ts';
import { spawnFailure, spawnUnderUmask } from './runner.ts';
import { StatusError } from '../protos/status.ts';
import { shellQuoted } from './shell.ts';
import type { Owner } from './staging.ts';

export interface Launcher extends Disposable {
  readonly child: ChildProcess;
  /** Its standard output and error are those of the command; nobody reads them yet. */
  readonly pipes: OutputPipes;
  /** What the command line names as file 3 is this file. */
  readonly noteFile: string;
  readonly group: Cgroup | undefined;
  /** Turns it into a program. At most once. */
  launch(commandLine: readonly string[]): void;
}

export interface Launchers {
  /** To be disposed when the process is gone. Throws RESOURCE_EXHAUSTED when there can be no other process. */
  take(): Launcher;
  close(): Promise<void>;
}

interface Handle {
  ref(): void;
  unref(): void;
}

export interface LaunchersOptions {
  /** For the notes; emptied by its owner. */
  readonly directory: string;
  readonly pool: PipePool;
  readonly cgroups: Cgroups | undefined;
  readonly owner: Owner | undefined;
  /** What programs find open as file `callFilterFile`. */
  readonly callFilterPath: string | undefined;
  /** For guests: they get the processors last, and are the first to be killed when memory is short. */
  readonly lowest: boolean;
}

/** The last number that every shell can open. */
export const callFilterFile = 9;

export function createLaunchers(options: LaunchersOptions): Launchers {
  const { directory, pool, cgroups, owner, callFilterPath, lowest } = options;
  const spares: Launcher[] = [];
  const leaks = inheritedFiles();
  const nothing = openSync('/dev/null', 'r');
  let made = 0;
  mkdirSync(directory, { recursive: true });

  const start = (): Launcher => {
    const noteFile = join(directory, String(made++));
    const note = openSync(noteFile, 'w');
    let group: Cgroup | undefined;
    const release = () => {
      rmSync(noteFile, { force: true });
      group?.[Symbol.dispose]();
    };
    let child: ChildProcess;
    let pipes: OutputPipes | undefined;
    let joinFiles: readonly number[] = [];
    try {
      const opened = pool.open();
      pipes = opened;
      group = cgroups?.acquire();
      joinFiles = group?.joinFiles ?? [];
      child = spawnUnderUmask(() =>
        spawn('/bin/sh', [], {
          cwd: '/',
          env: {},
          detached: true,
          stdio: withoutLeaks(['pipe', ...opened.writers, note, ...joinFiles], leaks, nothing),
          ...(owner ?? {}),
        }),
      );
      child.on('error', () => {});
      if (child.pid === undefined) throw new StatusError('RESOURCE_EXHAUSTED', 'there is no room for another process');
      if (lowest) yieldProcessors(child.pid);
    } catch (error) {
      release();
      pipes?.stdout.destroy();
      pipes?.stderr.destroy();
      throw spawnFailure(error, 'a sandbox');
    } finally {
      closeSync(note);
      pipes?.closeWriters();
    }
    // One that died says so by its end; there is nothing to be learned from the pipe to it.
    child.stdin?.on('error', () => {});
    child.stdin?.write(preparation(joinFiles.length, lowest));
    // One that waits does not keep the node from ending; one at work does.
    const handles = [child, child.stdin, pipes.stdout, pipes.stderr] as unknown as readonly Handle[];
    for (const handle of handles) handle.unref();
    return {
      child,
      pipes,
      noteFile,
      group,
      launch(commandLine) {
        for (const handle of handles) handle.ref();
        const files = joinFiles.map((_, index) => `${firstJoinFile + index}>&-`);
        if (callFilterPath !== undefined) files.push(`${callFilterFile}<${shellQuoted(callFilterPath)}`);
        child.stdin?.end(['exec', ...commandLine.map(shellQuoted), '</dev/null', ...files].join(' ').concat('\n'));
      },
      [Symbol.dispose]: release,
    };
  };
  /** For one that ended without having been launched. */
  const discard = ({ pipes, [Symbol.dispose]: dispose }: Launcher) => {
    pipes.stdout.destroy();
    pipes.stderr.destroy();
    dispose();
  };
  const end = async (launcher: Launcher) => {
    const { child } = launcher;
    child.ref();
    const ended = hasEnded(child) ? undefined : once(child, 'exit');
    child.stdin?.end();
    await ended;
    discard(launcher);
  };
  let closed = false;
  const refill = () => {
    try {
      while (!closed && spares.length < spareLaunchersMax) spares.push(start());
    } catch {
      // No room for a process now; the next action tries for itself.
    }
  };

  return {
    take() {
      let spare = spares.shift();
      // A spare may have met its end, for want of memory for example.
      while (spare && hasEnded(spare.child)) {
        discard(spare);
        spare = spares.shift();
      }
      const taken = spare ?? start();
      setImmediate(refill);
      return taken;
    },
    async close() {
      closed = true;
      await Promise.all(spares.splice(0).map(end));
      closeSync(nothing);
    },
  };
}

/**
 * Files that this process was given by whoever started it and that its children would be given in turn: Node marks what
 * it opens itself as not to be inherited, and of what it finds only the first sixteen.
 */
function inheritedFiles(): number[] {
  const closeOnExec = 0o2000000;
  return readdirSync('/proc/self/fdinfo')
    .map(Number)
    .filter((file) => {
      try {
        const flags = /^flags:\s+(\d+)$/m.exec(readFileSync(`/proc/self/fdinfo/${file}`, 'latin1'))?.[1];
        return file > 2 && flags !== undefined && (Number.parseInt(flags, 8) & closeOnExec) === 0;
      } catch {
        // The one through which the directory was read.
        return false;
      }
    });
}

type Stdio = 'pipe' | 'ignore' | number;

/** Puts `nothing` in the place of each leak that is not replaced anyway. */
function withoutLeaks(stdio: readonly Stdio[], leaks: readonly number[], nothing: number): Stdio[] {
  const complete = [...stdio];
  for (const file of leaks) {
    if (file < stdio.length) continue;
    while (complete.length < file) complete.push('ignore');
    complete[file] = nothing;
  }
  return complete;
}

function hasEnded({ exitCode, signalCode }: ChildProcess): boolean {
  return exitCode !== null || signalCode !== null;
}

/** What it becomes and starts later inherits this. One that has just died needs it no more. */
function yieldProcessors(pid: number): void {
  try {
    setPriority(pid, constants.priority.PRIORITY_LOW);
  } catch {
    // It is noticed by its end.
  }
}

/** 0 to 2 are the streams, 3 is the note. */
const firstJoinFile = 4;

/** Limits that are inherited. Where one cannot be set, a line as of bubblewrap's own failures ends the launcher. */
function preparation(groups: number, lowest: boolean): string {
  const files = Array.from({ length: groups }, (_, index) => firstJoinFile + index);
  return [
    'ulimit -c 0',
    `ulimit -n ${openFilesMax} 2>/dev/null`,
    `ulimit -f ${fileBytesMax / 512}`,
    ...(lowest ? ['echo 1000 2>/dev/null >/proc/self/oom_score_adj'] : []),
    ...files.map(
      (file) => `echo 0 2>/dev/null >&${file} || { echo "bwrap: cannot join a control group" >&2; exit 1; }`,
    ),
    '',
  ].join('\n');
}
