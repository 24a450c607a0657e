/**
 * Runs a command in fresh Linux namespaces by means of bubblewrap.
 *
 * Inside there is the system, read-only; the root of the input tree at a fixed path, so that what ends up in outputs does
 * not depend on the machine; a private /tmp, /dev and /proc; and a network of its own with nothing but loopback. Every
 * capability is gone, and further user namespaces are refused where bubblewrap can do that.
 */
import { chmodSync, chownSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { once } from 'node:events';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { StatusError } from '../protos/status.ts';
import { callFilter } from './call-filter.ts';
import { createCapture } from './capture.ts';
import { readSelf } from './cgroup-layout.ts';
import { type Cgroups, openCgroups } from './cgroups.ts';
import { commandArguments, fixedArguments } from './bubblewrap-arguments.ts';
import type { CommandPlan } from './command.ts';
import { idleClass, lowestOfSession } from './guest-class.ts';
import { createLaunchers, type Launcher } from './launchers.ts';
import { killLookIntervalMs, killLooksMax, killWaitMs, processesMax, trialTimeoutMs } from './limits.ts';
import {
  guestLimitsInForce,
  limitsInForce,
  memoryLimitBytes,
  prlimit,
  sharedMemoryBytes,
  tmpBytes,
} from './limits-in-force.ts';
import type { PipePool } from './pipes.ts';
import { processTree } from './processes.ts';
import type { Freezable } from './run-control.ts';
import { captureStreams, type Ended, exitCodeOf, type Runner } from './runner.ts';
import type { Owner } from './staging.ts';
import { stopping } from './stopping.ts';
import type { SystemView } from './system-view.ts';

export interface BubblewrapOptions {
  readonly program: string;
  readonly system: SystemView;
  readonly owner?: Owner | undefined;
  /** Where the start-up trial may make files; actions must be able to reach it. */
  readonly trialDirectory: string;
  /** For files that are small and the runner's own. */
  readonly notesDirectory: string;
  readonly pool: PipePool;
  /** For all guests together. */
  readonly guestMemoryBytes: number;
}

/** What is tried at the start, from the best to what old or closed systems have. */
const variants = [
  { grouped: true, disableUserNamespaces: true },
  { grouped: true, disableUserNamespaces: false },
  { grouped: false, disableUserNamespaces: true },
  { grouped: false, disableUserNamespaces: false },
];

/** A runner that has been seen to work. Throws what bubblewrap said when it does not. */
export async function createBubblewrapRunner(options: BubblewrapOptions): Promise<Runner> {
  const limits = { memoryBytes: memoryLimitBytes(), processes: processesMax };
  let failure: unknown;
  for (const { grouped, disableUserNamespaces } of variants) {
    const self = readSelf();
    const { owner } = options;
    const cgroups = grouped ? openCgroups({ limits, owner, self }) : undefined;
    if (grouped && !cgroups) continue;
    const { guestMemoryBytes } = options;
    const guestCgroups = grouped ? openCgroups({ limits: { ...limits, guestMemoryBytes }, owner, self }) : undefined;
    const runner = bubblewrapRunner(options, disableUserNamespaces, cgroups, guestCgroups);
    try {
      await tryOut(runner, options);
      return runner;
    } catch (error) {
      failure ??= error;
      await runner.close();
    }
  }
  throw failure;
}

function bubblewrapRunner(
  { program, system, owner, notesDirectory, pool, guestMemoryBytes }: BubblewrapOptions,
  disableUserNamespaces: boolean,
  cgroups: Cgroups | undefined,
  guestCgroups: Cgroups | undefined,
): Runner {
  const callFilterPath = writeCallFilter(notesDirectory);
  const fixed = fixedArguments({
    disableUserNamespaces,
    filterCalls: callFilterPath !== undefined,
    tmpBytes: tmpBytes(),
    sharedMemoryBytes: sharedMemoryBytes(),
  });
  // Counted within the user namespace, so it has to be set inside.
  const processLimit = (groups: Cgroups | undefined) =>
    !groups?.controllers.includes('pids') && existsSync(prlimit) ? [prlimit, `--nproc=${processesMax}`] : [];
  const common = { pool, owner, callFilterPath };
  const own = {
    launchers: createLaunchers({ ...common, directory: notesDirectory, cgroups, lowest: false }),
    start: [program],
    prefix: processLimit(cgroups),
  };
  // Most nodes never have a guest, and need no processes that wait for one.
  let lowest: typeof own | undefined;
  const forGuests = () => {
    lowest ??= {
      launchers: createLaunchers({
        ...common,
        directory: join(notesDirectory, 'guests'),
        cgroups: guestCgroups,
        lowest: true,
      }),
      start: [...idleClass(), program],
      prefix: [...lowestOfSession(guestCgroups), ...processLimit(guestCgroups)],
    };
    return lowest;
  };
  return {
    isolation: 'bubblewrap',
    isolationReason: disableUserNamespaces
      ? `${program} works`
      : `${program} works, but is too old to refuse further user namespaces to actions`,
    limitsInForce: limitsInForce(cgroups, own.prefix.length > 0),
    guestLimitsInForce: guestLimitsInForce(guestCgroups, guestMemoryBytes),
    owner,
    async close() {
      await Promise.all([own.launchers.close(), lowest?.launchers.close()]);
      cgroups?.close();
      guestCgroups?.close();
    },
    start(command, streams, guest) {
      let kill = () => {};
      let killed = false;
      let over = false;
      const started = Promise.withResolvers<Freezable | undefined>();
      const run = async (): Promise<Ended> => {
        const { launchers, start, prefix } = guest ? forGuests() : own;
        const args = [
          ...fixed.namespaces,
          ...(await system.arguments()),
          ...fixed.fileSystems,
          ...commandArguments(command, prefix),
        ];
        if (killed) return { exitCode: killedExitCode, outOfMemory: false };
        using launcher = launchers.take();
        const { child, pipes, noteFile, group } = launcher;
        const memoryKills = group?.memoryKills() ?? 0;
        const freezer = group?.freezer ?? stoppingBelow(noteFile, child.pid);
        captureStreams(pipes, streams);
        const ended = Promise.all([once(child, 'exit'), pipes.closed]);
        launcher.launch([...start, ...args]);
        started.resolve(freezer);
        // The first process of the sandbox is the one to kill: its end is the end of all, and bubblewrap reports it when it
        // is over. bubblewrap itself, killed too early, could leave it behind.
        let looks = 0;
        let giveUp: NodeJS.Timeout | undefined;
        let hastened: Disposable | undefined;
        kill = () => {
          hastened ??= group?.hasten();
          giveUp ??= setTimeout(() => abandon(launcher), killWaitMs);
          const init = initOf(noteFile);
          if (init !== undefined || looks++ > killLooksMax) killPid(init ?? child.pid);
          else setTimeout(() => kill(), killLookIntervalMs);
          // What is frozen by its group neither dies nor makes the sandbox that is to be killed.
          void group?.freezer?.thaw();
        };
        if (killed) kill();
        const [[code, signal]] = (await ended) as [[number | null, NodeJS.Signals | null], void];
        clearTimeout(giveUp);
        // Their numbers may belong to others from now on.
        kill = () => {};
        over = true;
        const init = initOf(noteFile);
        await endOf(init).finally(() => hastened?.[Symbol.dispose]());
        const outOfMemory = (group?.memoryKills() ?? 0) > memoryKills;
        if (killed) return { exitCode: killedExitCode, outOfMemory };
        const exitCode = exitCodeOf(code, signal);
        const stderr = streams.stderr.text();
        if (init === undefined) throw setupFailure(stderr || `its launcher ended with exit code ${exitCode}`);
        return { exitCode: startFailure(exitCode, streams.stdout.text(), stderr) ?? exitCode, outOfMemory };
      };
      return {
        ended: run().finally(() => {
          over = true;
          started.resolve(undefined);
        }),
        kill: () => {
          killed = true;
          kill();
        },
        async freeze() {
          const freezer = await started.promise;
          if (!over && !killed) await freezer?.freeze();
        },
        async thaw() {
          const freezer = await started.promise;
          if (!over) await freezer?.thaw();
        },
      };
    },
  };
}

/**
 * By SIGSTOP, once bubblewrap has written down the first process: all others are below it. bubblewrap itself goes on, and
 * its group, in which that process begins.
 */
function stoppingBelow(noteFile: string, launcher: number | undefined): Freezable {
  const { freeze, thaw } = stopping(() => {
    const init = initOf(noteFile);
    return init === undefined ? [] : processTree(init);
  }, launcher);
  return {
    async freeze() {
      for (let looks = 0; initOf(noteFile) === undefined && looks < killLooksMax; looks += 1) {
        await sleep(killLookIntervalMs);
      }
      await freeze();
    },
    thaw,
  };
}

function writeCallFilter(directory: string): string | undefined {
  const program = callFilter();
  if (!program) return undefined;
  const path = join(directory, 'call-filter');
  writeFileSync(path, program);
  // Whoever actions run as reads it, under any umask of the node.
  chmodSync(path, 0o644);
  return path;
}

const killedExitCode = exitCodeOf(null, 'SIGKILL');

/** The host's number of the first process of the sandbox, once bubblewrap has written it down. */
function initOf(noteFile: string): number | undefined {
  const pid = /"child-pid": (\d+)/.exec(readFileSync(noteFile, 'latin1'))?.[1];
  return pid === undefined ? undefined : Number(pid);
}

function killPid(pid: number | undefined): boolean {
  try {
    return pid !== undefined && process.kill(pid, 'SIGKILL');
  } catch {
    return false;
  }
}

/** Ends bubblewrap itself, and listening to what is left: a process that waits for a broken disk does not even die. */
function abandon({ child, pipes }: Launcher): void {
  killPid(child.pid);
  pipes.stdout.destroy();
  pipes.stderr.destroy();
}

/**
 * bubblewrap ends with the command, not with the last process: the rest is killed by the kernel at that moment, but
 * asynchronously. The first process of a pid namespace is dead only after all others are. It is killed here as well: a
 * command can trace it, and so make it forget that it was to die with bubblewrap.
 */
async function endOf(init: number | undefined): Promise<void> {
  if (init === undefined) return;
  const deadlineMs = performance.now() + killWaitMs;
  while (isAlive(init)) {
    killPid(init);
    if (performance.now() > deadlineMs) {
      throw new StatusError('INTERNAL', `processes of a sandbox survived SIGKILL for ${killWaitMs} ms`);
    }
    await sleep(1);
  }
}

function isAlive(init: number): boolean {
  let status: string;
  try {
    status = readFileSync(`/proc/${init}/status`, 'latin1');
  } catch {
    return false;
  }
  // A number that went to another process meanwhile is not the first of a namespace below ours.
  return !/^State:\tZ/m.test(status) && /^NSpid:\t\d+(\t\d+)*\t1$/m.test(status);
}

/**
 * Tells a failure of bubblewrap itself from one of the command: it exits with 1 after one line of its own. For a program
 * that could not be started the exit code is that of a shell; everything else is no result of the command at all.
 */
function startFailure(exitCode: number, stdout: string | undefined, stderr: string | undefined): number | undefined {
  if (exitCode !== 1 || stdout !== '' || !stderr || !/^bwrap: [^\n]*\n$/.test(stderr)) return undefined;
  if (!stderr.startsWith('bwrap: execvp ')) throw setupFailure(stderr);
  return stderr.endsWith(': No such file or directory\n') ? 127 : 126;
}

function setupFailure(text: string): StatusError {
  return new StatusError('INTERNAL', `bubblewrap could not set up the sandbox: ${text.replace(/^bwrap: /, '').trim()}`);
}

/** Runs a shell once, exactly as an action would be. */
async function tryOut(runner: Runner, { trialDirectory, owner }: BubblewrapOptions): Promise<void> {
  const root = mkdtempSync(join(trialDirectory, 'trial-'));
  if (owner) chownSync(root, owner.uid, owner.gid);
  const stdout = createCapture(join(root, 'stdout'), 'stdout');
  const stderr = createCapture(join(root, 'stderr'), 'stderr');
  try {
    const plan: CommandPlan = {
      arguments: ['/bin/sh', '-c', 'test -w . && test ! -w / && echo works'],
      declaredEnvironment: new Map(),
      workingDirectory: [],
      outputs: [],
      wantsMtime: false,
      wantsUnixMode: false,
      wantsTree: true,
      wantsDirectories: false,
    };
    const command = runner.start({ plan, root, mounts: [], directory: root }, { stdout, stderr }, false);
    const timer = setTimeout(command.kill, trialTimeoutMs);
    const { exitCode } = await command.ended.finally(() => clearTimeout(timer));
    if (exitCode !== 0 || stdout.text() !== 'works\n') {
      throw new StatusError('UNAVAILABLE', stderr.text()?.trim() || `its trial ended with exit code ${exitCode}`);
    }
  } finally {
    stdout.discard();
    stderr.discard();
    rmSync(root, { recursive: true, force: true });
  }
}
