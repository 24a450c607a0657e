/**
 * The hello that binds a TLS connection to two members, after the TLS handshake and before any byte of HTTP.
 *
 * Each side shows its membership certificate and signs, with the key of its peer id: its role, the mesh id, the TLS
 * public key that it uses, and keying material exported from this very TLS session (RFC 8446, section 7.5). The last
 * makes a hello worthless on any other connection, so it can neither be replayed nor relayed.
 *
 * The client speaks first. A server that does not believe it closes without a word; the server's hello is the go-ahead,
 * and the client sends nothing else before it has verified that. Hence both ends are verified on both sides before the
 * first byte of HTTP is sent. A resumed session is refused: it shows no certificate of the peer.
 */
import { createHash } from 'node:crypto';
import type { TLSSocket } from 'node:tls';
import type { Credentials, VerifiedMember } from './credentials.ts';
import { PeerError } from './errors.ts';
import type { Inbox } from './inbox.ts';
import * as limits from './limits.ts';
import type { TlsIdentity } from './tls-identity.ts';

type Role = 'client' | 'server';

const domain = 'potluck/data-hello/1';
const exporterLabel = 'EXPORTER-Potluck-Data-Hello';
const version = 1;
const lengthBytes = 4;
const unknown = '(not known yet)';

export interface HelloOptions {
  readonly credentials: Credentials;
  readonly identity: TlsIdentity;
}

/** Verifies the client and answers it; throws a `PeerError`, with nothing sent, when it is not believed. */
export async function welcome(socket: TLSSocket, options: HelloOptions): Promise<string> {
  const { peer } = await verify(socket, 'client', options, readFrame(socket));
  // It may have been revoked while its signature was checked.
  if (!options.credentials.isMember(peer)) throw new PeerError('refused', peer, 'its membership has ended');
  socket.write(compose(socket, 'server', options));
  return peer;
}

/**
 * Introduces this node to the server and verifies that it is `expected`. Throws a `PeerError`.
 *
 * @param inbox - where the bytes of the socket come, when they do not come by reading it
 */
export async function introduce(
  socket: TLSSocket,
  expected: string,
  options: HelloOptions,
  inbox?: Inbox,
): Promise<void> {
  checkFresh(socket, expected);
  const frame = readFrame(socket, inbox);
  // It may fail before anybody waits for it.
  frame.catch(() => {});
  socket.write(compose(socket, 'client', options));
  const { peer } = await verify(socket, 'server', options, frame);
  if (peer !== expected) throw new PeerError('refused', expected, `another member, ${peer}, answers at its address`);
  if (!options.credentials.isMember(peer)) throw new PeerError('refused', peer, 'its membership has ended');
}

function compose(socket: TLSSocket, role: Role, { credentials, identity }: HelloOptions): Buffer {
  const certificate = credentials.certificate();
  const signature = credentials.sign(domain, boundMessage(socket, role, credentials.meshId, identity.publicKey));
  const head = Buffer.alloc(lengthBytes + 1 + lengthBytes);
  head.writeUInt32BE(1 + lengthBytes + certificate.byteLength + signature.byteLength, 0);
  head.writeUInt8(version, lengthBytes);
  head.writeUInt32BE(certificate.byteLength, lengthBytes + 1);
  return Buffer.concat([head, certificate, signature]);
}

async function verify(
  socket: TLSSocket,
  role: Role,
  { credentials }: HelloOptions,
  receiving: Promise<Buffer>,
): Promise<VerifiedMember> {
  const frame = await receiving;
  checkFresh(socket, unknown);
  const certificateBytes = frame.byteLength > 1 + lengthBytes ? frame.readUInt32BE(1) : 0;
  if (frame[0] !== version || 1 + lengthBytes + certificateBytes > frame.byteLength) {
    throw new PeerError('refused', unknown, 'it speaks another protocol');
  }
  const certificate = frame.subarray(1 + lengthBytes, 1 + lengthBytes + certificateBytes);
  const signature = frame.subarray(1 + lengthBytes + certificateBytes);
  const member = credentials.verify(certificate);
  if (!member) throw new PeerError('refused', unknown, 'it is no member of this mesh');
  const shown = socket.getPeerX509Certificate()?.publicKey.export({ type: 'spki', format: 'der' });
  if (!shown) throw new PeerError('refused', member.peer, 'it showed no TLS certificate');
  const message = boundMessage(socket, role, credentials.meshId, shown);
  if (!member.isSignedBy(domain, message, signature)) {
    throw new PeerError('refused', member.peer, 'the connection is not signed with the key of its peer id');
  }
  return member;
}

function checkFresh(socket: TLSSocket, peer: string): void {
  if (socket.isSessionReused()) throw new PeerError('refused', peer, 'TLS sessions are not resumed');
  if (socket.getProtocol() !== 'TLSv1.3') throw new PeerError('refused', peer, 'it does not speak TLS 1.3');
}

function boundMessage(socket: TLSSocket, role: Role, meshId: string, tlsPublicKey: Uint8Array): Buffer {
  const exported = socket.exportKeyingMaterial(32, exporterLabel, Buffer.alloc(0));
  const parts = [Buffer.from(role), Buffer.from(meshId), sha256(tlsPublicKey), exported];
  return Buffer.concat(parts.flatMap((part) => [lengthOf(part), part]));
}

function lengthOf(part: Uint8Array): Buffer {
  const length = Buffer.alloc(lengthBytes);
  length.writeUInt32BE(part.byteLength);
  return length;
}

function sha256(bytes: Uint8Array): Buffer {
  return createHash('sha256').update(bytes).digest();
}

/** One frame and nothing behind it: whoever sends more before the other's answer does not keep to the protocol. */
function readFrame(socket: TLSSocket, inbox?: Inbox): Promise<Buffer> {
  const { promise, resolve, reject } = Promise.withResolvers<Buffer>();
  let received = Buffer.alloc(0);
  const onReadable = (): void => {
    for (let chunk = socket.read() as Buffer | null; chunk; chunk = socket.read() as Buffer | null) {
      if (!take(chunk)) return;
    }
  };
  /** False when it is enough. */
  const take = (chunk: Uint8Array): boolean => {
    received = Buffer.concat([received, chunk]);
    check();
    return received.byteLength <= lengthBytes + limits.helloBytesMax;
  };
  const check = (): void => {
    if (received.byteLength < lengthBytes) return;
    const wholeBytes = lengthBytes + received.readUInt32BE(0);
    if (wholeBytes > lengthBytes + limits.helloBytesMax || received.byteLength > wholeBytes) {
      reject(new PeerError('refused', unknown, 'it does not keep to the hello'));
    } else if (received.byteLength === wholeBytes) {
      resolve(received.subarray(lengthBytes));
    }
  };
  const onEnd = (): void => reject(new PeerError('refused', unknown, 'it closed the connection during the hello'));
  const onError = (cause: Error): void => reject(new PeerError('unreachable', unknown, cause.message, { cause }));
  socket.once('end', onEnd);
  socket.once('close', onEnd);
  socket.once('error', onError);
  if (inbox) inbox.listen(take);
  else {
    socket.on('readable', onReadable);
    // What came with the end of the TLS handshake is announced to nobody.
    onReadable();
  }
  return promise.finally(() => {
    socket.off('readable', onReadable);
    socket.off('end', onEnd);
    socket.off('close', onEnd);
    socket.off('error', onError);
  });
}
