/**
 * gRPC's message framing: one byte of flags, four bytes of length, the message.
 *
 * @see gRPC over HTTP/2, "Length-Prefixed-Message"
 */
import { promisify } from 'node:util';
import { gunzip, inflate } from 'node:zlib';
import { StatusError, toStatusError } from '../../protos/status.ts';

const headerBytes = 5;
/** Up to here a message is copied behind its header; above, header and message are written one after the other. */
const copiedBytesMax = 64 * 1024;

export interface FramedMessage {
  readonly compressed: boolean;
  readonly bytes: Uint8Array;
}

export interface FrameDecoder {
  /** Takes what arrived; returns the messages it completes. Throws RESOURCE_EXHAUSTED for one that is too large. */
  push(chunk: Buffer): FramedMessage[];
  /** Whether bytes of an unfinished message are held. */
  readonly partial: boolean;
}

/** A message that arrived in one chunk is handed on without a copy; its bytes are valid for good either way. */
export function createFrameDecoder(messageBytesMax: number): FrameDecoder {
  let held: Buffer[] = [];
  let heldBytes = 0;
  /** Bytes of header and message that are needed before `held` is worth looking at again. */
  let neededBytes = headerBytes;

  return {
    push(chunk) {
      heldBytes += chunk.byteLength;
      if (heldBytes < neededBytes) {
        held.push(chunk);
        return [];
      }
      const buffer = held.length === 0 ? chunk : Buffer.concat([...held, chunk], heldBytes);
      const messages: FramedMessage[] = [];
      let position = 0;
      for (;;) {
        const available = buffer.byteLength - position;
        neededBytes = headerBytes;
        if (available < headerBytes) break;
        const length = buffer.readUInt32BE(position + 1);
        if (length > messageBytesMax) {
          throw new StatusError(
            'RESOURCE_EXHAUSTED',
            `a message of ${length} bytes is larger than the limit of ${messageBytesMax}`,
          );
        }
        neededBytes = headerBytes + length;
        if (available < neededBytes) break;
        const flags = buffer[position] as number;
        const start = position + headerBytes;
        position = start + length;
        messages.push({ compressed: (flags & 1) === 1, bytes: buffer.subarray(start, position) });
      }
      held = position === buffer.byteLength ? [] : [position === 0 ? buffer : buffer.subarray(position)];
      heldBytes = buffer.byteLength - position;
      return messages;
    },
    get partial() {
      return heldBytes > 0;
    },
  };
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
