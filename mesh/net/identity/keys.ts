/** Ed25519 keys, and signatures that say what they are for. */
import {
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  sign as signBytes,
  verify as verifyBytes,
} from 'node:crypto';
import { StatusError } from '../../../protos/status.ts';
import { createDurably, readIfThere } from './durable-file.ts';
import * as limits from './limits.ts';
import { peerIdOf, publicKeyOf } from './peer-id.ts';

/** What a signature is about; none can pass for one of another kind. */
export type Domain = `potluck/${string}/${number}`;

export interface SigningKey {
  /** 32 bytes. */
  readonly publicKey: Uint8Array;
  readonly peerId: string;
  /** Of (domain, NUL, bytes); 64 bytes. */
  sign(domain: Domain, bytes: Uint8Array): Uint8Array;
  /** The 32 bytes that the key grows from. They leave this process for nobody. */
  seed(): Uint8Array;
}

/** A key of this object; for files see `openKey`. */
export function signingKey(privateKey: KeyObject): SigningKey {
  const { x, d } = privateKey.export({ format: 'jwk' });
  const publicKey = Buffer.from(x ?? '', 'base64url');
  return {
    publicKey,
    peerId: peerIdOf(publicKey),
    sign: (domain, bytes) => signBytes(null, tagged(domain, bytes), privateKey),
    seed: () => Buffer.from(d ?? '', 'base64url'),
  };
}

export function newKey(): SigningKey {
  return signingKey(generateKeyPairSync('ed25519').privateKey);
}

/** The key in a file, or `undefined` without the file. Throws DATA_LOSS for a file that holds no such key. */
export function readKey(path: string): SigningKey | undefined {
  const pem = readIfThere(path);
  if (!pem) return undefined;
  try {
    const key = createPrivateKey({ key: Buffer.from(pem), format: 'pem' });
    if (key.asymmetricKeyType === 'ed25519') return signingKey(key);
  } catch {
    // Said below.
  }
  throw new StatusError(
    'DATA_LOSS',
    `${path} holds no Ed25519 key; put the right one back, or move the file away: the node then gets a new identity and must be invited again`,
  );
}

/** The key in a file, which is made (mode 0600) when it is not there and never written again. */
export function openKey(path: string): SigningKey {
  const there = readKey(path);
  if (there) return there;
  const { privateKey } = generateKeyPairSync('ed25519');
  createDurably(path, Buffer.from(privateKey.export({ format: 'pem', type: 'pkcs8' })));
  // Whichever process was first has made the key that counts.
  return readKey(path) as SigningKey;
}

/** Checks signatures of many keys; keeps the newest of them ready. */
export interface Verifier {
  /** `key`: a peer id, or 32 bytes. */
  verify(key: string | Uint8Array, domain: Domain, bytes: Uint8Array, signature: Uint8Array): boolean;
}

export function createVerifier(): Verifier {
  const keys = new Map<string, KeyObject>();

  function keyOf(raw: Uint8Array): KeyObject {
    const x = Buffer.from(raw).toString('base64url');
    let key = keys.get(x);
    if (!key) {
      key = createPublicKey({ key: { kty: 'OKP', crv: 'Ed25519', x }, format: 'jwk' });
      keys.set(x, key);
      for (const oldest of keys.keys()) {
        if (keys.size <= limits.keysCachedMax) break;
        keys.delete(oldest);
      }
    }
    return key;
  }

  return {
    verify(key, domain, bytes, signature) {
      const raw = typeof key === 'string' ? publicKeyOf(key) : key;
      if (raw?.byteLength !== 32 || signature.byteLength !== 64) return false;
      try {
        return verifyBytes(null, tagged(domain, bytes), keyOf(raw), signature);
      } catch {
        // 32 bytes that are no point of the curve.
        return false;
      }
    },
  };
}

function tagged(domain: Domain, bytes: Uint8Array): Uint8Array {
  return Buffer.concat([Buffer.from(`${domain}\0`), bytes]);
}
