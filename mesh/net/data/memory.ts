/**
 * Memory for what comes in, used again and again: TLS brings 16 KiB at a time, and as much fresh memory for each would keep
 * the garbage collector as busy as everything else together (ADR 31).
 */
import * as limits from './limits.ts';

export interface Memory {
  /** A piece of it, with anything in it. */
  readonly take: () => Uint8Array;
  /** What was taken, or a part of it, is needed no more. What is never given back is garbage like any other. */
  readonly give: (bytes: Uint8Array) => void;
}

/** @param pieceBytes - what is taken at a time */
export function createMemory(
  pieceBytes: number = limits.gatherBytes,
  freeMax: number = limits.gatheredFreeMax,
): Memory {
  const free: ArrayBuffer[] = [];
  const taken = new WeakSet<ArrayBuffer>();
  return {
    take() {
      const buffer = free.pop() ?? new ArrayBuffer(pieceBytes);
      taken.add(buffer);
      return new Uint8Array(buffer);
    },
    give({ buffer }) {
      // Given back twice it would be filled by two at once.
      if (!(buffer instanceof ArrayBuffer) || !taken.delete(buffer)) return;
      if (free.length < freeMax) free.push(buffer);
    },
  };
}
