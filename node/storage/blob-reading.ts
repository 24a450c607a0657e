/** Reading blobs, never handing out bytes that are not theirs: a blob found bad is dropped and is missing from then on. */
import { type Digest, digestKey } from '../../protos/digest.ts';
import { toStatusError, StatusError } from '../../protos/status.ts';
import { BadBlobError, isIntact, readChunks, readHashing } from './blob-content.ts';
import type { BlobFiles } from './blob-files.ts';
import { type Chunk, createChunkLists } from './chunk-lists.ts';
import type { BlobReader, ByteRange, ReadOptions } from './blob-store.ts';
import type { Committer } from './committer.ts';
import type { Counters } from './counters.ts';
import { blobName, type EntryName } from './entry-key.ts';
import type { FileStat, FsFile } from './fs-port.ts';
import * as limits from './limits.ts';
import type { LinkCopies } from './link-copies.ts';
import type { Recency } from './recency.ts';
import type { Residency } from './residency.ts';
import type { StoreIndex } from './store-index.ts';
import { createVerifiedFiles, type VerifiedFiles } from './verified-files.ts';

export interface BlobReading {
  isHeld(digest: Digest): boolean;
  /** Whether a list of chunks stands for it, be they held or not. */
  isList(digest: Digest): boolean;
  /** Whether it is held; if so it was used just now. */
  touch(digest: Digest): boolean;
  /** The blob's name and those of its chunks: what must be pinned for it to stay. */
  partNames(digest: Digest): string[];
  /**
   * The bytes of a small blob, checked; or the open file of a large one, pinned and of the right size; or its chunks, all
   * held and pinned; or `undefined`. Its life is lengthened unless it is opened for another reason than being used.
   */
  open(digest: Digest, how?: { readonly isUse: boolean }): Promise<Uint8Array | OpenBlob | undefined>;
  /** Hashes the files unless that was done before; false when one was bad and has been dropped. */
  verify(open: OpenBlob, signal?: AbortSignal): Promise<boolean>;
  /** Hashes the file in any case. */
  verifyAnew(open: OpenFile, signal?: AbortSignal): Promise<boolean>;
  /** All bytes of the blob, checked, or `undefined` when it was bad and has been dropped. */
  whole(open: OpenBlob): Promise<Uint8Array | undefined>;
  reader(digest: Digest, open: Uint8Array | OpenBlob): BlobReader;
  readonly verified: VerifiedFiles;
}

export type OpenBlob = OpenFile | OpenChunks;

interface OpenChunks extends AsyncDisposable {
  readonly digest: Digest;
  readonly chunks: readonly Chunk[];
}

export function isChunked(open: OpenBlob): open is OpenChunks {
  return 'chunks' in open;
}

interface OpenFile extends AsyncDisposable {
  readonly digest: Digest;
  readonly file: FsFile;
  readonly stat: FileStat;
}

export interface BlobReadingOptions {
  readonly index: StoreIndex;
  readonly committer: Committer;
  readonly recency: Recency;
  readonly residency: Residency;
  readonly files: BlobFiles;
  readonly linkCopies: LinkCopies;
  readonly counters: Counters;
  readonly onWarning: (text: string) => void;
}

