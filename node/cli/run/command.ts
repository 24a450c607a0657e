/** `potluck run`: one command through a node's cache and sandbox. The flags and how it ends; the work is in session.ts. */
import { readFile } from 'node:fs/promises';
import type { NodeConfig } from '../../config/config.ts';
import { loadConfig } from '../../config/load.ts';
import { parseDuration } from '../../config/quantities.ts';
import { settingValues, valueOf } from '../args.ts';
import { type Command, jsonFlag, type ParsedArgs, settingFlags } from '../command.ts';
import { CliError, exitCodes } from '../exit-codes.ts';
import { printError } from '../terminal.ts';
import type { RunRequest } from './session.ts';

/** Read from the configuration too; the other flags are this command's own. */
const configured = settingFlags('bearer-token-file');

export const run: Command = {
  name: 'run',
  summary: 'run one command through cache and sandbox',
  operands: '-- COMMAND…',
  description:
    'Uploads the inputs, runs the command where it sees nothing else, shows its output as it comes and brings the outputs back. The same command on the same inputs is answered from the cache.\n' +
    'The exit status is that of the command; 124 when it ran into its time limit, 125 when Potluck failed. With --json the output of the command goes to stderr, and stdout gets one JSON object.',
  flags: {
    input: {
      value: 'GLOB',
      about: 'what the command may read: paths or globs below the current directory; a directory means all in it',
      variadic: true,
    },
    output: { value: 'PATH', about: 'files or directories that the command makes, to be brought back', variadic: true },
    env: {
      value: 'NAME=VALUE',
      about: 'environment variable of the command, which gets no other but a standard PATH',
      list: true,
    },
    platform: { value: 'NAME=VALUE', about: 'property that the executing machine must have', list: true },
    timeout: { value: 'TIME', about: 'kill the command after this time, such as 10m', fallback: "the node's" },
    'no-cache': { about: 'run even if the result is known, and do not keep the result' },
    instance: {
      value: 'NAME',
      about: 'instance name; caches of different names share no results',
      fallback: 'the empty name',
    },
    remote: {
      value: 'ADDRESS',
      about: 'the node or server: HOST:PORT, grpc://…, grpcs://… (TLS) or unix:/PATH; also POTLUCK_REMOTE',
      fallback: 'the first --listen of the configuration, 127.0.0.1:8980',
    },
    ...configured,
    ...jsonFlag,
  },
  examples: [
    { about: 'compile', line: "potluck run --input 'src/**/*.c' --output hello -- gcc -o hello src/main.c" },
    { about: 'no inputs, no outputs; a cache hit the second time', line: 'potluck run -- sh -c "sleep 2; echo done"' },
    {
      about: 'a directory in, a directory out',
      line: 'potluck run --input app --output dist --env MODE=release --timeout 10m -- sh app/build.sh',
    },
  ],
  failureExitCode: exitCodes.runFailed,
  run: runCommand,
};

async function runCommand(args: ParsedArgs): Promise<number> {
  const cwd = process.cwd();
  // Not earlier: help must not wait for gRPC to be loaded.
  const { insidePath } = await import('./inputs.ts');
  const { runSession } = await import('./session.ts');
  const { connectGrpc } = await import('../../reapi/grpc.ts');

  const request = readRequest(args, (path) => insidePath(cwd, path, `--output ${path}`));
  const config = await loadConfig({
    flags: settingValues(args, configured),
    file: valueOf(args, 'config'),
    env: process.env,
    platform: process.platform,
  });
  const address = valueOf(args, 'remote') ?? (process.env.POTLUCK_REMOTE || ownAddress(config));
  const bearerToken = config.bearerTokenFile && (await readFile(config.bearerTokenFile, 'utf8')).trim();
  const connection = connectGrpc(address, bearerToken ? { bearerToken } : {});

  const abort = new AbortController();
  const onSignal = (): void => {
    // The second time there is no patience left to tell the server.
    if (abort.signal.aborted) process.exit(exitCodes.interrupted);
    abort.abort();
  };
  process.on('SIGINT', onSignal).on('SIGTERM', onSignal);
  try {
    return await runSession(request, { connection, address, cwd, signal: abort.signal });
  } catch (error) {
    if (!abort.signal.aborted) throw error;
    printError('potluck: cancelled');
    return exitCodes.interrupted;
  } finally {
    connection.close();
  }
}

/** Where the node of this configuration serves, to a client on the same machine. */
function ownAddress({ listen: [address = ''], tls }: NodeConfig): string {
  if (address.startsWith('unix:')) return address;
  const local = address.replace(/^(0\.0\.0\.0|\[::\])(?=:)/, 'localhost');
  return tls ? `grpcs://${local}` : local;
}

/** Checks everything that can be checked before a server is asked; all problems come together. */
function readRequest(args: ParsedArgs, insidePath: (path: string) => string): RunRequest {
  const problems: string[] = [];
  const pairs = (name: string): (readonly [string, string])[] =>
    (args.values.get(name) ?? []).map((text) => {
      const at = text.indexOf('=');
      if (at < 1) problems.push(`--${name} ${text}: write NAME=VALUE`);
      return [text.slice(0, at), text.slice(at + 1)];
    });
  const outputs = (args.values.get('output') ?? []).map((path) => {
    const inside = insidePath(path);
    if (inside === '') problems.push(`--output ${path}: name a file or directory below the current one`);
    return inside;
  });
  if (!args.rest?.length) problems.push('no command; it comes last, after "--"');
  const timeout = valueOf(args, 'timeout');
  const timeoutMs = timeout === undefined ? undefined : parseDuration(timeout);
  if (timeoutMs && 'problem' in timeoutMs) problems.push(`--timeout: "${timeout}" ${timeoutMs.problem}`);
  const request: RunRequest = {
    arguments: args.rest ?? [],
    inputs: args.values.get('input') ?? [],
    outputs,
    environment: pairs('env'),
    platform: pairs('platform'),
    timeoutMs: timeoutMs && 'value' in timeoutMs ? timeoutMs.value : undefined,
    noCache: args.switches.has('no-cache'),
    instance: valueOf(args, 'instance') ?? '',
    json: args.switches.has('json'),
  };
  if (problems.length > 0) throw new CliError(`${problems.join('\npotluck: ')}\nSee potluck run --help.`);
  return request;
}
