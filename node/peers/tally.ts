/** How far away a member is: few labels, however many members there are. */
export type Link = 'subnet' | 'site' | 'other';

/** What came from members and went to them since the node started. */
export interface Tally {
  readonly receivedBlobs: number;
  readonly receivedBytes: number;
  readonly servedBlobs: number;
  readonly servedBytes: number;
  /** The same bytes by how far away the members are. */
  readonly links: Readonly<Record<Link, { readonly receivedBytes: number; readonly servedBytes: number }>>;
  /** Results that were found at members. */
  readonly foundResults: number;
  /** The members that most came from, and how many bytes. */
  readonly sources: readonly { readonly peer: string; readonly bytes: number }[];
}

export interface Counting {
  onReceived(peer: string, link: Link, bytes: number): void;
  onServed(link: Link, blobs: number, bytes: number): void;
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
  const byLink = { subnet: emptyLink(), site: emptyLink(), other: emptyLink() };
  return {
    onReceived(peer, link, bytes) {
      receivedBlobs += 1;
      receivedBytes += bytes;
      byLink[link].receivedBytes += bytes;
      if (bytesFrom.has(peer) || bytesFrom.size < sourcesMax) bytesFrom.set(peer, (bytesFrom.get(peer) ?? 0) + bytes);
    },
    onServed(link, blobs, bytes) {
      servedBlobs += blobs;
      servedBytes += bytes;
      byLink[link].servedBytes += bytes;
    },
    onResult() {
      foundResults += 1;
    },
    now: () => ({
      receivedBlobs,
      receivedBytes,
      servedBlobs,
      servedBytes,
      links: structuredClone(byLink),
      foundResults,
      sources: [...bytesFrom]
        .map(([peer, bytes]) => ({ peer, bytes }))
        .sort((a, b) => b.bytes - a.bytes)
        .slice(0, sourcesShown),
    }),
  };
}

function emptyLink() {
  return { receivedBytes: 0, servedBytes: 0 };
}
