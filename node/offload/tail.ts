/** The newest part of what a command has written, for those who follow it from another machine. */
import * as limits from './limits.ts';

export interface Tail {
  write(chunk: Uint8Array): void;
  /** Bytes from `offset` on, at most `maxBytes`; from further on when older ones were not kept. */
  read(offset: number, maxBytes: number): { readonly offset: number; readonly bytes: Uint8Array };
  /** How much was written in all. */
  readonly endOffset: number;
}

/** @param onWrite - called after each write */
export function createTail(onWrite: () => void, bytesMax: number = limits.tailBytesMax): Tail {
  let kept = Buffer.alloc(0);
  let endOffset = 0;
  return {
    write(chunk) {
      endOffset += chunk.byteLength;
      kept = Buffer.concat([kept, chunk]);
      // Cut seldom: a chatty command writes little at a time.
      if (kept.byteLength > 2 * bytesMax) kept = Buffer.from(kept.subarray(-bytesMax));
      onWrite();
    },
    read(offset, maxBytes) {
      const from = Math.min(Math.max(offset, endOffset - kept.byteLength), endOffset);
      const at = from - (endOffset - kept.byteLength);
      return { offset: from, bytes: kept.subarray(at, at + maxBytes) };
    },
    get endOffset() {
      return endOffset;
    },
  };
}
