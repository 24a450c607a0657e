/**
 * Invitations as text, and the proofs by which inviter and invited recognise each other.
 *
 * Both forms carry one secret of 80 bits. Neither end sends it: each proves that it knows it, over both peer ids, so a
 * stranger in the place of the issuer learns nothing it could use. The long form names mesh and issuer as well.
 */
import { createHash, createHmac, timingSafeEqual } from 'node:crypto';
import { Buffer } from 'node:buffer';
import { create, toBinary } from '@bufbuild/protobuf';
import { InvitationTokenSchema } from '../../../protos/gen/potluck/mesh/v1/identity_pb.ts';
import { StatusError } from '../../../protos/status.ts';
import type { NodeId } from '../../core/ids.ts';
import { parse } from './certificate.ts';
import * as limits from './limits.ts';
import { publicKeyOf } from './peer-id.ts';

/** What a token says. The short form names an address only. */
export interface Token {
  readonly secret: Uint8Array;
  /** host:port. */
  readonly addresses: readonly string[];
  readonly meshId?: string;
  readonly issuer?: NodeId;
  readonly notAfterMs?: number;
}

const longPrefix = 'potluck-';
/** Crockford's base 32: no letter that looks like another one. */
const letters = '0123456789ABCDEFGHJKMNPQRSTVWXYZ';

/** For copying: mesh, issuer, addresses and secret. */
export function longForm(token: Required<Token>): string {
  const message = create(InvitationTokenSchema, {
    meshId: token.meshId,
    issuer: token.issuer,
    addresses: token.addresses.slice(0, limits.addressesMax),
    secret: token.secret,
    notAfterMs: BigInt(token.notAfterMs),
  });
  return longPrefix + Buffer.from(toBinary(InvitationTokenSchema, message)).toString('base64url');
}

/** For typing: `XXXX-XXXX-XXXX-XXXX@host:port`. */
export function shortForm(secret: Uint8Array, address: string): string {
  let number = BigInt(`0x${Buffer.from(secret).toString('hex')}`);
  let text = '';
  for (let at = 0; at < (secret.byteLength * 8) / 5; at++, number >>= 5n) text = letters[Number(number & 31n)] + text;
  return `${text.replace(/(.{4})(?=.)/g, '$1-')}@${address}`;
}

/** Reads either form. Throws INVALID_ARGUMENT. */
export function parseToken(text: string): Token {
  const token = text.trim().startsWith(longPrefix) ? parseLong(text.trim()) : parseShort(text.trim());
  if (token) return token;
  throw new StatusError(
    'INVALID_ARGUMENT',
    'this is no invitation; it looks like potluck-… or like 7K2M-QX4P-9RTV-B3HD@192.168.1.20:8982, and comes from "potluck invite"',
  );
}

function parseLong(text: string): Token | undefined {
  const message = parse(InvitationTokenSchema, Buffer.from(text.slice(longPrefix.length), 'base64url'));
  if (message?.secret.byteLength !== limits.secretBytes || !publicKeyOf(message.issuer)) return undefined;
  const { secret, addresses, meshId, issuer, notAfterMs } = message;
  if (addresses.length === 0 || addresses.length > limits.addressesMax) return undefined;
  return { secret, addresses, meshId, issuer, notAfterMs: Number(notAfterMs) };
}

function parseShort(text: string): Token | undefined {
  const [, code, address] = /^([0-9a-z -]+)@(.+:\d{1,5})$/i.exec(text) ?? [];
  const typed = code?.toUpperCase().replace(/[ -]/g, '').replaceAll('O', '0').replace(/[IL]/g, '1');
  if (!typed || !address || typed.length !== (limits.secretBytes * 8) / 5) return undefined;
  let number = 0n;
  for (const letter of typed) {
    const value = letters.indexOf(letter);
    if (value < 0) return undefined;
    number = (number << 5n) | BigInt(value);
  }
  const secret = Buffer.from(number.toString(16).padStart(limits.secretBytes * 2, '0'), 'hex');
  return { secret, addresses: [address] };
}

/** Names an invitation without its secret. */
export function invitationId(secret: Uint8Array): Uint8Array {
  return createHash('sha256').update('potluck/invitation/1\0').update(secret).digest().subarray(0, 8);
}

/** The two ends of one joining; both peer ids were authenticated by the encrypted connection. */
export interface Joining {
  readonly issuer: NodeId;
  readonly joiner: NodeId;
  /** Chosen by the joiner, 16 bytes. */
  readonly nonce: Uint8Array;
}

/** `join` proves the joiner, `grant` the issuer and what it granted. */
export function prove(
  secret: Uint8Array,
  side: 'join' | 'grant',
  joining: Joining,
  granted: Uint8Array = new Uint8Array(),
): Buffer {
  const hmac = createHmac('sha256', secret);
  for (const part of [`potluck/${side}/1`, joining.issuer, joining.joiner, joining.nonce, granted]) {
    // Lengths keep the parts apart.
    hmac.update(`${part.length}:`).update(part);
  }
  return hmac.digest();
}

export function isProof(proof: Uint8Array, expected: Uint8Array): boolean {
  return proof.byteLength === expected.byteLength && timingSafeEqual(proof, expected);
}
