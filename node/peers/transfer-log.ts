/** Says who served what: a line for what came and one for what went, at most one of each in a while. */
import * as limits from './limits.ts';

export interface TransferLog {
  received(peer: string, bytes: number): void;
  served(peer: string, blobs: number, bytes: number): void;
  /** Says at once what has not been said. */
  close(): void;
}

interface Sum {
  blobs: number;
  bytes: number;
}

export function createTransferLog(say: (text: string) => void): TransferLog {
  const came = new Map<string, Sum>();
  const went = new Map<string, Sum>();
  let timer: NodeJS.Timeout | undefined;

  function add(sums: Map<string, Sum>, peer: string, blobs: number, bytes: number): void {
    if (blobs === 0) return;
    const sum = sums.get(peer) ?? { blobs: 0, bytes: 0 };
    sums.set(peer, sum);
    sum.blobs += blobs;
    sum.bytes += bytes;
    timer ??= setTimeout(flush, limits.transferLogMs).unref();
  }

  function flush(): void {
    clearTimeout(timer);
    timer = undefined;
    if (came.size > 0) say(`received ${textOf(came, 'from')}`);
    if (went.size > 0) say(`served ${textOf(went, 'to')}`);
    came.clear();
    went.clear();
  }

  return {
    received: (peer, bytes) => add(came, peer, 1, bytes),
    served: (peer, blobs, bytes) => add(went, peer, blobs, bytes),
    close: flush,
  };
}

/** Those with most bytes first; the rest are counted. */
function textOf(sums: ReadonlyMap<string, Sum>, word: 'from' | 'to'): string {
  const sorted = [...sums].sort(([, a], [, b]) => b.bytes - a.bytes);
  const rest = sorted.slice(limits.transferLogPeers);
  const named = sorted.slice(0, limits.transferLogPeers).map(([peer, sum]) => `${amount(sum)} ${word} ${peer}`);
  if (rest.length === 0) return named.join(', ');
  const others: Sum = { blobs: 0, bytes: 0 };
  for (const [, { blobs, bytes }] of rest) {
    others.blobs += blobs;
    others.bytes += bytes;
  }
  return `${named.join(', ')}, ${amount(others)} ${word} ${rest.length} more`;
}

function amount({ blobs, bytes }: Sum): string {
  const size = bytes < 1e6 ? `${(bytes / 1e3).toFixed(1)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
  return `${blobs} ${blobs === 1 ? 'blob' : 'blobs'} (${size})`;
}
