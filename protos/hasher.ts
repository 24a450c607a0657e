/** Incremental and whole-buffer hashing for every supported digest function. */
import { createHash, hash as hashOnce } from 'node:crypto';
import { createBLAKE3 } from 'hash-wasm';
import type { Digest, DigestFunction } from './digest.ts';

export interface Hasher {
  update(bytes: Uint8Array): void;
  /** Lower-case hex; the hasher is spent afterwards. */
  hex(): string;
}

/** OpenSSL has no BLAKE3; the WebAssembly one is shared for whole buffers and instantiated per stream. */
const blake3Once = await createBLAKE3();
const blake3Spare = [await createBLAKE3()];

/** A fresh hasher. BLAKE3 instances are reused once spent. */
export async function createHasher(fn: DigestFunction): Promise<Hasher> {
  if (fn === 'blake3') {
    const wasm = blake3Spare.pop() ?? (await createBLAKE3());
    wasm.init();
    return {
      update: (bytes) => void wasm.update(bytes),
      hex: () => {
        const hex = wasm.digest('hex');
        blake3Spare.push(wasm);
        return hex;
      },
    };
  }
  const hash = createHash(fn);
  return { update: (bytes) => void hash.update(bytes), hex: () => hash.digest('hex') };
}

/** The hash of one buffer as lower-case hex. */
export function hashBytes(fn: DigestFunction, bytes: Uint8Array): string {
  if (fn === 'blake3') return blake3Once.init().update(bytes).digest('hex');
  return hashOnce(fn, bytes, 'hex');
}

/** The digest of one buffer. */
export function digestOf(fn: DigestFunction, bytes: Uint8Array): Digest {
  return { fn, hash: hashBytes(fn, bytes), sizeBytes: bytes.byteLength };
}
