/** A server in memory that has some blobs and log streams: as much of one as reading takes. */
import { digestPath } from '../../../../../protos/digest.ts';
import { digestOf } from '../../../../../protos/hasher.ts';
import { StatusError } from '../../../../../protos/status.ts';
import type { Remote } from '../../../../../node/cli/run/transfer.ts';

export interface MemoryRemote extends Remote {
  /** Stores bytes and returns their digest as messages carry it. */
  add(bytes: Uint8Array): { hash: string; sizeBytes: bigint };
  /** What reading this name yields, message by message. */
  setStream(name: string, messages: AsyncIterable<Uint8Array>): void;
}

export function createMemoryRemote(): MemoryRemote {
  const streams = new Map<string, () => AsyncIterable<Uint8Array>>();
  async function* read({ resourceName }: { resourceName: string }) {
    const stream = streams.get(resourceName);
    if (!stream) throw new StatusError('NOT_FOUND', resourceName);
    for await (const data of stream()) yield { data };
  }
  return {
    connection: { client: () => ({ read }) as never, close: () => {} },
    instance: '',
    batchBytesMax: 1_000_000,
    add(bytes) {
      const digest = digestOf('sha256', bytes);
      streams.set(`blobs/${digestPath(digest)}`, async function* () {
        yield bytes;
      });
      return { hash: digest.hash, sizeBytes: BigInt(digest.sizeBytes) };
    },
    setStream: (name, messages) => void streams.set(name, () => messages),
  };
}
