/**
 * Single frames on a connection that nobody else reads yet: four bytes of length, big-endian, then so many bytes. What
 * comes after a frame is left for whoever reads next.
 */
import { Buffer } from 'node:buffer';
import type { MessageStream } from '@libp2p/interface';

const headerBytes = 4;

export async function writeFrame(
  connection: MessageStream,
  bytes: Uint8Array,
  { signal }: { readonly signal: AbortSignal },
): Promise<void> {
  const header = Buffer.alloc(headerBytes);
  header.writeUInt32BE(bytes.byteLength);
  if (!connection.send(Buffer.concat([header, bytes]))) await connection.onDrain({ signal });
}

/**
 * Throws when the connection ends first, and at once for a frame that is longer than `maxBytes`. Memory and work are
 * bounded by the frame, in however small pieces it comes.
 */
export async function readFrame(
  connection: MessageStream,
  { maxBytes, signal }: { readonly maxBytes: number; readonly signal: AbortSignal },
): Promise<Uint8Array> {
  const { promise, resolve, reject } = Promise.withResolvers<Uint8Array>();
  let chunks: Uint8Array[] = [];
  let receivedBytes = 0;
  let wantedBytes = headerBytes;

  const onMessage = ({ data }: { readonly data: { readonly byteLength: number; subarray(): Uint8Array } }): void => {
    chunks.push(data.subarray());
    receivedBytes += data.byteLength;
    if (wantedBytes === headerBytes && receivedBytes >= headerBytes) {
      chunks = [Buffer.concat(chunks)];
      const size = (chunks[0] as Buffer).readUInt32BE();
      if (size > maxBytes) return finish(() => reject(new Error(`a frame of ${size} bytes`)));
      wantedBytes = headerBytes + size;
    }
    if (receivedBytes < wantedBytes) return;
    const all = Buffer.concat(chunks);
    finish(() => resolve(all.subarray(headerBytes, wantedBytes)));
    if (all.byteLength > wantedBytes) connection.unshift(all.subarray(wantedBytes));
  };
  const onEnd = (): void => finish(() => reject(new Error('the other end closed the connection')));
  const onAbort = (): void => finish(() => reject(signal.reason as Error));
  function finish(settle: () => void): void {
    connection.removeEventListener('message', onMessage);
    connection.removeEventListener('close', onEnd);
    signal.removeEventListener('abort', onAbort);
    settle();
  }

  connection.addEventListener('message', onMessage);
  connection.addEventListener('close', onEnd);
  signal.addEventListener('abort', onAbort);
  if (signal.aborted) onAbort();
  if (connection.status !== 'open' && connection.readBufferLength === 0) onEnd();
  return promise;
}
