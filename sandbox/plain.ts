/**
 * Runs a command without isolation: for this node's own actions where bubblewrap does not work.
 *
 * Inputs are private copies, the environment is that of the command alone, and whatever it leaves behind is killed: its
 * process group, and on Linux every process that carries its marker in the environment, wherever it went.
 */
import { readFileSync } from 'node:fs';
import { type ChildProcess, spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { StatusError } from '../protos/status.ts';
import { defaultEnvironment } from './command.ts';
import { killWaitMs } from './limits.ts';
import type { OutputPipes, PipePool } from './pipes.ts';
import { allProcesses, type Process, signal } from './processes.ts';
import type { Freezable } from './run-control.ts';
import { captureStreams, type Ended, exitCodeOf, type Runner, spawnFailure, spawnUnderUmask } from './runner.ts';
import { stopping } from './stopping.ts';

/** Set for every process of an unisolated action; it is how strays are found. */
const markerName = 'POTLUCK_ACTION';

/** What shells answer when a program cannot be started, by the reason of the system. */
const startFailures: Readonly<Record<string, number>> = { ENOENT: 127, ENOTDIR: 127, EACCES: 126, EPERM: 126 };

export function createPlainRunner(isolationReason: string, pool: PipePool): Runner {
  return {
    isolation: 'none',
    isolationReason,
    limitsInForce: ['wall time'],
    guestLimitsInForce: undefined,
    close: async () => {},
    start({ plan, root }, streams) {
      const marker = randomUUID();
      const cwd = join(root, ...plan.workingDirectory);
      const [program, ...args] = plan.arguments;
      const env = {
        ...defaultEnvironment,
        PWD: cwd,
        ...Object.fromEntries(plan.declaredEnvironment),
        [markerName]: marker,
      };
      let pid: number | undefined;
      let over = false;
      const kill = () => killAll(pid, marker);
      const ended = new Promise<Ended>((resolve, reject) => {
        let child: ChildProcess;
        let pipes: OutputPipes;
        try {
          pipes = pool.open();
          captureStreams(pipes, streams);
          const stdio = ['ignore' as const, ...pipes.writers];
          try {
            // A session of its own: it can be killed as a group, and an interrupt typed at the terminal is for the node.
            child = spawnUnderUmask(() => spawn(program, args, { cwd, env, detached: true, stdio }));
          } finally {
            pipes.closeWriters();
          }
        } catch (error) {
          reject(spawnFailure(error, program));
          return;
        }
        pid = child.pid;
        child.once('error', (error: NodeJS.ErrnoException) => {
          const exitCode = startFailures[error.code ?? ''];
          if (exitCode === undefined) return reject(spawnFailure(error, program));
          const text = exitCode === 127 ? 'no such program' : 'it cannot be executed';
          const line = Buffer.from(`potluck: ${program}: ${text}\n`);
          streams.stderr.write(line);
          streams.onStderr?.(line);
          resolve({ exitCode, outOfMemory: false });
        });
        // Strays may hold the streams open: they go first, then the streams end.
        child.once('exit', (code, endSignal) => {
          over = true;
          killUntilGone(child.pid as number, marker).then(async () => {
            // A stray that hid from both searches can hold a stream for good.
            if (!(await within(pipes.closed, killWaitMs))) {
              pipes.stdout.destroy();
              pipes.stderr.destroy();
            }
            resolve({ exitCode: exitCodeOf(code, endSignal), outOfMemory: false });
          }, reject);
        });
      });
      // Its number may belong to others once it is over.
      const unless = (work: () => Promise<void>) => async () => (over ? undefined : work());
      const { freeze, thaw } =
        process.platform === 'linux' ? stopping(() => livingProcesses(pid, marker)) : groupOf(() => pid);
      return { ended, kill, freeze: unless(freeze), thaw: unless(thaw) };
    },
  };
}

async function killUntilGone(group: number, marker: string): Promise<void> {
  const deadlineMs = performance.now() + killWaitMs;
  while (killAll(group, marker)) {
    if (performance.now() > deadlineMs) {
      throw new StatusError('INTERNAL', `processes of a command survived SIGKILL for ${killWaitMs} ms`);
    }
    await sleep(5);
  }
}

/** Kills the group and the marked strays; whether there were any. */
function killAll(group: number | undefined, marker: string): boolean {
  if (process.platform !== 'linux') return group !== undefined && signal(-group, 'SIGKILL');
  // The group as such goes first: that is one step, which a process that keeps forking cannot outrun.
  if (group !== undefined) signal(-group, 'SIGKILL');
  const alive = livingProcesses(group, marker);
  for (const { pid } of alive) signal(pid, 'SIGKILL');
  return alive.length > 0;
}

/** Where processes cannot be looked at, their group is all that can be stopped. */
function groupOf(group: () => number | undefined): Freezable {
  const send = async (name: NodeJS.Signals) => {
    const pid = group();
    if (pid !== undefined) signal(-pid, name);
  };
  return { freeze: () => send('SIGSTOP'), thaw: () => send('SIGCONT') };
}

/** Members of the group and carriers of the marker. Zombies are over, whether or not somebody collects them. */
function livingProcesses(group: number | undefined, marker: string): Process[] {
  const entry = `${markerName}=${marker}\0`;
  const carries = (pid: number) => {
    try {
      return readFileSync(`/proc/${pid}/environ`, 'latin1').includes(entry);
    } catch {
      // Gone meanwhile, or not ours to look at.
      return false;
    }
  };
  return allProcesses().filter((one) => one.state !== 'Z' && (one.group === group || carries(one.pid)));
}

async function within(promise: Promise<void>, waitMs: number): Promise<boolean> {
  const timer = new AbortController();
  const late = sleep(waitMs, false, { signal: timer.signal }).catch(() => false);
  const inTime = await Promise.race([promise.then(() => true), late]);
  timer.abort();
  return inTime;
}
