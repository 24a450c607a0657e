/** Keeps what a command writes to one stream: in memory while it is little, in a file when it is more, up to a cap. */
import { closeSync, openSync, writeSync } from 'node:fs';
import type { Digest, DigestFunction } from '../protos/digest.ts';
import { digestOf } from '../protos/hasher.ts';
import { captureBytesMax, captureMemoryBytesMax } from './limits.ts';
import type { SandboxBlobs } from './sandbox.ts';

export interface Capture {
  /** Blocks while it writes to the file, which is what slows down a command that floods. */
  write(chunk: Uint8Array): void;
  /** All of it when it is still in memory, for looking at short texts. */
  text(): string | undefined;
  /** Ends the capture and stores it; `undefined` when nothing was written. A small one is left for `pending`. */
  store(fn: DigestFunction, blobs: SandboxBlobs): Promise<StoredCapture | undefined>;
  /** Gives up the file; safe at any time. */
  readonly discard: () => void;
}

export interface StoredCapture {
  readonly digest: Digest;
  /** Bytes the caller has to store, together with other small blobs; absent when the blob is stored already. */
  readonly bytes?: Uint8Array;
}

const defaultBounds = { memoryBytes: captureMemoryBytesMax, totalBytes: captureBytesMax };

/**
 * @param path - where the file is made when one is needed
 * @param name - `stdout` or `stderr`, for the line that ends a stream which was cut
 */
export function createCapture(path: string, name: string, bounds = defaultBounds): Capture {
  let chunks: Uint8Array[] = [];
  let bytes = 0;
  let file: number | undefined;
  let cut = false;

  const keep = (chunk: Uint8Array) => {
    bytes += chunk.byteLength;
    if (file === undefined && bytes <= bounds.memoryBytes) {
      chunks.push(chunk);
      return;
    }
    if (file === undefined) {
      file = openSync(path, 'wx', 0o644);
      for (const earlier of chunks) writeWhole(file, earlier);
      chunks = [];
    }
    writeWhole(file, chunk);
  };
  const close = () => {
    if (file !== undefined) closeSync(file);
    file = undefined;
  };

  return {
    write(chunk) {
      if (cut) return;
      const room = bounds.totalBytes - bytes;
      if (chunk.byteLength <= room) return keep(chunk);
      keep(chunk.subarray(0, room));
      keep(Buffer.from(`\n[potluck: ${name} was cut here, after ${bounds.totalBytes} bytes]\n`));
      cut = true;
    },
    text: () => (file === undefined ? Buffer.concat(chunks).toString() : undefined),
    async store(fn, blobs) {
      if (bytes === 0) return undefined;
      if (file !== undefined) {
        close();
        return { digest: await blobs.putFile(fn, path, { move: true }) };
      }
      const whole = Buffer.concat(chunks);
      return { digest: digestOf(fn, whole), bytes: whole };
    },
    discard: close,
  };
}

function writeWhole(file: number, chunk: Uint8Array): void {
  for (let offset = 0; offset < chunk.byteLength; ) offset += writeSync(file, chunk, offset);
}
