/** Addresses to listen on: `host:port`, `[ipv6]:port`, `unix:/path`. */
import { isIP, isIPv6 } from 'node:net';
import { StatusError } from '../../protos/status.ts';

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
