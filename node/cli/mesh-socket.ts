/** Talks to a running node over the socket that is its owner's alone. */
import { existsSync } from 'node:fs';
import { request as httpRequest } from 'node:http';
import { dirname } from 'node:path';
import { text } from 'node:stream/consumers';
import { adminSocketPath } from '../mesh/admin-requests.ts';
import { requireOwnDirectory } from '../mesh/ownership.ts';
import { CliError } from './exit-codes.ts';

/** Joining waits for another machine. */
const timeoutMs = 60_000;

/** The answer to a request; `undefined` when no node serves from the directory. Throws CliError with what a node said against it. */
export function post(dataDir: string, body: string): Promise<string | undefined> {
  const socketPath = adminSocketPath(dataDir);
  if (!existsSync(socketPath)) return Promise.resolve(undefined);
  // What is handed over lets others in: nobody but the node of this user may be behind the socket.
  requireOwnDirectory(dirname(socketPath));
  return new Promise((resolve, reject) => {
    const sent = httpRequest({ socketPath, method: 'POST', signal: AbortSignal.timeout(timeoutMs) }, (response) => {
      text(response).then((answer) => {
        if (response.statusCode === 200) resolve(answer);
        else reject(new CliError((JSON.parse(answer) as { reason: string }).reason));
      }, reject);
    });
    sent.once('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT' || error.code === 'ECONNREFUSED') resolve(undefined);
      else reject(new CliError(`the node does not answer on ${socketPath} (${error.code ?? error.message})`));
    });
    sent.end(body);
  });
}
