/**
 * Shows one output stream of a running command as it comes, and in the end exactly the whole of it, each byte once.
 */
import type { Writable } from 'node:stream';
import { once } from 'node:events';
import { ByteStream } from '../../../protos/gen/google/bytestream/bytestream_pb.ts';
import type { Remote } from './transfer.ts';

export interface LiveOutput {
  /** Starts showing the server's stream of this name; later names are ignored. */
  follow(streamName: string): void;
  /** Stops following and writes what of `whole` was not shown yet. */
  finish(whole: AsyncIterable<Uint8Array>): Promise<void>;
}

/** A node keeps the newest part of a log; a reader that fell behind gets this line in place of the rest. */
const gap = /^\n\[potluck: \d+ bytes of this log were not kept\]\n$/;
const gapBytesMax = 100;

export function createLiveOutput(remote: Remote, target: Writable): LiveOutput {
  const stop = new AbortController();
  let shownBytes = 0;
  let following: Promise<void> | undefined;

  const show = async (bytes: Uint8Array): Promise<void> => {
    shownBytes += bytes.byteLength;
    if (!target.write(bytes)) await once(target, 'drain');
  };
  const read = async (resourceName: string): Promise<void> => {
    for await (const { data } of remote.connection.client(ByteStream).read({ resourceName }, { signal: stop.signal })) {
      // From here on only the stored output, read at the end, is complete.
      if (data.byteLength <= gapBytesMax && gap.test(Buffer.from(data).toString())) return;
      await show(data);
    }
  };
  return {
    follow(streamName) {
      // A server that offers no stream after all, or breaks it off, costs only the liveness.
      following ??= read(streamName).catch(() => undefined);
    },
    async finish(whole) {
      stop.abort();
      await following;
      let offset = 0;
      for await (const chunk of whole) {
        const skip = Math.max(0, shownBytes - offset);
        offset += chunk.byteLength;
        if (skip < chunk.byteLength) await show(chunk.subarray(skip));
      }
    },
  };
}
