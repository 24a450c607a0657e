/**
 * Finds the frames of a zstd stream without decompressing it.
 *
 * Node's decompressor stops silently at the end of a frame, and so would lose what follows it in the same buffer: a
 * further frame, or garbage that has to be refused. Cut at frame boundaries, it handles any number of frames.
 *
 * @see RFC 8878, section 3.1
 */
import { StatusError } from '../../protos/status.ts';

export interface FrameSplitter {
  /**
   * Takes what arrived; returns the pieces to decompress, in order, none of which crosses a frame boundary: whole frames
   * when the chunk holds whole frames. Skippable frames are left out. Throws INVALID_ARGUMENT for what is no zstd.
   */
  push(chunk: Uint8Array): Uint8Array[];
  /** Throws INVALID_ARGUMENT when the input ends inside a frame, or held none. */
  end(): void;
  /** Frames begun so far, skippable ones included. */
  readonly frames: number;
}

const magic = 0xfd2fb528;
const magicBytes = Uint8Array.of(0x28, 0xb5, 0x2f, 0xfd);
/** The last four bits are free. */
const skippableMagic = 0x184d2a5;

type Part = 'magic' | 'skippable-size' | 'descriptor' | 'header' | 'block-header' | 'block' | 'checksum' | 'skipped';

export function createFrameSplitter(): FrameSplitter {
  let part: Part = 'magic';
  let frames = 0;
  /** What is still to come of the part. */
  let neededBytes = 4;
  /** The part's bytes so far, little-endian, for the parts whose content matters; none of them has more than four. */
  let value = 0;
  let seenBytes = 0;
  let hasChecksum = false;
  let lastBlock = false;

  const enter = (next: Part, bytes: number) => {
    part = next;
    neededBytes = bytes;
    value = 0;
    seenBytes = 0;
  };
  const endBlock = () => {
    if (!lastBlock) enter('block-header', 3);
    else if (hasChecksum) enter('checksum', 4);
    else enter('magic', 4);
  };
  /** The part is complete: decides what follows. */
  const advance = () => {
    switch (part) {
      case 'magic':
        if (value === magic) enter('descriptor', 1);
        else if (value >>> 4 === skippableMagic) enter('skippable-size', 4);
        else
          throw new StatusError(
            'INVALID_ARGUMENT',
            `not zstd: ${frames === 0 ? 'wrong magic number' : 'trailing bytes'}`,
          );
        frames += 1;
        return;
      case 'skippable-size':
        if (value === 0) enter('magic', 4);
        else enter('skipped', value);
        return;
      case 'descriptor': {
        const singleSegment = (value & 0x20) !== 0;
        hasChecksum = (value & 0x04) !== 0;
        const sizeFlag = value >>> 6;
        const sizeBytes = sizeFlag === 0 ? Number(singleSegment) : 1 << sizeFlag;
        const dictionaryBytes = [0, 1, 2, 4][value & 3] as number;
        enter('header', Number(!singleSegment) + dictionaryBytes + sizeBytes);
        return;
      }
      case 'header':
        enter('block-header', 3);
        return;
      case 'block-header': {
        lastBlock = (value & 1) === 1;
        const type = (value >>> 1) & 3;
        if (type === 3) throw new StatusError('INVALID_ARGUMENT', 'not zstd: reserved block type');
        // A run-length block is one byte, whatever its size says.
        const bytes = type === 1 ? 1 : value >>> 3;
        if (bytes === 0) endBlock();
        else enter('block', bytes);
        return;
      }
      case 'block':
        endBlock();
        return;
      case 'checksum':
      case 'skipped':
        enter('magic', 4);
        return;
    }
  };

  return {
    push(chunk) {
      const pieces: Uint8Array[] = [];
      let position = 0;
      /** Where the bytes begin that belong to the present frame and are not in a piece yet. */
      let start = 0;
      const cut = () => {
        if (start < position) pieces.push(chunk.subarray(start, position));
        start = position;
      };
      while (position < chunk.byteLength) {
        const taken = Math.min(neededBytes, chunk.byteLength - position);
        if (part !== 'block' && part !== 'skipped' && part !== 'header' && part !== 'checksum') {
          for (let index = 0; index < taken; index += 1) {
            value = (value | ((chunk[position + index] as number) << (8 * seenBytes))) >>> 0;
            seenBytes += 1;
          }
        }
        position += taken;
        neededBytes -= taken;
        if (neededBytes > 0) continue;
        const over = part;
        advance();
        if (over === 'magic') {
          // Only now it is known whether these four bytes are for the decompressor; they may have come in two chunks.
          start = position;
          if (part === 'descriptor' && position >= 4) start = position - 4;
          else if (part === 'descriptor') pieces.push(magicBytes);
        } else if (over === 'skippable-size' || over === 'skipped') {
          start = position;
        } else if (part === 'magic') {
          cut();
        }
      }
      if (part !== 'magic' && part !== 'skippable-size' && part !== 'skipped') cut();
      return pieces;
    },
    end() {
      if (part !== 'magic' || seenBytes > 0)
        throw new StatusError('INVALID_ARGUMENT', 'zstd: the last frame is cut off');
      if (frames === 0) throw new StatusError('INVALID_ARGUMENT', 'not zstd: no frame');
    },
    get frames() {
      return frames;
    },
  };
}