export function createBlobReading(options: BlobReadingOptions): BlobReading {
  const { index, committer, recency, residency, files, linkCopies, counters, onWarning } = options;
  const verified = createVerifiedFiles();
  const lists = createChunkLists(index);

  /** Of a held blob: its chunks, if it is kept so; `false` when one of them is gone, and with it the blob. */
  function chunksOf(digest: Digest, name: EntryName): readonly Chunk[] | undefined | false {
    const chunks = lists.of(digest, name);
    if (!chunks || (chunks.length > 0 && chunks.every((chunk) => residency.has(chunk.name)))) return chunks;
    const removal = committer.commit([{ kind: 'remove', key: name.key }]).then(() => linkCopies.drop(digest));
    residency.leave(name.text, removal);
    return false;
  }

  function use(name: EntryName, chunks: readonly Chunk[] | undefined): void {
    recency.touch(name);
    for (const chunk of chunks ?? []) recency.touch(chunk.name);
  }

  function openChunks(digest: Digest, { text }: EntryName, chunks: readonly Chunk[]): OpenChunks {
    const texts = [text, ...chunks.map((chunk) => chunk.name.text)];
    for (const part of texts) residency.pin(part);
    return {
      digest,
      chunks,
      [Symbol.asyncDispose]: async () => {
        for (const part of texts.splice(0)) residency.unpin(part);
      },
    };
  }

  /** Drops a blob whose file `inode` is bad, or is gone; what took its place since, file or list, is left alone. */
  async function dropFile(digest: Digest, why: string, inode: bigint | undefined): Promise<void> {
    const now = await inodeNow(digest);
    if (now === inode && index.find(blobName(digest).key)?.place === 'file') await drop(digest, why);
  }

  async function drop(digest: Digest, why: string): Promise<void> {
    const name = blobName(digest);
    if (!residency.has(name)) return;
    counters.badBlobs++;
    onWarning(`blob ${digestKey(digest)} was bad on disk and has been dropped: ${why}`);
    const removal = (async () => {
      await committer.commit([{ kind: 'remove', key: name.key }]);
      await files.remove(digest);
      await linkCopies.drop(digest);
    })();
    residency.leave(name.text, removal);
    await removal;
  }

  async function inodeNow(digest: Digest): Promise<bigint | undefined> {
    const file = await files.openRead(digest);
    if (!file) return undefined;
    try {
      return (await file.stat()).inode;
    } finally {
      await file.close();
    }
  }

  async function openFile(digest: Digest): Promise<OpenFile | undefined> {
    const { text } = blobName(digest);
    residency.pin(text);
    await using cleanup = new AsyncDisposableStack();
    cleanup.defer(() => residency.unpin(text));
    const file = await files.openRead(digest);
    if (!file) {
      await dropFile(digest, 'its file is gone', undefined);
      return undefined;
    }
    cleanup.defer(() => file.close());
    const stat = await file.stat();
    if (stat.kind !== 'file' || stat.sizeBytes !== digest.sizeBytes) {
      await dropFile(digest, `its file has ${stat.sizeBytes} bytes`, stat.inode);
      return undefined;
    }
    const held = cleanup.move();
    return { digest, file, stat, [Symbol.asyncDispose]: () => held.disposeAsync() };
  }

  async function verifyAnew(open: OpenFile, signal?: AbortSignal): Promise<boolean> {
    try {
      for await (const _ of readHashing(open.file, open.digest, signal && { signal }));
    } catch (error) {
      if (!(error instanceof BadBlobError)) throw error;
      await dropFile(open.digest, error.message, open.stat.inode);
      return false;
    }
    verified.add(blobName(open.digest).text, open.stat);
    return true;
  }

  const isVerified = (open: OpenFile): boolean => verified.isVerified(blobName(open.digest).text, open.stat);
  async function verify(open: OpenBlob, signal?: AbortSignal): Promise<boolean> {
    if (!isChunked(open)) return isVerified(open) || verifyAnew(open, signal);
    for (const { digest } of open.chunks) {
      const chunk = await openBlob(digest, { isUse: false });
      if (!chunk) return false;
      if (chunk instanceof Uint8Array) continue;
      await using file = chunk;
      if (!(await verify(file, signal))) return false;
    }
    return true;
  }

  async function* readParts(open: OpenChunks, range: ByteRange, options: ReadOptions = {}): AsyncGenerator<Uint8Array> {
    const end = range.offset + range.length;
    const isAll = range.offset === 0 && end >= open.digest.sizeBytes;
    let start = 0;
    for (const { digest } of open.chunks) {
      const from = Math.max(range.offset - start, 0);
      const length = Math.min(end - start, digest.sizeBytes) - from;
      start += digest.sizeBytes;
      if (length <= 0) continue;
      const chunk = await openBlob(digest, { isUse: false });
      if (!chunk) throw notFound(open.digest);
      await using part = reader(digest, chunk);
      // As with files: of a part nothing leaves that was not hashed.
      const isSound = isAll || chunk instanceof Uint8Array || (await verify(chunk, options.signal));
      if (!isSound) throw notFound(open.digest);
      yield* part.read({ offset: from, length }, options);
    }
  }

  async function* readFile(open: OpenFile, range: ByteRange, options: ReadOptions): AsyncGenerator<Uint8Array> {
    const { digest, file } = open;
    const end = Math.min(range.offset + range.length, digest.sizeBytes);
    try {
      if (isVerified(open)) {
        yield* readChunks(file, range.offset, end, options);
      } else if (range.offset === 0 && end === digest.sizeBytes) {
        yield* readHashing(file, digest, options);
        verified.add(blobName(digest).text, open.stat);
      } else {
        // A part proves nothing by itself.
        if (!(await verifyAnew(open, options.signal))) throw notFound(digest);
        yield* readChunks(file, range.offset, end, options);
      }
    } catch (error) {
      if (!(error instanceof BadBlobError)) throw toStatusError(error, `reading blob ${digestKey(digest)}`);
      await dropFile(digest, error.message, open.stat.inode);
      throw notFound(digest);
    }
  }

  async function openBlob(digest: Digest, { isUse } = { isUse: true }): Promise<Uint8Array | OpenBlob | undefined> {
    const name = blobName(digest);
    const entry = residency.has(name) ? index.find(name.key) : undefined;
    const chunks = entry && chunksOf(digest, name);
    if (!entry || chunks === false) return undefined;
    if (isUse) use(name, chunks);
    if (chunks) return openChunks(digest, name, chunks);
    if (entry.place === 'file') {
      return openFile(digest).catch((error: unknown) => {
        throw toStatusError(error, `reading blob ${digestKey(digest)}`);
      });
    }
    const bytes = index.value(entry);
    if (bytes && isIntact(digest, bytes)) return bytes;
    await drop(digest, 'its value in the index is damaged');
    return undefined;
  }

  function reader(digest: Digest, open: Uint8Array | OpenBlob): BlobReader {
    const isBytes = open instanceof Uint8Array;
    return {
      digest,
      read: (range = { offset: 0, length: digest.sizeBytes }, readOptions = {}) => {
        if (isBytes) return bytesOf(open, range);
        return isChunked(open) ? readParts(open, range, readOptions) : readFile(open, range, readOptions);
      },
      [Symbol.asyncDispose]: async () => {
        if (!isBytes) await open[Symbol.asyncDispose]();
      },
    };
  }

  return {
    verified,
    reader,
    open: openBlob,
    isHeld(digest) {
      const name = blobName(digest);
      return residency.has(name) && chunksOf(digest, name) !== false;
    },
    isList: (digest) => lists.of(digest, blobName(digest)) !== undefined,
    touch(digest) {
      const name = blobName(digest);
      if (!residency.has(name)) return false;
      if (digest.sizeBytes <= limits.chunkBytesMax) {
        recency.touch(name);
        return true;
      }
      const chunks = chunksOf(digest, name);
      if (chunks === false) return false;
      use(name, chunks);
      return true;
    },
    partNames(digest) {
      const name = blobName(digest);
      return [name.text, ...(lists.of(digest, name) ?? []).map((chunk) => chunk.name.text)];
    },
    verify,
    verifyAnew,
    async whole(open) {
      const { digest } = open;
      if (isChunked(open)) {
        const parts: Uint8Array[] = [];
        try {
          for await (const part of readParts(open, { offset: 0, length: digest.sizeBytes })) parts.push(part);
        } catch (error) {
          if (error instanceof StatusError && error.code === 'NOT_FOUND') return undefined;
          throw error;
        }
        return Buffer.concat(parts, digest.sizeBytes);
      }
      const bytes = Buffer.allocUnsafeSlow(digest.sizeBytes);
      // What cannot be read is as bad as what reads wrong.
      const count = await open.file.read(bytes, 0).catch((error: NodeJS.ErrnoException) => {
        if (error.code !== 'EIO') throw toStatusError(error, `reading blob ${digestKey(digest)}`);
        return 0;
      });
      if (count === digest.sizeBytes && isVerified(open)) return bytes;
      if (!isIntact(digest, bytes.subarray(0, count))) {
        await dropFile(digest, 'its bytes hash to something else', open.stat.inode);
        return undefined;
      }
      verified.add(blobName(digest).text, open.stat);
      return bytes;
    },
  };
}

async function* bytesOf(bytes: Uint8Array, { offset, length }: ByteRange): AsyncGenerator<Uint8Array> {
  const part = bytes.subarray(offset, offset + length);
  if (part.byteLength > 0) yield part;
}

function notFound(digest: Digest): StatusError {
  return new StatusError(
    'NOT_FOUND',
    `blob ${digestKey(digest)} was bad on disk and has been dropped; upload it again`,
  );
}
