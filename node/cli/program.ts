/** Finds the command, runs it, and turns whatever it throws into sentences and an exit status. */
import { ConfigError } from '../config/load.ts';
import { StatusError } from '../../protos/status.ts';
import { readArgs } from './args.ts';
import { audit } from './audit.ts';
import { builds, buildsShow } from './builds.ts';
import { cacheGc, cacheStats, cacheVerify } from './cache.ts';
import type { Command } from './command.ts';
import { doctor } from './doctor.ts';
import { drain, undrain } from './drain.ts';
import { CliError, exitCodes } from './exit-codes.ts';
import { explain as explainAction } from './explain.ts';
import { commandHelp, programHelp } from './help.ts';
import { nearest } from '../config/nearest.ts';
import { invite } from './invite.ts';
import { issuerAdd, issuerRemove } from './issuer.ts';
import { join } from './join.ts';
import { leave } from './leave.ts';
import { lend } from './lend.ts';
import { owner } from './owner.ts';
import { pause } from './pause.ts';
import { peers } from './peers.ts';
import { resume } from './resume.ts';
import { revoke } from './revoke.ts';
import { run } from './run/command.ts';
import { simCommands } from './sim.ts';
import { simBlobs } from './sim-blobs.ts';
import { seed } from './seed.ts';
import { status } from './status.ts';
import { print, printError } from './terminal.ts';
import { top } from './top.ts';
import { up } from './up.ts';
import { packageVersion } from './version.ts';

/** Every command, in the order of the help text. */
export const commands: readonly Command[] = [
  up,
  status,
  run,
  ...[builds, buildsShow, explainAction, top, audit],
  ...[invite, join, peers, issuerAdd, issuerRemove, revoke, leave, seed, drain, undrain],
  ...[pause, resume, lend, owner],
  ...[cacheStats, cacheGc, cacheVerify],
  doctor,
  ...simCommands,
  simBlobs,
];

/** Runs the program and ends the process. */
export async function main(words: readonly string[]): Promise<void> {
  // A reader such as `head` that stops reading is no failure of ours.
  process.stdout.on('error', (error: NodeJS.ErrnoException) => process.exit(error.code === 'EPIPE' ? 0 : 1));
  process.stderr.on('error', () => {});
  process.on('uncaughtException', (error) => process.exit(explain(error)));
  process.exit(await dispatch(words).catch(explain));
}

async function dispatch(words: readonly string[]): Promise<number> {
  const [first] = words;
  if (first === undefined) {
    printError(programHelp(commands));
    return exitCodes.usage;
  }
  if (first === '--help' || first === '-h' || first === 'help') {
    const about = commandsNamed(words.slice(1));
    print(about.length > 0 ? about.map(commandHelp).join('\n\n') : programHelp(commands));
    return exitCodes.ok;
  }
  if (first === '--version') {
    print(`potluck ${packageVersion()}`);
    return exitCodes.ok;
  }
  const [command, ...others] = commandsNamed(words);
  if (!command) {
    printError(`potluck: ${first.startsWith('-') ? `a command comes before ${first}` : `no command "${first}"`}.`);
    const close = nearest(
      first,
      commands.map(({ name }) => name),
    );
    printError(close ? `Did you mean "potluck ${close}"?` : 'See potluck --help.');
    return exitCodes.usage;
  }
  if (others.length > 0) {
    // `potluck cache` alone: a family of commands.
    const wantsHelp = words.includes('--help') || words.includes('-h');
    (wantsHelp ? print : printError)([command, ...others].map(commandHelp).join('\n\n'));
    return wantsHelp ? exitCodes.ok : exitCodes.usage;
  }
  const own = words.slice(command.name.split(' ').length);
  const result = readArgs(own, command.flags, { positionalsMax: command.operandsMax ?? 0 });
  if ('problems' in result) {
    for (const problem of result.problems) printError(`potluck ${command.name}: ${problem}`);
    printError(`See potluck ${command.name} --help.`);
    return command.failureExitCode ?? exitCodes.usage;
  }
  if (result.args.switches.has('help')) {
    print(commandHelp(command));
    return exitCodes.ok;
  }
  try {
    return await command.run(result.args);
  } catch (error) {
    const exitCode = explain(error);
    return command.failureExitCode ?? exitCode;
  }
}

/** The command that the words begin with; all of a family when they name only its first word. */
function commandsNamed(words: readonly string[]): Command[] {
  const matching = commands.filter(({ name }) => name.split(' ').every((word, index) => words[index] === word));
  // `builds show` before `builds`.
  const [exact] = matching.sort((a, b) => b.name.length - a.name.length);
  if (exact) return [exact];
  const [first, second] = words;
  if (second !== undefined && !second.startsWith('-')) return [];
  return commands.filter(({ name }) => name.startsWith(`${first} `));
}

/** Says what went wrong; returns the exit status. A stack is shown only to those who ask for it. */
function explain(error: unknown): number {
  if (process.env.POTLUCK_DEBUG === '1')
    printError(error instanceof Error ? (error.stack ?? error.message) : String(error));
  if (error instanceof ConfigError) {
    printError(
      error.problems.length === 1
        ? 'potluck: the configuration is wrong:'
        : 'potluck: the configuration has several problems:',
    );
    for (const problem of error.problems) printError(`  ${problem}`);
    return exitCodes.usage;
  }
  if (error instanceof CliError) {
    printError(`potluck: ${error.message}`);
    return error.exitCode;
  }
  if (error instanceof StatusError && error.code !== 'INTERNAL') {
    printError(`potluck: ${error.reason}`);
    return exitCodes.failed;
  }
  const message = error instanceof Error ? error.message : String(error);
  if (error instanceof Error && [error, error.cause].some((one) => (one as NodeJS.ErrnoException)?.syscall)) {
    // What the system refused is seldom our defect: a full disk, a missing permission.
    printError(`potluck: ${error instanceof StatusError ? error.reason : message}`);
    return exitCodes.failed;
  }
  printError(`potluck: unexpected error: ${message}`);
  printError(
    'This is a defect in Potluck. Please report it with what you did, the line above and "potluck doctor --json";',
  );
  printError('POTLUCK_DEBUG=1 in the environment adds a stack trace.');
  return exitCodes.failed;
}
