/**
 * Blobs that come piece by piece and out of order, into a file of their own: hashed as far as they are there without a gap,
 * from memory what comes next, from the file what came ahead of it. No byte is kept in memory for longer than it takes to
 * write it.
 */
import assert from 'node:assert';
import { type Digest, digestKey } from '../../protos/digest.ts';
import { createHasher, type Hasher } from '../../protos/hasher.ts';
import { StatusError, toStatusError } from '../../protos/status.ts';
import type { BlobFiles } from './blob-files.ts';
import type { BlobReading } from './blob-reading.ts';
import type { Arrival, LocalBlobStore } from './blob-store.ts';
import { type DiskStore, fileNeed, isSmall } from './disk-store.ts';
import type { FsFile } from './fs-port.ts';
import { createIntervals } from './intervals.ts';
import * as limits from './limits.ts';
import type { Lease, Space } from './space.ts';

export interface ArrivalsOptions {
  readonly store: DiskStore;
  readonly reading: BlobReading;
  readonly files: BlobFiles;
  readonly space: Space;
}

export function createArrivals({ store, reading, files, space }: ArrivalsOptions): Pick<LocalBlobStore, 'arrive'> {
  return {
    async arrive(digest, { signal } = {}) {
      // A small blob needs no file; it is cheaper to keep its bytes together in memory.
      assert(!isSmall(digest), 'small blobs come whole');
      signal?.throwIfAborted();
      const what = `receiving blob ${digestKey(digest)}`;
      const lease = await space.reserve(fileNeed(digest), what, signal && { signal });
      await using cleanup = new AsyncDisposableStack();
      cleanup.defer(lease.release);
      try {
        const hasher = await createHasher(digest.fn);
        const { path, file } = await files.createTemp();
        cleanup.defer(() => files.removePath(path));
        cleanup.defer(() => file.close());
        const readable = await files.openPath(path);
        cleanup.move();
        return arrivalOf({ digest, path, file, readable, hasher, lease });
      } catch (error) {
        throw toStatusError(error, what);
      }
    },
  };

  function arrivalOf(parts: Parts): Arrival {
    const { digest, path, file, readable, hasher, lease } = parts;
    const { sizeBytes } = digest;
    /** What somebody has brought: the first to bring a byte decides it, or the file could change after it was hashed. */
    const brought = createIntervals();
    const written = createIntervals();
    let hashedTo = 0;
    let hashing: Promise<void> | undefined;
    /** One write at a time: several only wait for each other, and spin while they do. */
    let writing: Promise<void> = Promise.resolve();
    /** A sync that runs ahead of the last one, so that the disk is not idle until the end. */
    let syncing: Promise<void> | undefined;
    let unsyncedBytes = 0;
    let isOver = false;
    let failure: StatusError | undefined;

    function mustBeOpen(): void {
      if (isOver) throw new StatusError('CANCELLED', `${digestKey(digest)} is not received any more`);
    }

    function mustGoOn(): void {
      mustBeOpen();
      if (failure) throw failure;
    }

    async function discard(): Promise<void> {
      if (isOver) return;
      isOver = true;
      await hashing?.catch(() => {});
      await syncing;
      await Promise.allSettled([file.close(), readable.close()]);
      await files.removePath(path).catch(() => {});
      lease.release();
    }

    /** Hashes what came out of order. */
    async function catchUp(): Promise<void> {
      const memory = Buffer.allocUnsafeSlow(limits.readChunkBytes);
      while (hashedTo < written.solidTo() && !isOver) {
        const chunk = memory.subarray(0, Math.min(memory.byteLength, written.solidTo() - hashedTo));
        const count = await readable.read(chunk, hashedTo);
        if (count < chunk.byteLength) throw new StatusError('INTERNAL', 'what was written cannot be read back');
        hasher.update(chunk);
        hashedTo += count;
      }
    }

    function startCatchingUp(): void {
      if (hashing || hashedTo >= written.solidTo()) return;
      hashing = catchUp().finally(() => (hashing = undefined));
      // `finish` comes upon it again.
      hashing.catch(() => {});
    }

    async function writePart(offset: number, chunks: readonly Uint8Array[], length: number): Promise<void> {
      if (offset === hashedTo) {
        // Counted at once: what comes next may come before this is written.
        hashedTo += length;
        for (const chunk of chunks) hasher.update(chunk);
      }
      const write = writing.then(() => file.write(chunks, offset));
      writing = write.catch(() => {});
      await write.catch((error: unknown) => {
        // These bytes count as brought, and nobody will bring them again.
        failure ??= toStatusError(error, `receiving blob ${digestKey(digest)}`);
        throw failure;
      });
      written.add(offset, offset + length);
      startCatchingUp();
      startSyncing(length);
    }

    function startSyncing(length: number): void {
      unsyncedBytes += length;
      if (syncing || unsyncedBytes < limits.syncAheadBytes || isOver) return;
      unsyncedBytes = 0;
      syncing = files
        .sync(file)
        .catch((error: unknown) => {
          // The system tells of a failed write once, and not again at the last sync.
          failure ??= toStatusError(error, `receiving blob ${digestKey(digest)}`);
        })
        .finally(() => (syncing = undefined));
    }

    return {
      digest,
      async write(offset, chunks) {
        const length = lengthOf(chunks);
        if (offset + length > sizeBytes)
          throw new StatusError('INVALID_ARGUMENT', `${digestKey(digest)}: too many bytes`);
        mustGoOn();
        const gaps = brought.gaps(offset, offset + length);
        brought.add(offset, offset + length);
        const [gap] = gaps;
        if (gaps.length === 1 && gap?.[0] === offset && gap[1] === offset + length) {
          await writePart(offset, chunks, length);
          return;
        }
        const bytes = Buffer.concat(chunks, length);
        for (const [from, to] of gaps) await writePart(from, [bytes.subarray(from - offset, to - offset)], to - from);
      },
      async read(offset, length, { memory } = {}) {
        mustBeOpen();
        const chunk = (memory?.take() ?? Buffer.allocUnsafeSlow(length)).subarray(0, length);
        const count = await readable.read(chunk, offset);
        return chunk.subarray(0, count);
      },
      async finish() {
        try {
          mustGoOn();
          if (written.solidTo() < sizeBytes) {
            const reason = `blob ${digestKey(digest)}: only ${written.solidTo()} bytes came`;
            throw new StatusError('INVALID_ARGUMENT', reason);
          }
          await hashing;
          await catchUp();
          await syncing;
          mustGoOn();
          const hex = hasher.hex();
          if (hex !== digest.hash) {
            throw new StatusError('INVALID_ARGUMENT', `blob ${digestKey(digest)}: the bytes that came hash to ${hex}`);
          }
          isOver = true;
          await readable.close();
          if (reading.touch(digest)) {
            await file.close();
            await files.removePath(path);
            lease.release();
          } else {
            await store.landFile(digest, path, file, lease);
          }
        } catch (error) {
          await discard();
          throw toStatusError(error, `storing blob ${digestKey(digest)}`);
        }
      },
      [Symbol.asyncDispose]: discard,
    };
  }
}

function lengthOf(chunks: readonly Uint8Array[]): number {
  return chunks.reduce((sum, chunk) => sum + chunk.byteLength, 0);
}

interface Parts {
  readonly digest: Digest;
  readonly path: string;
  readonly file: FsFile;
  /** The same file, open for reading. */
  readonly readable: FsFile;
  readonly hasher: Hasher;
  readonly lease: Lease;
}
