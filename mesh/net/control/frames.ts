/** Cuts a stream of bytes into frames: each its length in four bytes, big-endian, then so many bytes. */

export interface FrameReader {
  /** The frames that are whole now. Throws for one that is longer than it may be, and whenever it is called after that. */
  push(bytes: Uint8Array): Generator<Uint8Array, void, undefined>;
}

/** Work and memory are bounded by the bytes of the frame, in however small pieces they come. */
export function createFrameReader(maxBytes: number): FrameReader {
  const header = Buffer.alloc(4);
  let headerFilled = 0;
  let frame: Buffer | undefined;
  let filled = 0;

  return {
    *push(bytes) {
      for (let at = 0; at < bytes.byteLength; ) {
        if (!frame) {
          if (headerFilled < header.byteLength) header[headerFilled++] = bytes[at++] as number;
          if (headerFilled < header.byteLength) continue;
          const size = header.readUInt32BE();
          if (size > maxBytes) throw new Error(`a frame of ${size} bytes`);
          frame = Buffer.allocUnsafe(size);
          filled = 0;
        }
        const part = bytes.subarray(at, at + frame.byteLength - filled);
        frame.set(part, filled);
        filled += part.byteLength;
        at += part.byteLength;
        if (filled < frame.byteLength) return;
        const whole = frame;
        frame = undefined;
        headerFilled = 0;
        yield whole;
      }
    },
  };
}
