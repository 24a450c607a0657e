/**
 * Uploads under way, by whole resource name (one uuid may serve several blobs).
 *
 * An upload feeds one `put` of the store. When its call breaks off, the put stays open, so that a later call of the same
 * name can go on where it stopped; how many such uploads wait, how large and how long, is bounded. All uploads of a blob
 * end as soon as one of them has stored it.
 */
import assert from 'node:assert';
import { type Digest, digestKey } from '../../protos/digest.ts';
import { StatusError } from '../../protos/status.ts';
import type { BlobStore } from '../storage/blob-store.ts';
import { limits } from './limits.ts';

export interface Upload {
  readonly digest: Digest;
  /** Bytes of the uncompressed blob that were taken so far. */
  readonly committedBytes: number;
  /** Resolves when the blob is in the store, whoever put it there; rejects when this upload failed. */
  readonly stored: Promise<void>;
  /** Takes the next bytes; resolves when further ones may come. Throws why the store refused. */
  write(chunk: Uint8Array): Promise<void>;
  /** All bytes were written; resolves when the blob is durable. Throws INVALID_ARGUMENT when they are not the blob. */
  finish(): Promise<void>;
}

export interface Uploads {
  /** The upload of that name, new or where it was left. A call that still has it is detached: it gets ABORTED. */
  attach(name: string, digest: Digest): Upload;
  /** Leaves an upload to be resumed; nothing happens when it is over or another call has it. */
  pause(name: string, upload: Upload): void;
  /** Ends an upload and forgets its bytes. */
  drop(name: string, upload: Upload): void;
  /** What `attach` would go on from; `undefined` for an unknown name. */
  committedBytes(name: string): number | undefined;
}

export function createUploads(blobs: BlobStore): Uploads {
  const byName = new Map<string, Feed>();
  const byDigest = new Map<string, Set<Feed>>();
  /** Oldest first. */
  const paused = new Map<string, NodeJS.Timeout>();

  const forget = (name: string, feed: Feed) => {
    if (byName.get(name) === feed) {
      byName.delete(name);
      unpause(name);
    }
    const key = digestKey(feed.digest);
    const others = byDigest.get(key);
    others?.delete(feed);
    if (others?.size === 0) byDigest.delete(key);
  };
  const unpause = (name: string) => {
    clearTimeout(paused.get(name));
    paused.delete(name);
  };
  const abandon = (name: string) => {
    byName.get(name)?.abort(new StatusError('ABORTED', `upload ${name} was not resumed in time`));
  };
  const start = (name: string, digest: Digest): Feed => {
    const feed = createFeed(blobs, digest);
    byName.set(name, feed);
    const key = digestKey(digest);
    const feeds = byDigest.get(key) ?? new Set();
    byDigest.set(key, feeds.add(feed));
    feed.stored
      .then(() => {
        for (const other of feeds) if (other !== feed) other.endAsStored();
      })
      .catch(() => {})
      .finally(() => forget(name, feed));
    return feed;
  };
  const makeRoom = () => {
    // The store keeps room for the whole of each.
    let bytes = 0;
    for (const name of paused.keys()) bytes += byName.get(name)?.digest.sizeBytes ?? 0;
    for (const name of paused.keys()) {
      const fits = paused.size <= limits.pausedUploadsMax && bytes <= limits.pausedUploadBytesMax;
      if (fits || paused.size === 1) return;
      bytes -= byName.get(name)?.digest.sizeBytes ?? 0;
      unpause(name);
      abandon(name);
    }
  };

  return {
    attach(name, digest) {
      const feed = byName.get(name);
      if (!feed) return start(name, digest).detachable();
      unpause(name);
      return feed.detachable();
    },
    pause(name, upload) {
      const feed = byName.get(name);
      if (!feed?.isHeldBy(upload)) return;
      const timer = setTimeout(abandon, limits.pausedUploadMs, name);
      timer.unref();
      paused.set(name, timer);
      makeRoom();
    },
    drop(name, upload) {
      const feed = byName.get(name);
      if (feed?.isHeldBy(upload)) feed.abort(new StatusError('ABORTED', `upload ${name} was given up`));
    },
    committedBytes: (name) => byName.get(name)?.committedBytes,
  };
}

/** One `put` of the store with the means to feed it bytes. */
interface Feed {
  readonly digest: Digest;
  readonly committedBytes: number;
  readonly stored: Promise<void>;
  /** A handle for one call; handles given out before stop working. */
  detachable(): Upload;
  isHeldBy(upload: Upload): boolean;
  /** The blob came into the store by another way. */
  endAsStored(): void;
  abort(reason: StatusError): void;
}

function createFeed(blobs: BlobStore, digest: Digest): Feed {
  const controller = new AbortController();
  const { promise: stored, resolve: settle, reject: fail } = Promise.withResolvers<void>();
  let committedBytes = 0;
  /** One chunk on its way; `undefined` in `next` is the end. */
  let slot: { readonly chunk: Uint8Array | undefined } | undefined;
  let onChange = () => {};
  let settled = false;
  let holder: Upload | undefined;

  const changed = () => {
    const wake = onChange;
    onChange = () => {};
    wake();
  };
  const change = () =>
    new Promise<void>((resolve) => {
      const earlier = onChange;
      onChange = () => {
        earlier();
        resolve();
      };
    });

  async function* content(): AsyncGenerator<Uint8Array> {
    for (;;) {
      while (!slot && !settled) await change();
      // Not the end: what the store has so far may happen to be the whole blob.
      if (!slot || settled) throw new StatusError('ABORTED', 'the upload is over');
      const { chunk } = slot;
      slot = undefined;
      changed();
      if (!chunk) return;
      yield chunk;
    }
  }

  const over = (outcome: () => void) => {
    if (settled) return;
    settled = true;
    outcome();
    changed();
  };
  blobs.put(digest, content(), { signal: controller.signal }).then(
    () => over(settle),
    (error) => over(() => fail(error)),
  );
  // Whoever waits sees the failure; nobody may be waiting.
  stored.catch(() => {});

  const offer = async (chunk: Uint8Array | undefined, upload: Upload) => {
    while (slot && !settled && holder === upload) await change();
    if (settled) return stored;
    if (holder !== upload) throw new StatusError('ABORTED', 'another call goes on with this upload');
    slot = { chunk };
    committedBytes += chunk?.byteLength ?? 0;
    changed();
  };

  return {
    digest,
    get committedBytes() {
      return committedBytes;
    },
    stored,
    detachable() {
      const upload: Upload = {
        digest,
        get committedBytes() {
          return committedBytes;
        },
        stored,
        write(chunk) {
          assert(chunk.byteLength <= digest.sizeBytes - committedBytes, 'an upload was fed more than its blob');
          return offer(chunk, upload);
        },
        async finish() {
          await offer(undefined, upload);
          await stored;
        },
      };
      holder = upload;
      changed();
      return upload;
    },
    isHeldBy: (upload) => holder === upload && !settled,
    endAsStored() {
      over(settle);
      controller.abort(new StatusError('ABORTED', 'the blob was stored by another upload'));
    },
    abort(reason) {
      over(() => fail(reason));
      controller.abort(reason);
    },
  };
}
