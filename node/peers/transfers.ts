/**
 * Moves the bytes of transfers that the fetch planner orders (mesh/core/fetch): many small blobs in one request, large ones
 * in ranges or whole; verified and made durable here, and reported back.
 */
import { type Digest, digestKey } from '../../protos/digest.ts';
import { StatusError } from '../../protos/status.ts';
import type { FetchEffect, FetchEvent, Part, PartOutcome, TransferOutcome } from '../../mesh/core/fetch/types.ts';
import type { DataClient } from '../../mesh/net/data/client.ts';
import { PeerError } from '../../mesh/net/data/errors.ts';
import { createMemory } from '../../mesh/net/data/memory.ts';
import { batchBlobBytesMax, batchBlobsMax, batchBytesMax } from '../../mesh/net/data/limits.ts';
import { parseDigestKey } from '../../mesh/net/data/wire.ts';
import type { LocalBlobStore } from '../storage/blob-store.ts';
import { type ArrivingBlob, createArriving } from './arriving.ts';
import * as limits from './limits.ts';

type TransferEffect = Extract<FetchEffect, { kind: 'transfer' | 'cancelTransfer' | 'assemble' | 'discard' }>;

export interface TransfersOptions {
  readonly client: Pick<DataClient, 'read' | 'readMany'>;
  readonly local: LocalBlobStore;
  /** Tells the planner. Never calls back into `perform` before it returns. */
  readonly report: (event: FetchEvent) => void;
  /** A blob was stored after its transfer had been called off, so that no report tells of it. */
  readonly onUnreported?: (digest: Digest) => void;
}

export interface Transfers {
  perform(effect: TransferEffect): void;
  /** A blob that is being received and can be read meanwhile; not one that already turned out wrong once. */
  readonly arriving: (digest: Digest) => ArrivingBlob | undefined;
  /** The fetch of a blob is over, one way or the other. */
  readonly settled: (blob: string) => void;
  /** Whether a report will tell that the blob is stored. */
  readonly isStoring: (digest: Digest) => boolean;
  close(): Promise<void>;
}

