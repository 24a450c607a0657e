/** One authenticated connection to a member: the first of its addresses that answers, TLS, then the hello. */
import { constants } from 'node:crypto';
import { connect as connectTls, type TLSSocket } from 'node:tls';
import { PeerError } from './errors.ts';
import { type HelloOptions, introduce } from './hello.ts';
import { createInbox, type Inbox } from './inbox.ts';
import * as limits from './limits.ts';
import type { TlsIdentity } from './tls-identity.ts';

/** Where a member serves its data plane. */
export interface PeerAddress {
  readonly host: string;
  readonly port: number;
}

/** A socket whose bytes come by way of the inbox. */
export interface Dialled {
  readonly socket: TLSSocket;
  readonly inbox: Inbox;
}

/** Throws a `PeerError`; nothing is left open then. */
export async function dial(
  peer: string,
  addresses: readonly PeerAddress[],
  hello: HelloOptions,
  signal: AbortSignal,
): Promise<Dialled> {
  if (addresses.length === 0) throw new PeerError('unreachable', peer, 'no address of it is known');
  const dialled = await firstOf(peer, addresses.slice(0, limits.addressesMax), hello.identity, signal);
  const { socket, inbox } = dialled;
  const giveUp = (): void => void socket.destroy(new Error('it took too long to prove who it is'));
  const timer = setTimeout(giveUp, limits.handshakeMs);
  signal.addEventListener('abort', giveUp, { once: true });
  try {
    await new Promise<void>((resolve, reject) => {
      const onError = (cause: Error): void => reject(new PeerError('unreachable', peer, cause.message, { cause }));
      const onClose = (): void => reject(new PeerError('refused', peer, 'it closed the connection'));
      socket.once('error', onError);
      socket.once('close', onClose);
      socket.once('secureConnect', () => {
        socket.off('error', onError);
        socket.off('close', onClose);
        resolve();
      });
    });
    await introduce(socket, peer, hello, inbox);
    return dialled;
  } catch (error) {
    socket.destroy();
    throw error;
  } finally {
    clearTimeout(timer);
    signal.removeEventListener('abort', giveUp);
  }
}

/** Tries the addresses one after another, each a little later than the one before (RFC 8305); the first to answer wins. */
function firstOf(
  peer: string,
  addresses: readonly PeerAddress[],
  { key, cert }: TlsIdentity,
  signal: AbortSignal,
): Promise<Dialled> {
  const { promise, resolve, reject } = Promise.withResolvers<Dialled>();
  const open = new Set<TLSSocket>();
  const timers: NodeJS.Timeout[] = [];
  let left = addresses.length;
  let reason = 'it does not answer';
  const lost = (socket: TLSSocket): void => {
    if (!open.delete(socket)) return;
    socket.destroy();
    left -= 1;
    if (left === 0) reject(new PeerError('unreachable', peer, reason));
  };
  const attempt = ({ host, port }: PeerAddress): void => {
    const inbox = createInbox();
    const socket = connectTls({
      host,
      port,
      key,
      cert,
      minVersion: 'TLSv1.3',
      // Certificates are self-signed; the hello says whose they are.
      rejectUnauthorized: false,
      secureOptions: constants.SSL_OP_NO_TICKET,
      ...{ onread: inbox.onread },
    });
    socket.setNoDelay(true);
    open.add(socket);
    const timer = setTimeout(() => lost(socket), limits.connectMs);
    timers.push(timer);
    // It stays: what goes wrong later is told by other means, and must not end the process.
    socket.on('error', (error) => {
      if (open.has(socket)) reason = error.message;
      lost(socket);
    });
    socket.once('connect', () => {
      if (open.delete(socket)) resolve({ socket, inbox });
    });
  };
  const giveUp = (): void => reject(new PeerError('unreachable', peer, 'nobody waits for it any more'));
  if (signal.aborted) giveUp();
  else signal.addEventListener('abort', giveUp, { once: true });
  for (const [at, address] of addresses.entries()) {
    if (at === 0) attempt(address);
    else timers.push(setTimeout(() => attempt(address), at * limits.connectStaggerMs));
  }
  return promise.finally(() => {
    signal.removeEventListener('abort', giveUp);
    for (const timer of timers) clearTimeout(timer);
    for (const socket of open) socket.destroy();
    open.clear();
  });
}
