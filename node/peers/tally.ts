/** What came from members and went to them since the node started. */
export interface Tally {
  readonly receivedBlobs: number;
  readonly receivedBytes: number;
  readonly servedBlobs: number;
  readonly servedBytes: number;
  /** Results that were found at members. */
  readonly foundResults: number;
  /** The members that most came from, and how many bytes. */
  readonly sources: readonly { readonly peer: string; readonly bytes: number }[];
}

export interface Counting {
  onReceived(peer: string, bytes: number): void;
  onServed(blobs: number, bytes: number): void;
  onResult(peer: string): void;
  now(): Tally;
}

const sourcesShown = 8;
const sourcesMax = 1_024;

export function createTally(): Counting {
  const bytesFrom = new Map<string, number>();
  let receivedBlobs = 0;
  let receivedBytes = 0;
  let servedBlobs = 0;
  let servedBytes = 0;
  let foundResults = 0;
  return {
    onReceived(peer, bytes) {
      receivedBlobs += 1;
      receivedBytes += bytes;
      if (bytesFrom.has(peer) || bytesFrom.size < sourcesMax) bytesFrom.set(peer, (bytesFrom.get(peer) ?? 0) + bytes);
    },
    onServed(blobs, bytes) {
      servedBlobs += blobs;
      servedBytes += bytes;
    },
    onResult() {
      foundResults += 1;
    },
    now: () => ({
      receivedBlobs,
      receivedBytes,
      servedBlobs,
      servedBytes,
      foundResults,
      sources: [...bytesFrom]
        .map(([peer, bytes]) => ({ peer, bytes }))
        .sort((a, b) => b.bytes - a.bytes)
        .slice(0, sourcesShown),
    }),
  };
}