export function createTransfers(options: TransfersOptions): Transfers {
  const { client, local, report, onUnreported = () => {} } = options;
  const running = new Map<number, { readonly abort: AbortController; readonly done: Promise<void> }>();
  const arriving = new Map<string, ArrivingBlob>();
  /** Blobs that come in ranges, one place for all of them. */
  const striped = new Map<string, Promise<ArrivingBlob>>();
  const closing: Promise<void>[] = [];
  /** For the small blobs of one group, one behind the other. */
  const memory = createMemory(limits.storedTogetherBytes + batchBlobBytesMax, limits.groupsFreeMax);
  /** Being stored now. */
  const landing = new Set<string>();
  /** Came wrong while readers followed it. What comes next may be wrong as well, so they wait for the verified whole. */
  const doubted = new Set<string>();

  function doubt(key: string): void {
    doubted.add(key);
    for (const oldest of doubted) {
      if (doubted.size <= limits.doubtedMax) break;
      doubted.delete(oldest);
    }
  }

  async function arrive(digest: Digest): Promise<ArrivingBlob> {
    const blob = createArriving(await local.arrive(digest), local);
    const key = digestKey(digest);
    if (!arriving.has(key)) arriving.set(key, blob);
    return blob;
  }

  function forget(blob: ArrivingBlob): void {
    const key = digestKey(blob.digest);
    if (arriving.get(key) === blob) arriving.delete(key);
  }

  async function finish(blob: ArrivingBlob): Promise<'stored' | 'wrong' | 'noRoom'> {
    landing.add(digestKey(blob.digest));
    try {
      await blob.finish();
      return 'stored';
    } catch (error) {
      return verdictOf(error);
    } finally {
      forget(blob);
    }
  }

  function start(transfer: number, from: string, parts: readonly Part[]): void {
    const abort = new AbortController();
    let receivedBytes = 0;
    let reportedMs = 0;
    const progress = (bytes: number): void => {
      receivedBytes += bytes;
      const nowMs = performance.now();
      if (nowMs - reportedMs < limits.progressMs) return;
      reportedMs = nowMs;
      if (!abort.signal.aborted) report({ kind: 'progress', transfer, receivedBytes });
    };
    const onPart = (blob: string, outcome: PartOutcome): void => {
      if (!abort.signal.aborted) report({ kind: 'part', transfer, blob, outcome });
      else if (outcome === 'stored') onUnreported(parseDigestKey(blob));
      landing.delete(blob);
    };
    const ask: Ask = { from, signal: abort.signal, progress, onPart };
    const done = run(ask, parts).then(
      (outcome) => {
        running.delete(transfer);
        if (!abort.signal.aborted) report({ kind: 'ended', transfer, outcome });
      },
      () => void running.delete(transfer),
    );
    running.set(transfer, { abort, done });
  }

  async function run(ask: Ask, parts: readonly Part[]): Promise<TransferOutcome> {
    try {
      const together = parts.filter(({ whole, lengthBytes }) => whole && lengthBytes <= batchBlobBytesMax);
      for (const batch of batchesOf(together)) await receiveMany(ask, batch);
      for (const part of parts) if (!together.includes(part)) await receiveOne(ask, part);
      return { kind: 'done' };
    } catch (error) {
      if (error instanceof PeerError && error.failure === 'busy') {
        return { kind: 'busy', tryNodes: error.tryPeers, retryAfterMs: error.retryAfterMs ?? limits.busyMs };
      }
      return { kind: 'broken' };
    }
  }

  async function receiveMany({ from, signal, progress, onPart }: Ask, batch: readonly Digest[]): Promise<void> {
    let storing: Promise<void> = Promise.resolve();
    let blobs: { digest: Digest; bytes: Uint8Array }[] = [];
    let bytes = 0;
    let place = memory.take();
    const allocate = (sizeBytes: number): Uint8Array => place.subarray(bytes, bytes + sizeBytes);
    const store = async (some: typeof blobs): Promise<void> => {
      for (const { digest } of some) landing.add(digestKey(digest));
      const outcomes = await local.putMany(some);
      for (const [at, failure] of outcomes.entries()) {
        const { digest } = some[at] as (typeof some)[number];
        onPart(digestKey(digest), failure ? verdictOf(failure) : 'stored');
      }
    };
    const flush = async (): Promise<void> => {
      const [some, full] = [blobs, place];
      blobs = [];
      bytes = 0;
      place = memory.take();
      // One group is stored while the next comes in.
      await storing;
      storing = store(some).finally(() => memory.give(full));
      storing.catch(() => {});
    };
    try {
      for await (const one of client.readMany(from, batch, { signal, urgency: 'build', allocate })) {
        if (!one.bytes) {
          onPart(digestKey(one.digest), 'absent');
          continue;
        }
        blobs.push({ digest: one.digest, bytes: one.bytes });
        bytes += one.bytes.byteLength;
        progress(one.bytes.byteLength);
        if (blobs.length >= limits.storedTogether || bytes >= limits.storedTogetherBytes) await flush();
      }
    } finally {
      await flush();
      await storing;
      memory.give(place);
    }
  }

  async function receiveOne(ask: Ask, part: Part): Promise<void> {
    const { onPart } = ask;
    const digest = parseDigestKey(part.blob);
    let blob: ArrivingBlob;
    try {
      blob = await (part.whole ? arrive(digest) : placeOf(digest));
    } catch (error) {
      onPart(part.blob, verdictOf(error));
      return;
    }
    let isWhole = false;
    try {
      await receiveBytes(ask, part, digest, blob);
      isWhole = true;
    } catch (error) {
      if (error instanceof PeerError && error.failure === 'missing') return onPart(part.blob, 'absent');
      if (error instanceof PeerError && error.failure === 'lied') return onPart(part.blob, 'wrong');
      throw error;
    } finally {
      if (part.whole && !isWhole) {
        forget(blob);
        await blob.drop();
      }
    }
    if (!part.whole) return onPart(part.blob, 'arrived');
    const outcome = await finish(blob);
    onPart(part.blob, outcome);
  }

  function placeOf(digest: Digest): Promise<ArrivingBlob> {
    const key = digestKey(digest);
    const place = striped.get(key) ?? arrive(digest);
    striped.set(key, place);
    place.catch(() => striped.delete(key));
    return place;
  }

  async function receiveBytes(ask: Ask, part: Part, digest: Digest, blob: ArrivingBlob): Promise<void> {
    const { from, signal, progress } = ask;
    const range = { offset: part.offset, length: part.lengthBytes };
    const isAll = part.offset === 0 && part.lengthBytes === digest.sizeBytes;
    await using answer = await client.read(from, digest, isAll ? undefined : range, { signal, urgency: 'build' });
    const writes: Promise<void>[] = [];
    let at = part.offset;
    for await (const bytes of answer.bytes) {
      const write = blob.write(at, bytes).finally(() => answer.done(bytes));
      write.catch(() => {});
      at += bytes.byteLength;
      progress(bytes.byteLength);
      writes.push(write);
      if (writes.length > limits.writesAhead) await writes.shift();
    }
    await Promise.all(writes);
  }

  async function discard(key: string): Promise<void> {
    const place = striped.get(key);
    striped.delete(key);
    const blob = await place?.catch(() => undefined);
    if (!blob) return;
    forget(blob);
    await blob.drop();
  }

  async function assemble(key: string): Promise<void> {
    const blob = await striped.get(key)?.catch(() => undefined);
    striped.delete(key);
    const outcome = blob ? await finish(blob) : 'noRoom';
    if (outcome === 'wrong') doubt(key);
    report({ kind: 'assembled', blob: key, outcome });
    landing.delete(key);
  }

  function settle(work: Promise<void>): void {
    closing.push(work);
    void work.finally(() => closing.splice(closing.indexOf(work), 1));
  }

  return {
    perform(effect) {
      switch (effect.kind) {
        case 'transfer':
          start(effect.transfer, effect.from, effect.parts);
          return;
        case 'cancelTransfer': {
          const cancelled = running.get(effect.transfer);
          running.delete(effect.transfer);
          cancelled?.abort.abort();
          if (cancelled) settle(cancelled.done);
          return;
        }
        case 'assemble':
          settle(assemble(effect.blob));
          return;
        case 'discard':
          settle(discard(effect.blob));
          return;
        default:
          effect satisfies never;
      }
    },
    arriving(digest) {
      const key = digestKey(digest);
      return doubted.has(key) ? undefined : arriving.get(key);
    },
    settled: (blob) => void doubted.delete(blob),
    isStoring: (digest) => landing.has(digestKey(digest)),
    async close() {
      for (const { abort } of running.values()) abort.abort();
      await Promise.allSettled([...running.values()].map(({ done }) => done));
      await Promise.allSettled([...striped.keys()].map(discard));
      await Promise.allSettled(closing);
    },
  };
}

interface Ask {
  readonly from: string;
  readonly signal: AbortSignal;
  readonly progress: (bytes: number) => void;
  readonly onPart: (blob: string, outcome: PartOutcome) => void;
}

/** Within what one request may ask for. */
function batchesOf(parts: readonly Part[]): Digest[][] {
  const batches: Digest[][] = [];
  let batch: Digest[] = [];
  let bytes = 0;
  for (const { blob, lengthBytes } of parts) {
    if (batch.length >= batchBlobsMax || bytes + lengthBytes > batchBytesMax) {
      batches.push(batch);
      batch = [];
      bytes = 0;
    }
    batch.push(parseDigestKey(blob));
    bytes += lengthBytes;
  }
  return batch.length > 0 ? [...batches, batch] : batches;
}

/** What is wrong with the bytes is the holder's fault; anything else is this node's own trouble. */
function verdictOf(error: unknown): 'wrong' | 'noRoom' {
  return error instanceof StatusError && error.code === 'INVALID_ARGUMENT' ? 'wrong' : 'noRoom';
}
