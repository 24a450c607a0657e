/** The command line of bubblewrap. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type CommandPlan, defaultEnvironment } from './command.ts';
import { callFilterFile } from './launchers.ts';
import { bubblewrapArgumentsMax } from './limits.ts';
import type { StagedCommand } from './runner.ts';
import { shellQuoted } from './shell.ts';
import { sandboxUser } from './system-view.ts';

/** Where every action finds its input tree. */
const executionRoot = '/execroot';

interface FixedArguments {
  readonly namespaces: readonly string[];
  /** Come after the system, which they are mounted over. */
  readonly fileSystems: readonly string[];
}

/** What is the same for every action. bubblewrap writes down the first process of the sandbox in the file 3. */
export function fixedArguments(options: {
  readonly disableUserNamespaces: boolean;
  /** Whether bubblewrap finds a filter of system calls in the file `callFilterFile`. */
  readonly filterCalls: boolean;
  readonly tmpBytes: number;
  readonly sharedMemoryBytes: number;
}): FixedArguments {
  return {
    namespaces: [
      ...['--unshare-user', '--unshare-pid', '--unshare-net', '--unshare-ipc', '--unshare-uts', '--unshare-cgroup-try'],
      ...(options.disableUserNamespaces ? ['--disable-userns'] : []),
      ...['--uid', String(sandboxUser.uid), '--gid', String(sandboxUser.gid), '--hostname', sandboxUser.name],
      ...['--die-with-parent', '--new-session', '--clearenv', '--info-fd', '3'],
      ...(options.filterCalls ? ['--seccomp', String(callFilterFile)] : []),
    ],
    fileSystems: [
      ...['--proc', '/proc', '--dev', '/dev', ...tmpfs('/dev/shm', options.sharedMemoryBytes), '--remount-ro', '/dev'],
      ...tmpfs('/tmp', options.tmpBytes),
      ...['--perms', '0755', '--dir', '/var', '--symlink', '../tmp', '/var/tmp'],
    ],
  };
}

function tmpfs(path: string, bytes: number): string[] {
  return ['--perms', '1777', '--size', String(bytes), '--tmpfs', path];
}

/**
 * The rest: the input tree, the environment, and what to run.
 *
 * @param prefix - a program, and its arguments, that starts the command in its turn
 */
export function commandArguments(
  { plan, root, mounts, directory }: StagedCommand,
  prefix: readonly string[],
): string[] {
  const view = ['--bind', root, executionRoot];
  for (const { source, path } of mounts) view.push('--ro-bind', source, `${executionRoot}/${path}`);
  // The root itself is a tmpfs: what is not mounted on it is not writable.
  const workingDirectory = [executionRoot, ...plan.workingDirectory].join('/');
  const rest = ['--remount-ro', '/', '--chdir', workingDirectory];
  const environment = [...new Map([...Object.entries(defaultEnvironment), ...plan.declaredEnvironment])];
  if (plan.arguments.length + 3 * environment.length > bubblewrapArgumentsMax) {
    const script = join(directory, 'command');
    writeFileSync(script, shellScript(plan, [['PWD', workingDirectory], ...environment]));
    return [...view, '--ro-bind', script, '/command', ...rest, '--', ...prefix, '/bin/sh', '/command'];
  }
  const variables = environment.flatMap(([name, value]) => ['--setenv', name, value]);
  // bubblewrap sets PWD last of all; the command's own value wins all the same.
  const pwd = plan.declaredEnvironment.get('PWD');
  const start = pwd === undefined ? [] : ['env', `PWD=${pwd}`];
  return [...view, ...rest, ...variables, '--', ...prefix, ...start, ...plan.arguments];
}

/** bubblewrap takes 9,000 arguments, those of the command included; a longer command comes as a file. */
function shellScript(plan: CommandPlan, environment: readonly (readonly [string, string])[]): string {
  const variables = environment.map(([name, value]) => `${name}=${value}`);
  return `exec env -i ${[...variables, ...plan.arguments].map(shellQuoted).join(' ')}\n`;
}
