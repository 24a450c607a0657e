/**
 * The digest as a value type: (function, hash, size), all three of which are the key of a blob.
 *
 * Digests are checked once, where they enter; afterwards a `Digest` is trusted to be well formed.
 *
 * @see REAPI v2.12, message Digest and enum DigestFunction.Value
 */
import { create } from '@bufbuild/protobuf';
import {
  DigestFunction_Value,
  DigestSchema,
  type Digest as WireDigest,
} from './gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { StatusError } from './status.ts';

export type DigestFunction = 'sha256' | 'blake3' | 'sha1' | 'sha384' | 'sha512' | 'md5';

export interface Digest {
  readonly fn: DigestFunction;
  /** Lower-case hex, of the length the function has. */
  readonly hash: string;
  readonly sizeBytes: number;
}

interface FunctionFacts {
  readonly wire: DigestFunction_Value;
  readonly hexLength: number;
  /** Whether ByteStream names and MISSING subjects carry the function as a segment (the functions added after 2.0 do). */
  readonly named: boolean;
  readonly emptyHash: string;
}

export const digestFunctions: { readonly [F in DigestFunction]: FunctionFacts } = {
  sha256: {
    wire: DigestFunction_Value.SHA256,
    hexLength: 64,
    named: false,
    emptyHash: 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855',
  },
  blake3: {
    wire: DigestFunction_Value.BLAKE3,
    hexLength: 64,
    named: true,
    emptyHash: 'af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262',
  },
  sha1: {
    wire: DigestFunction_Value.SHA1,
    hexLength: 40,
    named: false,
    emptyHash: 'da39a3ee5e6b4b0d3255bfef95601890afd80709',
  },
  sha384: {
    wire: DigestFunction_Value.SHA384,
    hexLength: 96,
    named: false,
    emptyHash: '38b060a751ac96384cd9327eb1b1e36a21fdb71114be07434c0cc7bf63f6e1da274edebfe76f65fbd51ad2f14898b95b',
  },
  sha512: {
    wire: DigestFunction_Value.SHA512,
    hexLength: 128,
    named: false,
    emptyHash:
      'cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e',
  },
  md5: {
    wire: DigestFunction_Value.MD5,
    hexLength: 32,
    named: false,
    emptyHash: 'd41d8cd98f00b204e9800998ecf8427e',
  },
};

/** Every supported function; the first is the default. */
export const digestFunctionNames = Object.keys(digestFunctions) as DigestFunction[];

const byWire = new Map(digestFunctionNames.map((fn) => [digestFunctions[fn].wire, fn]));
/** What an unset function means: inferred from the length of the hash; 64 digits mean SHA256. */
const byHexLength = new Map<number, DigestFunction>([
  [64, 'sha256'],
  [40, 'sha1'],
  [96, 'sha384'],
  [128, 'sha512'],
  [32, 'md5'],
]);
const lowerHex = /^[0-9a-f]+$/;

/** The function a request names, or, when it names none, the one its hash has the length of. Throws INVALID_ARGUMENT. */
export function resolveDigestFunction(wire: DigestFunction_Value, hash: string): DigestFunction {
  if (wire === DigestFunction_Value.UNKNOWN) {
    const fn = byHexLength.get(hash.length);
    if (fn) return fn;
    throw new StatusError(
      'INVALID_ARGUMENT',
      `digest "${shown(hash)}": no digest function has ${hash.length} hex digits`,
    );
  }
  const fn = byWire.get(wire);
  if (fn) return fn;
  const name = Object.entries(DigestFunction_Value).find(([, value]) => value === wire)?.[0] ?? wire;
  throw new StatusError(
    'INVALID_ARGUMENT',
    `digest function ${name} is not supported; use one of ${digestFunctionNames.join(', ').toUpperCase()}`,
  );
}

/** Checks a hash and a size. Throws INVALID_ARGUMENT naming what is wrong. */
export function makeDigest(fn: DigestFunction, hash: string, sizeBytes: number | bigint): Digest {
  const { hexLength } = digestFunctions[fn];
  if (hash.length !== hexLength || !lowerHex.test(hash)) {
    throw new StatusError(
      'INVALID_ARGUMENT',
      `digest "${shown(hash)}": a ${fn.toUpperCase()} hash is ${hexLength} lower-case hex digits`,
    );
  }
  const size = Number(sizeBytes);
  if (!Number.isSafeInteger(size) || size < 0) {
    throw new StatusError('INVALID_ARGUMENT', `digest ${hash}: ${sizeBytes} is not a possible size`);
  }
  return { fn, hash, sizeBytes: size };
}

/** Checks a digest from the wire; an absent one is refused as well. Throws INVALID_ARGUMENT. */
export function fromWireDigest(
  wire: WireDigest | undefined,
  functionOnWire: DigestFunction_Value,
  what = 'digest',
): Digest {
  if (!wire) throw new StatusError('INVALID_ARGUMENT', `${what} is not set`);
  return makeDigest(resolveDigestFunction(functionOnWire, wire.hash), wire.hash, wire.sizeBytes);
}

export function toWireDigest(digest: Digest): WireDigest {
  return create(DigestSchema, { hash: digest.hash, sizeBytes: BigInt(digest.sizeBytes) });
}

/** A string that equals another exactly when the digests are equal: `sha256/<hash>/<size>`. */
export function digestKey(digest: Digest): string {
  return `${digest.fn}/${digest.hash}/${digest.sizeBytes}`;
}

/** `{function/}<hash>/<size>` as ByteStream names and MISSING subjects write it. */
export function digestPath(digest: Digest): string {
  const path = `${digest.hash}/${digest.sizeBytes}`;
  return digestFunctions[digest.fn].named ? `${digest.fn}/${path}` : path;
}

export function emptyDigest(fn: DigestFunction): Digest {
  return { fn, hash: digestFunctions[fn].emptyHash, sizeBytes: 0 };
}

export function isEmptyDigest(digest: Digest): boolean {
  return digest.sizeBytes === 0 && digest.hash === digestFunctions[digest.fn].emptyHash;
}

function shown(hash: string): string {
  return hash.length > 140 ? `${hash.slice(0, 140)}…` : hash;
}
