/**
 * The durable log under the mesh's machines: records are appended as lines, made durable in groups, and read back in
 * order after a crash. One sync answers every record that was appended before it began (group commit).
 *
 * A line is `checksum json`. A torn tail, which a crash leaves behind, ends the log at the last whole line.
 */
import type { LogFiles } from './ports.ts';

/** Syncs that failed are tried again after this long; the disk is full, and may be freed. */
export const retryMs = 1_000;
/** A log grown beyond this, and to twice what its last checkpoint took, is rewritten from the machines' checkpoint. */
export const rewriteBytes = 4 * 1024 * 1024;

export interface DurableLog {
  /** Adds a record; `durableTo` is called later with its id or a higher one. Ids rise. */
  append(id: number, record: object): void;
  /** Starts what waits: at most one append and sync at a time, so that a group forms while the disk works. */
  flush(): void;
  /** Appended and not yet durable. */
  waiting(): number;
}

export interface DurableLogOptions {
  readonly files: LogFiles;
  readonly name: string;
  /** Bytes that the file held when it was opened, torn tail excluded. */
  readonly sizeBytes: number;
  /** Everything up to this id survives a power cut. */
  readonly durableTo: (id: number) => void;
  /** The disk refused; `flush` is expected after `retryMs`. */
  readonly failed: () => void;
  /** What the log must hold at the least, asked when it has grown: the machines' state as records. */
  readonly checkpoint: () => readonly object[];
}

/** FNV-1a over UTF-16 code units: finds torn and rotten lines, and is no defence against anybody. */
function checksum(text: string): string {
  let hash = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  return (hash >>> 0).toString(36);
}

function line(record: object): string {
  const json = JSON.stringify(record);
  return `${checksum(json)} ${json}\n`;
}

/** The records of a log's text up to the first line that is not whole, and the length of that good part. */
export function readLog(text: string): { readonly records: object[]; readonly goodLength: number } {
  const records: object[] = [];
  let at = 0;
  for (;;) {
    const end = text.indexOf('\n', at);
    if (end < 0) return { records, goodLength: at };
    const space = text.indexOf(' ', at);
    const json = text.slice(space + 1, end);
    if (space < 0 || space > end || text.slice(at, space) !== checksum(json)) return { records, goodLength: at };
    records.push(JSON.parse(json) as object);
    at = end + 1;
  }
}

export function createDurableLog(options: DurableLogOptions): DurableLog {
  const { files, name } = options;
  let pending = '';
  let pendingTo = 0;
  let pendingCount = 0;
  let flyingCount = 0;
  let busy = false;
  let sizeBytes = options.sizeBytes;
  let checkpointBytes = 0;
  // After a failed sync nobody knows which of the written pages are on disk: only a whole new file is trusted.
  let rewriteNeeded = false;

  function ended(ok: boolean, upTo: number): void {
    busy = false;
    if (!ok) {
      options.failed();
      return;
    }
    flyingCount = 0;
    options.durableTo(upTo);
    start();
  }

  function rewrite(): void {
    // The checkpoint holds everything appended so far, so what was pending is durable with it.
    const text = options.checkpoint().map(line).join('');
    const upTo = pendingTo;
    pending = '';
    flyingCount += pendingCount;
    pendingCount = 0;
    files.replace(name, text, (ok) => {
      rewriteNeeded = !ok;
      if (ok) sizeBytes = checkpointBytes = text.length;
      ended(ok, upTo);
    });
  }

  function write(): void {
    const text = pending;
    const upTo = pendingTo;
    flyingCount = pendingCount;
    pending = '';
    pendingCount = 0;
    files.append(name, text, (written) => {
      if (!written) {
        // Nothing of it is on disk; it goes first in the next try.
        pending = text + pending;
        pendingCount += flyingCount;
        flyingCount = 0;
        ended(false, upTo);
        return;
      }
      sizeBytes += text.length;
      files.sync(name, (ok) => {
        rewriteNeeded = !ok;
        ended(ok, upTo);
      });
    });
  }

  function start(): void {
    if (busy || (pendingCount === 0 && !rewriteNeeded)) return;
    busy = true;
    // A checkpoint may be large by itself: each byte of it is paid for by one that was appended.
    const isGrown = sizeBytes + pending.length > Math.max(rewriteBytes, 2 * checkpointBytes);
    if (rewriteNeeded || isGrown) rewrite();
    else write();
  }

  return {
    append(id, record) {
      pending += line(record);
      pendingTo = id;
      pendingCount += 1;
    },
    flush: start,
    waiting: () => pendingCount + flyingCount,
  };
}
