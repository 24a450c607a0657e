/**
 * Serves the owner's requests on a Unix socket: HTTP with one JSON object each way. The socket's directory and file belong
 * to the owner alone, so no stranger, other user or web page comes near it.
 */
import { mkdirSync, rmSync } from 'node:fs';
import { createServer, type IncomingMessage } from 'node:http';
import { dirname } from 'node:path';
import { StatusError, toStatusError } from '../../protos/status.ts';
import { listenOn, parseListenAddress } from '../reapi/listen-address.ts';
import { type AdminRequest, adminSocketPath } from './admin-requests.ts';
import * as limits from './limits.ts';
import { requireOwnDirectory } from './ownership.ts';

export interface AdminServer {
  close(): Promise<void>;
}

export async function serveAdmin(
  dataDir: string,
  handle: (request: AdminRequest) => Promise<object>,
): Promise<AdminServer> {
  const path = adminSocketPath(dataDir);
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  // One that somebody else made beforehand is not used.
  requireOwnDirectory(dirname(path));
  const server = createServer((request, response) => {
    const answer = (code: number, body: object): void => {
      response.writeHead(code, { 'content-type': 'application/json' }).end(JSON.stringify(body));
    };
    readRequest(request)
      .then(handle)
      .then(
        (body) => answer(200, body),
        (error: unknown) => {
          const { code, reason } = toStatusError(error);
          answer(400, { code, reason });
        },
      );
  });
  await listenOn(server, parseListenAddress(`unix:${path}`));
  server.unref();
  return {
    async close() {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      server.closeAllConnections();
      await closed;
      rmSync(path, { force: true });
    },
  };
}

async function readRequest(request: IncomingMessage): Promise<AdminRequest> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    size += chunk.byteLength;
    if (size > limits.adminBytesMax) throw new StatusError('INVALID_ARGUMENT', 'the request is too long');
    chunks.push(chunk);
  }
  return JSON.parse(Buffer.concat(chunks).toString()) as AdminRequest;
}
