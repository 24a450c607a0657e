/**
 * What this node wants from the mesh: each blob once however many wait for it, in large requests to the planner, and
 * never again for a while when nobody had it.
 */
import { type Digest, digestKey } from '../../protos/digest.ts';
import type { FetchEffect, FetchEvent } from '../../mesh/core/fetch/types.ts';
import * as limits from './limits.ts';

export interface FetchOptions {
  /** Members that likely have it. */
  readonly hints?: readonly string[];
  readonly signal?: AbortSignal;
}

export interface Fetches {
  /** True once the blob is in the store, false when it cannot be had in time. Throws only when `signal` is aborted. */
  fetch(digest: Digest, options?: FetchOptions): Promise<boolean>;
  isFetching(digest: Digest): boolean;
  /** Answers of the planner. */
  perform(effect: Extract<FetchEffect, { kind: 'fetched' | 'failed' }>): void;
  /** Forgets that a blob was missing: somebody says that it is there. */
  expect(digest: Digest): void;
  close(): void;
}

export interface FetchesOptions {
  /** Tells the planner. May call back into `perform` before it returns. */
  readonly report: (event: FetchEvent) => void;
  readonly nowMs?: () => number;
}

interface Fetch {
  readonly want: number;
  readonly done: PromiseWithResolvers<boolean>;
  waiting: number;
}

export function createFetches({ report, nowMs = () => performance.now() }: FetchesOptions): Fetches {
  const fetches = new Map<string, Fetch>();
  const keyOf = new Map<number, string>();
  /** Until when a blob counts as missing. */
  const missing = new Map<string, number>();
  let queued: Extract<FetchEvent, { kind: 'want' }>['wants'][number][] = [];
  let nextWant = 1;
  let isClosed = false;

  function flush(): void {
    const wants = queued;
    queued = [];
    for (let at = 0; at < wants.length; at += limits.wantsPerTurn) {
      report({ kind: 'want', wants: wants.slice(at, at + limits.wantsPerTurn) });
    }
  }

  function begin(digest: Digest, hints: readonly string[]): Fetch {
    const key = digestKey(digest);
    const fetch: Fetch = { want: nextWant++, done: Promise.withResolvers(), waiting: 0 };
    fetches.set(key, fetch);
    keyOf.set(fetch.want, key);
    if (queued.length === 0) setImmediate(flush);
    // Many at once wait for each other.
    const waitMs = fetches.size * limits.fetchEachMs;
    const budgetMs = limits.fetchBaseMs + waitMs + Math.ceil(digest.sizeBytes / limits.fetchBytesPerMs);
    queued.push({ want: fetch.want, blob: key, sizeBytes: digest.sizeBytes, budgetMs, hints });
    return fetch;
  }

  function end(want: number, isThere: boolean): void {
    const key = keyOf.get(want);
    const fetch = key === undefined ? undefined : fetches.get(key);
    if (key === undefined || !fetch) return;
    keyOf.delete(want);
    fetches.delete(key);
    if (!isThere) {
      missing.set(key, nowMs() + limits.missingMs);
      for (const oldest of missing.keys()) {
        if (missing.size <= limits.missingMax) break;
        missing.delete(oldest);
      }
    }
    fetch.done.resolve(isThere);
  }

  return {
    async fetch(digest, { hints = [], signal } = {}) {
      signal?.throwIfAborted();
      if (isClosed) return false;
      const key = digestKey(digest);
      if (hints.length > 0) missing.delete(key);
      if ((missing.get(key) ?? 0) > nowMs()) return false;
      const fetch = fetches.get(key) ?? begin(digest, hints);
      fetch.waiting += 1;
      const { promise, resolve, reject } = Promise.withResolvers<boolean>();
      const onAbort = (): void => reject(signal?.reason);
      signal?.addEventListener('abort', onAbort, { once: true });
      void fetch.done.promise.then(resolve);
      try {
        return await promise;
      } finally {
        signal?.removeEventListener('abort', onAbort);
        fetch.waiting -= 1;
        if (fetch.waiting === 0 && fetches.get(key) === fetch) {
          // Nobody waits for it any more.
          fetches.delete(key);
          keyOf.delete(fetch.want);
          fetch.done.resolve(false);
          report({ kind: 'unwant', want: fetch.want });
        }
      }
    },
    isFetching: (digest) => fetches.has(digestKey(digest)),
    perform: (effect) => end(effect.want, effect.kind === 'fetched'),
    expect: (digest) => void missing.delete(digestKey(digest)),
    close() {
      isClosed = true;
      for (const { want } of [...fetches.values()]) end(want, false);
    },
  };
}
