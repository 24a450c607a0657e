/**
 * Keeps web pages out of the local HTTP server: a page open in the user's browser could otherwise send requests here, and,
 * by pointing a name of its own at 127.0.0.1 (DNS rebinding), read the answers.
 */
import type { IncomingHttpHeaders } from 'node:http';
import { isIP } from 'node:net';
import { StatusError } from '../../protos/status.ts';
import type { ListenAddress } from '../reapi/listen-address.ts';

/** Throws PERMISSION_DENIED. */
export type PageGuard = (headers: IncomingHttpHeaders) => void;

/**
 * Build tools send neither `Origin` nor `Sec-Fetch-Site`; browsers do, and no page but one of this server's own passes. On
 * a loopback address the `Host` must be `localhost` or an IP address as well: a rebound name is neither.
 */
export function createPageGuard(address: ListenAddress): PageGuard {
  return (headers) => {
    const { host, origin } = headers;
    const site = headers['sec-fetch-site'];
    if (site !== undefined && site !== 'same-origin' && site !== 'none')
      throw foreign(`Sec-Fetch-Site ${String(site)}`);
    if (origin !== undefined && hostOf(origin) !== host) throw foreign(`Origin ${origin}`);
    const named = address.path === undefined && address.local && host !== undefined && !isLocalName(host);
    if (named) throw foreign(`Host ${host}`);
  };
}

function hostOf(origin: string): string | undefined {
  return URL.canParse(origin) ? new URL(origin).host : undefined;
}

function isLocalName(host: string): boolean {
  const name = host.replace(/:\d+$/, '');
  return name.toLowerCase() === 'localhost' || isIP(name.replace(/^\[(.*)\]$/, '$1')) !== 0;
}

function foreign(what: string): StatusError {
  return new StatusError(
    'PERMISSION_DENIED',
    `refused: the header "${what}" says that this request comes from a web page or by a foreign name; ` +
      'address this server by 127.0.0.1 or localhost',
  );
}
