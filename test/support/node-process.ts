/** Starts a whole node as a child process, the way a user does, and stops it. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { get as httpGet, type IncomingMessage } from 'node:http';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { text as textOf } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';

export const entry = fileURLToPath(new URL('../../node/main.ts', import.meta.url));

export interface NodeProcess extends AsyncDisposable {
  readonly child: ChildProcess;
  /** `host:port` of the gRPC listener. */
  readonly grpc: string;
  /** `host:port` of the HTTP listener, or `unix:/path`. */
  readonly http: string;
  readonly dataDir: string;
  /** Everything the process wrote to stderr so far. */
  readonly stderr: () => string;
  /** `/api/status` as JSON. */
  status(): Promise<Record<string, unknown>>;
  /** One sample of `/metrics`, summed over label sets that contain all of `labels`; 0 when absent. */
  metric(name: string, labels?: Readonly<Record<string, string>>): Promise<number>;
  /** Sends SIGTERM and resolves to the exit code. */
  stop(): Promise<number | null>;
  kill(signal?: NodeJS.Signals): Promise<void>;
}

/** Starts `node node/main.ts up` on free ports and waits for the ready line; rejects with its stderr when it exits first. */
export async function startNode(
  options: {
    readonly args?: readonly string[];
    readonly dataDir?: string;
    readonly env?: NodeJS.ProcessEnv;
    /** gRPC address; default a free port. */
    readonly listen?: string;
    /** HTTP address; default a free port. */
    readonly http?: string;
    /** Begins the command line: the node then runs on another host of a network lab, say. */
    readonly prefix?: readonly string[];
  } = {},
): Promise<NodeProcess> {
  const own = options.dataDir === undefined ? await mkdtemp(join(tmpdir(), 'potluck-node-')) : undefined;
  const dataDir = options.dataDir ?? join(own as string, 'data');
  const { prefix = [] } = options;
  const [program, ...programArgs] = [...prefix, process.execPath, '--max-semi-space-size=8', entry];
  const child = spawn(
    program,
    [
      ...programArgs,
      'up',
      '--log-format',
      'json',
      '--data-dir',
      dataDir,
      '--listen',
      options.listen ?? '127.0.0.1:0',
      '--http',
      options.http ?? '127.0.0.1:0',
      ...(options.args ?? []),
    ],
    { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, ...options.env } },
  );
  let stderr = '';
  child.stderr.on('data', (chunk: Buffer) => {
    stderr = (stderr + chunk.toString()).slice(-64 * 1024);
  });
  const exited = once(child, 'exit');
  const lines = createInterface({ input: child.stdout });
  const ready = await new Promise<{ grpc: string; http: string }>((resolve, reject) => {
    lines.on('line', (line) => {
      const event = JSON.parse(line) as { event: string; grpc: string; http: string };
      if (event.event === 'ready') resolve(event);
    });
    void exited.then(([code, signal]) =>
      reject(new Error(`the node ended before it served (${String(code ?? signal)}): ${stderr}`)),
    );
  });

  const get = async (path: string): Promise<string> => {
    const socket = /^unix:(.*)$/.exec(ready.http)?.[1];
    const answer = await new Promise<IncomingMessage>((resolve, reject) => {
      const target = socket === undefined ? new URL(path, `http://${ready.http}`) : { socketPath: socket, path };
      httpGet(target, resolve).on('error', reject);
    });
    return textOf(answer);
  };
  const stop = async (signal: NodeJS.Signals): Promise<number | null> => {
    if (child.exitCode === null && child.signalCode === null) {
      child.kill(signal);
      await exited;
    }
    return child.exitCode;
  };
  return {
    child,
    grpc: ready.grpc,
    http: ready.http,
    dataDir,
    stderr: () => stderr,
    async status() {
      return JSON.parse(await get('/api/status')) as Record<string, unknown>;
    },
    async metric(name, labels = {}) {
      const text = await get('/metrics');
      let sum = 0;
      for (const line of text.split('\n')) {
        const match = /^([a-z_]+)(?:\{(.*)\})? (\S+)$/.exec(line);
        if (match?.[1] !== name) continue;
        const shown = match[2] ?? '';
        if (Object.entries(labels).every(([key, value]) => shown.includes(`${key}="${value}"`)))
          sum += Number(match[3]);
      }
      return sum;
    },
    stop: () => stop('SIGTERM'),
    async kill(signal = 'SIGKILL') {
      await stop(signal);
    },
    async [Symbol.asyncDispose]() {
      await stop('SIGKILL');
      if (own) await rm(own, { recursive: true, force: true });
    },
  };
}
