/**
 * gRPC's message framing: one byte of flags, four bytes of length, the message.
 *
 * @see gRPC over HTTP/2, "Length-Prefixed-Message"
 */
import { promisify } from 'node:util';
import { gunzip, inflate } from 'node:zlib';
import { StatusError, toStatusError } from '../../protos/status.ts';

const headerBytes = 5;
/** Smaller pieces of a message are gathered in buffers: each would keep the memory that it arrived in, many times its size. */
const pieceBytesMin = 2 * 1024;
const gatherBytes = 16 * 1024;
/** Up to here a message is copied behind its header; above, header and message are written one after the other. */
const copiedBytesMax = 64 * 1024;

export interface FramedMessage {
  readonly compressed: boolean;
  /** The bytes in the pieces in which they arrived; never none. */
  readonly parts: readonly Uint8Array[];
  readonly sizeBytes: number;
}

export interface FrameDecoder {
  /** Takes what arrived; returns the messages it completes. Throws RESOURCE_EXHAUSTED for one that is too large. */
  push(chunk: Buffer): FramedMessage[];
  /** Bytes of an unfinished message that are held, its header included. */
  readonly heldBytes: number;
}

/** Copies nothing but small pieces; the bytes of messages are valid for good. */
export function createFrameDecoder(messageBytesMax: number): FrameDecoder {
  const header = Buffer.alloc(headerBytes);
  let headerSeen = 0;
  let parts: Uint8Array[] = [];
  let sizeBytes = 0;
  let missingBytes = 0;
  /** The free rest of a buffer for small pieces, and where the last part in it began. */
  let gather = Buffer.alloc(0);
  let gatheredBytes = 0;

  const endGathered = () => {
    if (gatheredBytes > 0) parts.push(gather.subarray(0, gatheredBytes));
    gather = gather.subarray(gatheredBytes);
    gatheredBytes = 0;
  };
  const addPiece = (piece: Buffer) => {
    if (piece.byteLength >= pieceBytesMin || piece.byteLength === sizeBytes) {
      endGathered();
      parts.push(piece);
      return;
    }
    if (gatheredBytes + piece.byteLength > gather.byteLength) {
      endGathered();
      gather = Buffer.allocUnsafeSlow(Math.min(gatherBytes, missingBytes));
    }
    gatheredBytes += piece.copy(gather, gatheredBytes);
  };

  return {
    push(chunk) {
      const messages: FramedMessage[] = [];
      let position = 0;
      while (position < chunk.byteLength) {
        if (headerSeen < headerBytes) {
          const taken = Math.min(headerBytes - headerSeen, chunk.byteLength - position);
          chunk.copy(header, headerSeen, position, position + taken);
          headerSeen += taken;
          position += taken;
          if (headerSeen < headerBytes) break;
          sizeBytes = header.readUInt32BE(1);
          missingBytes = sizeBytes;
          if (sizeBytes > messageBytesMax) {
            const reason = `a message of ${sizeBytes} bytes is larger than the limit of ${messageBytesMax}`;
            throw new StatusError('RESOURCE_EXHAUSTED', reason);
          }
        }
        const taken = Math.min(missingBytes, chunk.byteLength - position);
        if (taken > 0 || sizeBytes === 0) addPiece(chunk.subarray(position, position + taken));
        position += taken;
        missingBytes -= taken;
        if (missingBytes > 0) break;
        endGathered();
        messages.push({ compressed: ((header[0] as number) & 1) === 1, parts, sizeBytes });
        parts = [];
        headerSeen = 0;
      }
      return messages;
    },
    get heldBytes() {
      return headerSeen < headerBytes ? headerSeen : headerBytes + sizeBytes - missingBytes;
    },
  };
}

/** The bytes in one piece. */
export function joinParts(parts: readonly Uint8Array[]): Uint8Array {
  return parts.length === 1 ? (parts[0] as Uint8Array) : Buffer.concat(parts);
}

/** The buffers to write for a message made of `parts`; large parts are not copied. */
export function frameMessage(parts: readonly Uint8Array[]): readonly Uint8Array[] {
  let length = 0;
  for (const part of parts) length += part.byteLength;
  const copied = length <= copiedBytesMax ? parts.length : countLeading(parts);
  let copiedBytes = 0;
  for (let index = 0; index < copied; index += 1) copiedBytes += (parts[index] as Uint8Array).byteLength;
  const head = Buffer.allocUnsafe(headerBytes + copiedBytes);
  head[0] = 0;
  head.writeUInt32BE(length, 1);
  let position = headerBytes;
  for (let index = 0; index < copied; index += 1) {
    const part = parts[index] as Uint8Array;
    head.set(part, position);
    position += part.byteLength;
  }
  return copied === parts.length ? [head] : [head, ...parts.slice(copied)];
}

/** How many of the first parts are small enough to travel with the header. */
function countLeading(parts: readonly Uint8Array[]): number {
  const large = parts.findIndex((part) => part.byteLength > 1024);
  return large === -1 ? parts.length : large;
}

const gunzipAsync = promisify(gunzip);
const inflateAsync = promisify(inflate);

/** Undoes gRPC-level compression, bounded. Throws UNIMPLEMENTED for an unknown encoding, INVALID_ARGUMENT for bad bytes. */
export async function decompressMessage(
  bytes: Uint8Array,
  encoding: string | undefined,
  messageBytesMax: number,
): Promise<Uint8Array> {
  const decompress = encoding === 'gzip' ? gunzipAsync : encoding === 'deflate' ? inflateAsync : undefined;
  if (!decompress) {
    throw new StatusError(
      'UNIMPLEMENTED',
      `grpc-encoding "${encoding}" is not supported; use identity, gzip or deflate`,
    );
  }
  try {
    return await decompress(bytes, { maxOutputLength: messageBytesMax });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ERR_BUFFER_TOO_LARGE') {
      throw new StatusError('RESOURCE_EXHAUSTED', `a message inflates to more than ${messageBytesMax} bytes`);
    }
    throw new StatusError('INVALID_ARGUMENT', `a message is not valid ${encoding}: ${toStatusError(error).reason}`);
  }
}
