/** Where two files differ. */
import * as limits from './limits.ts';

/** A file of known size that can be read anywhere. */
export interface ByteSource {
  readonly sizeBytes: number;
  /** Fewer bytes only at the end. */
  read(offset: number, length: number): Promise<Uint8Array>;
}

export interface FirstDifference {
  readonly offset: number;
  /** From `contextBytes` before it, in hexadecimal with the differing byte marked; shorter at an end of file. */
  readonly one: string;
  readonly other: string;
}

export interface Range {
  readonly offset: number;
  readonly length: number;
}

/** Offset of the first difference from the beginning of both ranges; `undefined` when they are equal. */
export async function compareRanges(
  one: ByteSource,
  oneRange: Range,
  other: ByteSource,
  otherRange: Range,
): Promise<number | undefined> {
  const common = Math.min(oneRange.length, otherRange.length);
  for (let at = 0; at < common; at += limits.chunkBytes) {
    const length = Math.min(limits.chunkBytes, common - at);
    const [a, b] = await Promise.all([
      one.read(oneRange.offset + at, length),
      other.read(otherRange.offset + at, length),
    ]);
    const differing = Buffer.compare(a, b) === 0 ? -1 : a.findIndex((byte, index) => byte !== b[index]);
    if (differing !== -1) return at + differing;
    if (a.byteLength !== b.byteLength) return at + Math.min(a.byteLength, b.byteLength);
  }
  return oneRange.length === otherRange.length ? undefined : common;
}

/** `undefined` when the files are equal. */
export async function firstDifference(one: ByteSource, other: ByteSource): Promise<FirstDifference | undefined> {
  const whole = ({ sizeBytes }: ByteSource): Range => ({ offset: 0, length: sizeBytes });
  const offset = await compareRanges(one, whole(one), other, whole(other));
  if (offset === undefined) return undefined;
  return { offset, one: await around(one, offset), other: await around(other, offset) };
}

async function around(source: ByteSource, offset: number): Promise<string> {
  const from = Math.max(0, offset - limits.contextBytes);
  const bytes = [...(await source.read(from, offset - from + limits.shownBytes))];
  if (offset >= source.sizeBytes) return [...bytes.map(hex), '[end]'].join(' ');
  return bytes.map((byte, index) => (from + index === offset ? `[${hex(byte)}]` : hex(byte))).join(' ');
}

function hex(byte: number): string {
  return byte.toString(16).padStart(2, '0');
}

/** Bytes in memory. */
export function sourceOf(bytes: Uint8Array): ByteSource {
  return { sizeBytes: bytes.byteLength, read: async (offset, length) => bytes.subarray(offset, offset + length) };
}
