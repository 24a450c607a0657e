/**
 * Makes the machine's promises true on this disk: while it has a blob pinned, the store keeps that blob, and when the blob
 * is a result, everything that the result names. The machine decides what is promised, for how long and within which
 * budget (mesh/core/promises); what it pinned before a restart is held again when the node is back.
 */
import { fromBinary } from '@bufbuild/protobuf';
import type { BlobKey } from '../../mesh/core/ids.ts';
import { parseDigestKey } from '../../mesh/net/data/wire.ts';
import type { Digest } from '../../protos/digest.ts';
import { ActionResultSchema } from '../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { ResultStatementSchema, VouchedResultSchema } from '../../protos/gen/potluck/mesh/v1/results_pb.ts';
import { StatusError } from '../../protos/status.ts';
import type { LocalBlobStore, Pin } from '../storage/blob-store.ts';
import { createResultClosures } from '../storage/result-closure.ts';
import * as limits from './limits.ts';

export interface PromiseHolder {
  /**
   * Keeps blobs from eviction from now on, under the name that the machine will pin; false, and nothing kept, when some
   * are not here. What the machine has not pinned within `unpromisedMs` is let go.
   */
  hold(name: BlobKey, digests: readonly Digest[]): Promise<boolean>;
  /** The machine pinned it. */
  onPinned(name: BlobKey): void;
  /** Results whose blobs are kept. */
  size(): number;
  close(): void;
}

export interface PromiseHolderOptions {
  /** This disk alone. */
  readonly local: Pick<LocalBlobStore, 'get' | 'pin'>;
  /** Whatever the machine has pinned now. */
  readonly pinned: () => Iterable<{ readonly blob: BlobKey }>;
  /** A promise that cannot be kept, because blobs are gone; a sentence. */
  readonly onBroken: (reason: string) => void;
  readonly nowMs?: () => number;
}

interface Held {
  readonly pin: Pin;
  readonly sinceMs: number;
}

export function createPromiseHolder(options: PromiseHolderOptions): PromiseHolder {
  const { local, pinned, onBroken, nowMs = () => performance.now() } = options;
  const held = new Map<BlobKey, Held>();
  const taking = new Set<BlobKey>();
  const broken = new Set<BlobKey>();
  let isClosed = false;

  async function hold(name: BlobKey, digests: readonly Digest[]): Promise<boolean> {
    if (held.has(name)) return true;
    const pin = await local.pin(digests);
    if (pin.missing.length > 0 || isClosed || held.has(name)) {
      const isComplete = pin.missing.length === 0;
      pin[Symbol.dispose]();
      return isComplete;
    }
    held.set(name, { pin, sinceMs: nowMs() });
    return true;
  }

  /** The blob, and what it names if it is a result. */
  async function closureOf(name: BlobKey): Promise<Digest[]> {
    const digest = parseDigestKey(name);
    const bytes = digest.sizeBytes <= limits.resultBytesMax ? await local.get(digest) : undefined;
    const result = bytes && resultIn(bytes);
    if (!result) return [digest];
    const { needed, missing } = await createResultClosures(local).of(result, digest.fn);
    return [digest, ...needed, ...missing];
  }

  async function take(name: BlobKey): Promise<void> {
    if (held.has(name) || taking.has(name) || broken.has(name)) return;
    taking.add(name);
    try {
      if (await hold(name, await closureOf(name))) return;
      broken.add(name);
      onBroken(`blobs of ${name}, which this node promised to keep, are gone`);
    } catch (error) {
      // Not a result after all: the blob itself is what was promised.
      if (!(error instanceof StatusError)) throw error;
      await hold(name, [parseDigestKey(name)]);
    } finally {
      taking.delete(name);
    }
  }

  /** Lets go of what is not promised any more, and holds what is. */
  function look(): void {
    const names = new Set<BlobKey>();
    for (const { blob } of pinned()) names.add(blob);
    const before = nowMs() - limits.unpromisedMs;
    for (const [name, { pin, sinceMs }] of held) {
      if (names.has(name) || sinceMs > before) continue;
      held.delete(name);
      pin[Symbol.dispose]();
    }
    for (const name of broken) if (!names.has(name)) broken.delete(name);
    for (const name of names) void take(name).catch((error: unknown) => onBroken(String(error)));
  }

  const timer = setInterval(look, limits.promisesLookMs).unref();
  look();
  return {
    hold,
    onPinned: (name) => void take(name).catch((error: unknown) => onBroken(String(error))),
    size: () => held.size,
    close() {
      isClosed = true;
      clearInterval(timer);
      for (const { pin } of held.values()) pin[Symbol.dispose]();
      held.clear();
    },
  };
}

/** Nothing is believed here: whatever a stored statement names is kept with it. */
function resultIn(bytes: Uint8Array) {
  try {
    const { statement } = fromBinary(VouchedResultSchema, bytes);
    if (!statement) return undefined;
    return fromBinary(ActionResultSchema, fromBinary(ResultStatementSchema, statement.payload).result);
  } catch {
    return undefined;
  }
}
