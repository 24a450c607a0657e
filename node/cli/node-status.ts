/** Asks the node that serves under a configuration for what is below its `/api/`. */
import { readFile } from 'node:fs/promises';
import type { request } from 'node:http';
import type { RequestOptions } from 'node:https';
import { text } from 'node:stream/consumers';
import type { NodeConfig } from '../config/config.ts';
import type { NodeStatus } from '../status.ts';
import { parseListenAddress } from '../reapi/listen-address.ts';
import { CliError } from './exit-codes.ts';

const timeoutMs = 5_000;
const statusPath = '/api/status';

/** Throws CliError when nobody answers there, or something that is no Potluck node. */
export async function askStatus(config: NodeConfig): Promise<NodeStatus> {
  const status = await askNode<NodeStatus | undefined>(config, statusPath);
  if (status?.state && status.store) return status;
  throw noNode(config);
}

/** The answer to one request. Throws CliError when nobody answers there, with what the node said against it, or when it is no node. */
export async function askNode<T>(config: NodeConfig, apiPath: string, method: 'GET' | 'POST' = 'GET'): Promise<T> {
  if (config.http === undefined)
    throw new CliError('the configuration turns HTTP off, and the node is asked over HTTP');
  const { host, port, path } = parseListenAddress(config.http);
  const options: RequestOptions = {
    path: apiPath,
    method,
    signal: AbortSignal.timeout(timeoutMs),
    ...(path === undefined ? { host, port } : { socketPath: path }),
  };
  if (config.bearerTokenFile !== undefined) {
    options.headers = { authorization: `Bearer ${(await readFile(config.bearerTokenFile, 'utf8')).trim()}` };
  }
  const secure = config.tls !== undefined && path === undefined;
  if (config.tls && secure) {
    // Exactly the node's own certificate is trusted, whatever name it bears.
    Object.assign(options, {
      ca: await readFile(config.tls.certFile),
      allowPartialTrustChain: true,
      checkServerIdentity: () => undefined,
    });
  }
  const http = secure ? await import('node:https') : await import('node:http');
  const body = await get(http.request, options).catch((error: NodeJS.ErrnoException) => {
    if (error instanceof CliError) throw error;
    const hint = 'Start one with "potluck up" (in a checkout: npm start), or say with --http where it is.';
    throw new CliError(`no node answers at ${config.http} (${error.code ?? error.message}). ${hint}`);
  });
  try {
    return JSON.parse(body) as T;
  } catch {
    throw noNode(config);
  }
}

function noNode({ http }: NodeConfig): CliError {
  return new CliError(`what answers at ${http} is no Potluck node`);
}

function get(send: typeof request, options: RequestOptions): Promise<string> {
  return new Promise((resolve, reject) => {
    const sent = send(options, (response) => {
      text(response).then((body) => {
        if (response.statusCode === 200) resolve(body);
        // Of what is asked for below /api/, the node says in a sentence why it cannot be.
        else if (options.path !== statusPath && [400, 404, 409].includes(response.statusCode ?? 0))
          reject(new CliError(body.trim()));
        else
          reject(
            new CliError(
              `the server at ${options.host ?? options.socketPath}:${options.port ?? ''} answered ${response.statusCode}: ${body.slice(0, 200)}`,
            ),
          );
      }, reject);
    });
    sent.once('error', reject);
    sent.end();
  });
}
