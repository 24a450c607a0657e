/** Runs the program as a child process, the way a person at a shell does. */
import { spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const entry = fileURLToPath(new URL('../../../node/main.ts', import.meta.url));

export interface Finished {
  readonly exitCode: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface Running {
  readonly done: Promise<Finished>;
  /** What was written so far. */
  readonly stdout: () => string;
  readonly stderr: () => string;
  signal(name: NodeJS.Signals): void;
}

export interface PotluckOptions {
  readonly cwd?: string;
  readonly env?: NodeJS.ProcessEnv;
  /** Arguments for Node.js itself. */
  readonly nodeArgs?: readonly string[];
  readonly entry?: string;
}

/** The environment without settings of whoever runs the tests. */
function cleanEnvironment(env: NodeJS.ProcessEnv = {}): NodeJS.ProcessEnv {
  const inherited = Object.entries(process.env).filter(([name]) => !name.startsWith('POTLUCK_'));
  return { ...Object.fromEntries(inherited), ...env };
}

export function startPotluck(args: readonly string[], options: PotluckOptions = {}): Running {
  const child = spawn(process.execPath, [...(options.nodeArgs ?? []), options.entry ?? entry, ...args], {
    cwd: options.cwd,
    env: cleanEnvironment(options.env),
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let [stdout, stderr] = ['', ''];
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  return {
    done: new Promise((resolve, reject) => {
      child.once('error', reject);
      child.once('close', (exitCode) => resolve({ exitCode, stdout, stderr }));
    }),
    stdout: () => stdout,
    stderr: () => stderr,
    signal: (name) => child.kill(name),
  };
}

export function potluck(args: readonly string[], options: PotluckOptions = {}): Promise<Finished> {
  return startPotluck(args, options).done;
}

export interface Scratch extends AsyncDisposable {
  readonly dir: string;
}

export async function openScratch(): Promise<Scratch> {
  const dir = await mkdtemp(join(tmpdir(), 'potluck-cli-'));
  return { dir, [Symbol.asyncDispose]: () => rm(dir, { recursive: true, force: true }) };
}
