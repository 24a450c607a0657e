/**
 * Turns of those that are served: so many at once, for all and for each member, in order of urgency; and so many bytes a
 * second. What has no turn soon is refused instead of being served slowly.
 */
import * as limits from './limits.ts';

export interface UploadLimits {
  /** At once, to all members; 0 serves nobody. */
  readonly uploadsMax: number;
  readonly uploadsPerPeerMax: number;
  /** On average; `undefined` sets no bound. */
  readonly bytesPerSecond: number | undefined;
}

/** What an upload is for, most urgent first: a build waits for it; it may be needed; copies made in good time. */
export const urgencies = ['build', 'ahead', 'seed'] as const;
export type Urgency = (typeof urgencies)[number];

export interface Upload extends Disposable {
  /** Resolves when so many more bytes may be sent. */
  pace(bytes: number, signal: AbortSignal): Promise<void>;
}

export interface Uploads {
  /** `undefined`: this node is too busy. */
  enter(peer: string, urgency: Urgency, signal: AbortSignal): Promise<Upload | undefined>;
  active(): number;
}

interface Waiting {
  readonly peer: string;
  readonly rank: number;
  readonly start: () => void;
}

/** `current` is asked at each request, so that limits can change with the link. */
export function createUploads(current: () => UploadLimits): Uploads {
  const perPeer = new Map<string, number>();
  let waiting: Waiting[] = [];
  let active = 0;
  let paidUntilMs = 0;

  function hasRoom(peer: string): boolean {
    const { uploadsMax, uploadsPerPeerMax } = current();
    return active < uploadsMax && (perPeer.get(peer) ?? 0) < uploadsPerPeerMax;
  }

  function start(peer: string): Upload {
    active += 1;
    perPeer.set(peer, (perPeer.get(peer) ?? 0) + 1);
    let isOver = false;
    return {
      pace,
      [Symbol.dispose]() {
        if (isOver) return;
        isOver = true;
        active -= 1;
        const left = (perPeer.get(peer) ?? 1) - 1;
        if (left > 0) perPeer.set(peer, left);
        else perPeer.delete(peer);
        const next = waiting.find((one) => hasRoom(one.peer));
        if (next) next.start();
      },
    };
  }

  /** A bucket that all uploads share: each chunk pays for itself, and waits until what went before is paid. */
  async function pace(bytes: number, signal: AbortSignal): Promise<void> {
    const { bytesPerSecond } = current();
    if (bytesPerSecond === undefined) return;
    const nowMs = performance.now();
    paidUntilMs = Math.max(paidUntilMs, nowMs - limits.uploadBurstMs) + (bytes * 1_000) / bytesPerSecond;
    const waitMs = paidUntilMs - nowMs;
    if (waitMs > 0) await delay(waitMs, signal);
  }

  return {
    async enter(peer, urgency, signal) {
      if (hasRoom(peer)) return start(peer);
      if (current().uploadsMax === 0 || waiting.length >= limits.uploadsWaitingMax) return undefined;
      const { promise, resolve } = Promise.withResolvers<Upload | undefined>();
      const rank = urgencies.indexOf(urgency);
      const leave = (): void => {
        waiting = waiting.filter((other) => other !== one);
        clearTimeout(timer);
        signal.removeEventListener('abort', giveUp);
      };
      const giveUp = (): void => {
        leave();
        resolve(undefined);
      };
      const one: Waiting = {
        peer,
        rank,
        start: () => {
          leave();
          resolve(start(peer));
        },
      };
      const timer = setTimeout(giveUp, limits.uploadWaitMs);
      signal.addEventListener('abort', giveUp, { once: true });
      const at = waiting.findIndex((other) => other.rank > rank);
      waiting.splice(at < 0 ? waiting.length : at, 0, one);
      return await promise;
    },
    active: () => active,
  };
}

function delay(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal.aborted) return reject(signal.reason);
    const onAbort = (): void => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal.removeEventListener('abort', onAbort);
      resolve();
    }, ms);
    signal.addEventListener('abort', onAbort, { once: true });
  });
}
