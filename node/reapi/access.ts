/** Who may call: what a server must ask for before others can reach it, and the check of bearer tokens. */
import { createHash, timingSafeEqual } from 'node:crypto';
import { StatusError } from '../../protos/status.ts';
import type { ListenAddress } from './listen-address.ts';

/** What a server demands of its callers. */
export interface Access {
  /** PEM. With `clientCa`, only clients whose certificate it signed get in. */
  readonly tls?: { readonly cert: Buffer; readonly key: Buffer; readonly clientCa?: Buffer };
  readonly bearerToken?: string;
}

/** Throws FAILED_PRECONDITION for an address that others could reach while nothing is demanded of them. */
export function refuseUnguarded(address: ListenAddress, { tls, bearerToken }: Access): void {
  if (address.local) return;
  if (tls && (tls.clientCa || bearerToken !== undefined)) return;
  throw new StatusError(
    'FAILED_PRECONDITION',
    `${address.text} can be reached from other machines: give it TLS (certificate and key) and either an authority for ` +
      'client certificates or a bearer token, or listen on 127.0.0.1 or a Unix socket',
  );
}

/** Compares hashes, so that the time it takes tells nothing about the token. */
export function bearerCheck(token: string | undefined): (authorization: string | undefined) => boolean {
  if (token === undefined) return () => true;
  const hash = (text: string) => createHash('sha256').update(text).digest();
  const expected = hash(token);
  return (authorization) => {
    const match = /^Bearer (.+)$/i.exec(authorization ?? '');
    return match !== null && timingSafeEqual(hash(match[1] as string), expected);
  };
}
