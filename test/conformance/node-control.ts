/** Starts our own node as a child process, so that rules and tests can do to it what the wire cannot. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Control, ControlledServer, ServerOptions } from './control.ts';

const mainFile = join(import.meta.dirname, '../../node/main.ts');
/** A node that has not said "ready" by then is broken. */
const readyDeadlineMs = 30_000;
/** What a node that drains may take; killed afterwards. */
const stopDeadlineMs = 15_000;
/** How much of what a node said last is shown when it does not start. */
const shownLines = 20;

const defaultOptions = { cacheSizeBytes: 2 * 1024 ** 3, slots: 4 };

export const nodeControl: Control = {
  async start(options: ServerOptions = {}): Promise<ControlledServer> {
    const dataDir = await mkdtemp(join(tmpdir(), 'potluck-conformance-'));
    let running = await spawnNode(dataDir, options);
    return {
      get target() {
        return running.target;
      },
      get pid() {
        return running.child.pid as number;
      },
      dataDir,
      get debuggerUrl() {
        return running.debuggerUrl();
      },
      async killAndRestart() {
        await end(running.child, 'SIGKILL');
        running = await spawnNode(dataDir, options);
      },
      async [Symbol.asyncDispose]() {
        await end(running.child, 'SIGTERM');
        await rm(dataDir, { recursive: true, force: true });
      },
    };
  },
};

async function spawnNode(dataDir: string, options: ServerOptions) {
  const { cacheSizeBytes, slots } = { ...defaultOptions, ...options };
  const flags = [
    ...['up', '--log-format', 'json', '--listen', '127.0.0.1:0', '--http', '127.0.0.1:0'],
    ...[
      '--remote-asset',
      'on',
      '--data-dir',
      dataDir,
      '--cache-size',
      String(cacheSizeBytes),
      '--slots',
      String(slots),
    ],
  ];
  const inspect = options.inspected ? ['--inspect=127.0.0.1:0'] : [];
  const child = spawn(process.execPath, [...inspect, mainFile, ...flags], {
    stdio: ['ignore', 'pipe', 'pipe'],
    // No action may see it.
    env: { ...process.env, CONFORMANCE_CANARY: 'leaked' },
  });
  // A run that ends by an error must not leave servers behind.
  const killChild = () => child.kill('SIGKILL');
  process.once('exit', killChild);
  child.once('exit', () => process.off('exit', killChild));
  const said: string[] = [];
  let debuggerUrl: string | undefined;
  const remember = (line: string) => {
    debuggerUrl ??= /^Debugger listening on (ws:\S+)/.exec(line)?.[1];
    said.push(line);
    if (said.length > shownLines) said.shift();
  };
  const ready = new Promise<{ grpc: string; http: string }>((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`the node is not ready:\n${said.join('\n')}`)), readyDeadlineMs);
    child.once('exit', (code, signal) => {
      clearTimeout(timer);
      reject(new Error(`the node ended with ${code ?? signal}:\n${said.join('\n')}`));
    });
    createInterface(child.stderr).on('line', remember);
    createInterface(child.stdout).on('line', (line) => {
      remember(line);
      const event = parsed(line);
      if (event?.['event'] !== 'ready') return;
      clearTimeout(timer);
      resolve({ grpc: String(event['grpc']), http: String(event['http']) });
    });
  });
  try {
    const { grpc, http } = await ready;
    return { child, target: { grpc, http, instance: '' }, debuggerUrl: () => debuggerUrl };
  } catch (error) {
    await end(child, 'SIGKILL');
    throw error;
  }
}

async function end(child: ChildProcess, signal: NodeJS.Signals): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exited = once(child, 'exit');
  child.kill(signal);
  const timer = setTimeout(() => child.kill('SIGKILL'), stopDeadlineMs);
  await exited;
  clearTimeout(timer);
}

function parsed(line: string): Record<string, unknown> | undefined {
  try {
    return JSON.parse(line) as Record<string, unknown>;
  } catch {
    return undefined;
  }
}
