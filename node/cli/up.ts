/** `potluck up`: serves until it is told to stop. */
import { loadConfig } from '../config/load.ts';
import type { NodeConfig } from '../config/config.ts';
import { settingNames } from '../config/settings.ts';
import { settingValues, valueOf } from './args.ts';
import { type Command, type ParsedArgs, settingFlags } from './command.ts';
import { CliError, exitCodes } from './exit-codes.ts';
import { readyEvent, readyText } from './ready.ts';
import { print, printError } from './terminal.ts';

const flags = settingFlags(...settingNames);

/** Calls under way get this long to end once the node was told to stop; then they are broken off. */
const drainMaxMs = 8_000;
/** After this the process ends whatever is still open: the store bears being killed at any time. */
const stopMaxMs = 9_500;
/** One Ctrl-C can arrive twice, from the terminal and from npm, which passes its own on; a person needs longer. */
const sameKeypressMs = 300;

export const up: Command = {
  name: 'up',
  summary: 'start the node and serve until stopped',
  description:
    "Serves Bazel's Remote Execution API over gRPC and the HTTP cache protocol, and runs actions in a sandbox. Ctrl-C or SIGTERM stops it in good order within ten seconds; a second Ctrl-C at once.\n" +
    'Every flag can also be given as an environment variable (--cache-size as POTLUCK_CACHE_SIZE, lists with commas) or in the YAML file that --config or POTLUCK_CONFIG names (cache-size: 50GB). Flags win over the environment, the environment over the file.',
  flags,
  examples: [
    { about: 'all defaults', line: 'potluck up' },
    { about: 'more disk, in another place', line: 'potluck up --data-dir /var/cache/potluck --cache-size 200GB' },
    {
      about: 'for a program: free ports, told in the first line',
      line: 'potluck up --listen 127.0.0.1:0 --http 127.0.0.1:0 --log-format json',
    },
  ],
  run: serve,
};

async function serve(args: ParsedArgs): Promise<number> {
  const config = await loadConfig({
    flags: settingValues(args, flags),
    file: valueOf(args, 'config'),
    env: process.env,
    platform: process.platform,
  });
  const json = config.logFormat === 'json';
  const stop = stopSignal();
  const { createNode } = await import('../create-node.ts');
  const node = await createNode(config, {
    onLog: (level, message) => {
      if (json) print(JSON.stringify({ event: 'log', time: new Date().toISOString(), level, message }));
      else printError(level === 'info' ? message : `${level}: ${message}`);
    },
  }).catch((error: unknown) => {
    throw startProblem(error, config);
  });
  if (json) print(JSON.stringify(readyEvent(config, node.facts)));
  else for (const line of readyText(config, node.facts)) print(line);

  const signal = await stop;
  if (json) print(JSON.stringify({ event: 'stopping', signal }));
  else printError('Stopping; press Ctrl-C again to stop at once.');
  setTimeout(() => process.exit(exitCodes.ok), stopMaxMs).unref();
  await node.close({ drainMaxMs });
  if (json) print(JSON.stringify({ event: 'stopped' }));
  return exitCodes.ok;
}

/** Resolves at the first SIGINT or SIGTERM; a second one ends the process. */
function stopSignal(): Promise<NodeJS.Signals> {
  return new Promise((resolve) => {
    let firstMs: number | undefined;
    const onSignal = (signal: NodeJS.Signals): void => {
      if (firstMs !== undefined && performance.now() - firstMs > sameKeypressMs) process.exit(exitCodes.interrupted);
      firstMs ??= performance.now();
      resolve(signal);
    };
    process.on('SIGINT', onSignal).on('SIGTERM', onSignal);
  });
}

/** Puts failures to start that people meet into words that name the remedy. */
function startProblem(error: unknown, config: NodeConfig): unknown {
  const chain = [error, error instanceof Error ? error.cause : undefined] as (NodeJS.ErrnoException | undefined)[];
  const errno = chain.find((one) => one?.syscall !== undefined);
  const say = (message: string) => new CliError(message, exitCodes.failed, { cause: error });
  if (errno?.code === 'EADDRINUSE') {
    return say(
      `${addressOf(errno)} is in use, perhaps by another node. Stop that one, or choose another address with --listen and --http; port 0 picks a free one.`,
    );
  }
  if (errno?.code === 'EADDRNOTAVAIL') {
    return say(`${addressOf(errno)} is no address of this machine; see --listen and --http.`);
  }
  if (errno?.syscall === 'listen') return say(`${addressOf(errno)} cannot be listened on: ${errno.message}`);
  if (['EACCES', 'EPERM', 'EROFS', 'ENOTDIR', 'ENOENT', 'ELOOP', 'ENAMETOOLONG'].includes(errno?.code ?? '')) {
    return say(
      `the data directory ${config.dataDir} cannot be written (${errno?.code}). Make it writable for you, or choose another with --data-dir.`,
    );
  }
  return error;
}

function addressOf(error: NodeJS.ErrnoException): string {
  const { address, port } = error as { address?: string; port?: number };
  return port === undefined || port < 0 ? (address ?? 'the address') : `${address}:${port}`;
}
