/**
 * Content-defined chunk boundaries, FastCDC with normalized chunking at level 2.
 *
 * Written for clarity and from the publication, to hold a server's boundaries against; it looks at one byte at a time.
 *
 * @see Xia et al., "The Design of Fast Content-Defined Chunking for Data Deduplication Based Storage Systems", IEEE TPDS 2020
 * @see REAPI v2.12, message FastCdc2020Params: minimum a quarter and maximum four times the average
 */
import { createHash } from 'node:crypto';

/** The judgement masks by number of effective bits, as the paper's authors published them. */
const masks: readonly bigint[] = [
  0n,
  0n,
  0n,
  0n,
  0n,
  0x0000000001804110n,
  0x0000000001803110n,
  0x0000000018035100n,
  0x0000001800035300n,
  0x0000019000353000n,
  0x0000590003530000n,
  0x0000d90003530000n,
  0x0000d90103530000n,
  0x0000d90303530000n,
  0x0000d90313530000n,
  0x0000d90f03530000n,
  0x0000d90303537000n,
  0x0000d90703537000n,
  0x0000d90707537000n,
  0x0000d91707537000n,
  0x0000d91747537000n,
  0x0000d91767537000n,
  0x0000d93767537000n,
  0x0000d93777537000n,
];

/** The gear: for each byte the first half of the MD5 of sixty-four of it, as two words of 32 bits. */
const gear = Array.from({ length: 256 }, (_, byte) => createHash('md5').update(Buffer.alloc(64, byte)).digest());

export interface ChunkingParams {
  readonly avgBytes: number;
  readonly seed: number;
}

/** The sizes of the chunks of `bytes`, in order. */
export function chunkSizes(bytes: Uint8Array, params: ChunkingParams): number[] {
  const maxBytes = params.avgBytes * 4;
  if (bytes.byteLength < maxBytes) return bytes.byteLength === 0 ? [] : [bytes.byteLength];
  const sizes: number[] = [];
  for (let at = 0; at < bytes.byteLength; ) {
    const size = cut(bytes.subarray(at), params);
    sizes.push(size);
    at += size;
  }
  return sizes;
}

function cut(bytes: Uint8Array, { avgBytes, seed }: ChunkingParams): number {
  const minBytes = avgBytes / 4;
  if (bytes.byteLength <= minBytes) return bytes.byteLength;
  const end = Math.min(bytes.byteLength, avgBytes * 4);
  const center = Math.min(avgBytes, end);
  const bits = Math.round(Math.log2(avgBytes));
  let high = 0;
  let low = 0;
  // The published algorithm rolls two bytes at a time, so both limits are even.
  for (let at = minBytes - (minBytes % 2); at < end - (end % 2); at++) {
    const mask = masks[at < center - (center % 2) ? bits + 2 : bits - 2] as bigint;
    const word = gear[bytes[at] as number] as Buffer;
    const sum = ((low << 1) >>> 0) + ((word.readUInt32BE(4) ^ seed) >>> 0);
    high = (((high << 1) | (low >>> 31)) + word.readUInt32BE(0) + (sum > 0xffffffff ? 1 : 0)) >>> 0;
    low = sum >>> 0;
    if ((high & Number(mask >> 32n)) === 0 && (low & Number(mask & 0xffffffffn)) === 0) return at;
  }
  return end;
}
