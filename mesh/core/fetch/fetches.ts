/** One blob that is being fetched: who wants it, who may have it, and which of its pieces are at hand. */
import { hashText } from '../hash.ts';
import type { BlobKey, NodeId } from '../ids.ts';
import * as limits from './limits.ts';

export interface Piece {
  readonly offset: number;
  readonly lengthBytes: number;
  done: boolean;
  /** Transfers that are to bring it: none while it waits, two when it is hedged. */
  readonly transfers: Set<number>;
}

/** One holder of one blob. */
export interface Source {
  readonly node: NodeId;
  /** Nobody's record says that it has the blob: not having it is no offence. */
  guessed: boolean;
  notBeforeMs: number;
  failures: number;
  /** Times in a row that it did not have a piece yet. */
  early: number;
  /** It brought a piece. */
  proved: boolean;
}

export interface Fetch {
  readonly blob: BlobKey;
  readonly sizeBytes: number;
  readonly lot: number;
  /** Deadlines by want. */
  readonly wants: Map<number, number>;
  readonly sources: Map<NodeId, Source>;
  readonly pieces: Piece[];
  readonly striped: boolean;
  locating: boolean;
  located: 'no' | 'once' | 'thoroughly';
  assembling: boolean;
  /** Deliveries that failed, of those that had announced the blob. */
  failures: number;
  /** Who delivered pieces; when the whole is wrong, nobody knows whose was. */
  readonly deliveredBy: Set<NodeId>;
  /** After a wrong whole of several: one source alone, so that the next wrong whole is its own. */
  alone: NodeId | undefined;
  mixedUp: boolean;
}

export function createFetch(self: NodeId, blob: BlobKey, sizeBytes: number): Fetch {
  const striped = sizeBytes >= limits.stripedBytes;
  const pieces: Piece[] = [];
  const step = striped ? limits.rangeBytes : Math.max(1, sizeBytes);
  for (let offset = 0; offset < Math.max(1, sizeBytes); offset += step) {
    pieces.push({ offset, lengthBytes: Math.min(step, sizeBytes - offset), done: false, transfers: new Set() });
  }
  const lot = hashText(blob);
  // Nodes that fetch the same blob at once begin at different pieces, so that they have something to give to each other.
  const turn = pieces.length > 1 ? hashText(self, lot) % pieces.length : 0;
  return {
    blob,
    sizeBytes,
    lot,
    wants: new Map(),
    sources: new Map(),
    pieces: [...pieces.slice(turn), ...pieces.slice(0, turn)],
    striped,
    locating: false,
    located: 'no',
    assembling: false,
    failures: 0,
    deliveredBy: new Set(),
    alone: undefined,
    mixedUp: false,
  };
}

export function addSource(fetch: Fetch, node: NodeId, guessed: boolean): void {
  const known = fetch.sources.get(node);
  if (known) known.guessed &&= guessed;
  else fetch.sources.set(node, { node, guessed, notBeforeMs: 0, failures: 0, early: 0, proved: false });
}

/** Pieces that nobody is bringing. */
export function open(fetch: Fetch): Piece[] {
  return fetch.pieces.filter((piece) => !piece.done && piece.transfers.size === 0);
}
