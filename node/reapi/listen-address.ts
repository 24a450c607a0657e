/** Addresses to listen on: `host:port`, `[ipv6]:port`, `unix:/path`. */
import { once } from 'node:events';
import { lstatSync, rmSync } from 'node:fs';
import { type AddressInfo, connect, isIP, isIPv6, type Server } from 'node:net';
import { StatusError, toStatusError } from '../../protos/status.ts';

export interface ListenAddress {
  /** As it was given. */
  readonly text: string;
  /** Set for a Unix socket; host and port then mean nothing. */
  readonly path: string | undefined;
  readonly host: string;
  readonly port: number;
  /** Whether only this machine can reach it. */
  readonly local: boolean;
}

/** Throws INVALID_ARGUMENT for what is not an address. */
export function parseListenAddress(text: string): ListenAddress {
  if (text.startsWith('unix:')) {
    const path = text.slice('unix:'.length).replace(/^\/\/(?=\/)/, '');
    if (!path.startsWith('/'))
      throw invalid(text, 'a Unix socket needs an absolute path, as in unix:/run/potluck.sock');
    return { text, path, host: '', port: 0, local: true };
  }
  const match = /^(?:\[([^\]]+)\]|([^:[\]]+)):(\d{1,5})$/.exec(text);
  const port = Number(match?.[3]);
  if (!match || port > 65_535) throw invalid(text, 'use host:port, [ipv6]:port or unix:/path');
  const host = (match[1] ?? match[2]) as string;
  if (match[1] !== undefined && !isIPv6(host)) throw invalid(text, `${host} is not an IPv6 address`);
  return { text, path: undefined, host, port, local: isLoopback(host) };
}

function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || (isIP(host) === 4 && host.startsWith('127.'));
}

function invalid(text: string, hint: string): StatusError {
  return new StatusError('INVALID_ARGUMENT', `"${text}" is not an address to listen on: ${hint}`);
}

/** Listens, and returns the address with its real port. Throws FAILED_PRECONDITION when it cannot. */
export async function listenOn(server: Server, address: ListenAddress): Promise<string> {
  if (address.path !== undefined) await removeStaleSocket(address.path);
  try {
    if (address.path === undefined) server.listen({ host: address.host, port: address.port });
    else listenPrivately(server, address.path);
    await once(server, 'listening');
  } catch (error) {
    const taken = (error as NodeJS.ErrnoException).code === 'EADDRINUSE';
    const reason = taken
      ? 'another process listens there, or it is a file; stop the process or choose another address'
      : toStatusError(error).reason;
    throw new StatusError('FAILED_PRECONDITION', `cannot listen on ${address.text}: ${reason}`, { cause: error });
  }
  if (address.path !== undefined) return address.text;
  const { port } = server.address() as AddressInfo;
  return address.host.includes(':') ? `[${address.host}]:${port}` : `${address.host}:${port}`;
}

/** The socket is its owner's alone from the first moment: the file is made within this one call. */
function listenPrivately(server: Server, path: string): void {
  const umask = process.umask(0o177);
  try {
    server.listen({ path });
  } finally {
    process.umask(umask);
  }
}

/** A socket file whose process died stays behind; only one that nobody answers on is removed. */
async function removeStaleSocket(path: string): Promise<void> {
  // Connecting to a file that is no socket is refused as well.
  if (!lstatSync(path, { throwIfNoEntry: false })?.isSocket()) return;
  const socket = connect(path);
  try {
    await once(socket, 'connect');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ECONNREFUSED') rmSync(path);
  } finally {
    socket.destroy();
  }
}
