/**
 * Live standard output and error of running actions, readable by ByteStream while they grow.
 *
 * Memory is bounded: a log keeps its newest part, and a reader that fell behind finds a line that says how many bytes it
 * missed. The whole output is in the CAS once the action has ended.
 *
 * @see REAPI v2.12, ExecuteOperationMetadata.stdout_stream_name
 */
import type { LogStreams } from '../reapi/handler.ts';
import { logLimits } from './limits.ts';

export interface LogWriter {
  write(chunk: Uint8Array): void;
  end(): void;
}

export interface LogRegistry extends LogStreams {
  /** A new log under a name that no other has. `onRead` is called whenever somebody begins to read it. */
  create(name: string, onRead?: () => void): LogWriter;
}

interface Log {
  /** The newest bytes: chunks in order, `startOffset` being the offset of the first. */
  chunks: Uint8Array[];
  startOffset: number;
  endOffset: number;
  ended: boolean;
  readonly onRead: (() => void) | undefined;
  /** Wakes the readers that wait for more. */
  readonly waiting: Set<() => void>;
}

interface LogLimits {
  readonly logStreamBytesMax: number;
  readonly logBytesMax: number;
  readonly endedLogsMax: number;
}

/** About as many chunks make a full log. */
const chunksMax = 64;

export function createLogStreams(bounds: LogLimits = logLimits): LogRegistry {
  const logs = new Map<string, Log>();
  const ended: string[] = [];
  let heldBytes = 0;

  const dropOldest = (log: Log): void => {
    const dropped = log.chunks.shift();
    if (!dropped) return;
    log.startOffset += dropped.byteLength;
    heldBytes -= dropped.byteLength;
  };
  const forget = (name: string): void => {
    const log = logs.get(name);
    if (!log) return;
    logs.delete(name);
    for (const chunk of log.chunks) heldBytes -= chunk.byteLength;
    log.chunks = [];
    log.startOffset = log.endOffset;
  };
  const makeRoom = (): void => {
    while (heldBytes > bounds.logBytesMax && ended.length > 0) forget(ended.shift() ?? '');
    for (const log of logs.values()) {
      while (heldBytes > bounds.logBytesMax && log.chunks.length > 0) dropOldest(log);
    }
  };
  const wakeReaders = (log: Log): void => {
    for (const wake of log.waiting) wake();
    log.waiting.clear();
  };

  return {
    create(name, onRead) {
      const log: Log = { chunks: [], startOffset: 0, endOffset: 0, ended: false, onRead, waiting: new Set() };
      logs.set(name, log);
      return {
        write(chunk) {
          if (log.ended || chunk.byteLength === 0) return;
          // A copy: whoever wrote the chunk may use its memory again.
          const kept = new Uint8Array(chunk.subarray(-bounds.logStreamBytesMax));
          log.endOffset += chunk.byteLength;
          if (kept.byteLength < chunk.byteLength) {
            while (log.chunks.length > 0) dropOldest(log);
            log.startOffset = log.endOffset - kept.byteLength;
          }
          append(log.chunks, kept, bounds.logStreamBytesMax / chunksMax);
          heldBytes += kept.byteLength;
          while (log.endOffset - log.startOffset > bounds.logStreamBytesMax) dropOldest(log);
          makeRoom();
          wakeReaders(log);
        },
        end() {
          if (log.ended) return;
          log.ended = true;
          ended.push(name);
          while (ended.length > bounds.endedLogsMax) forget(ended.shift() ?? '');
          wakeReaders(log);
        },
      };
    },
    read(name, offset, { signal }) {
      const log = logs.get(name);
      if (log && !log.ended) log.onRead?.();
      return log && follow(log, offset, signal);
    },
  };
}

/** Tiny writes are joined, so that a chatty action makes few chunks. Chunks already handed out are never changed. */
function append(chunks: Uint8Array[], chunk: Uint8Array, joinedBytesMax: number): void {
  const last = chunks.at(-1);
  if (last && last.byteLength + chunk.byteLength <= joinedBytesMax) {
    chunks[chunks.length - 1] = Buffer.concat([last, chunk]);
  } else {
    chunks.push(chunk);
  }
}

async function* follow(log: Log, offset: number, signal: AbortSignal): AsyncGenerator<Uint8Array> {
  let wake = (): void => {};
  const onAbort = (): void => wake();
  signal.addEventListener('abort', onAbort, { once: true });
  try {
    let position = offset;
    for (;;) {
      signal.throwIfAborted();
      if (position < log.startOffset) {
        yield new TextEncoder().encode(`\n[potluck: ${log.startOffset - position} bytes of this log were not kept]\n`);
        position = log.startOffset;
        continue;
      }
      const chunk = chunkAt(log, position);
      if (chunk) {
        position += chunk.byteLength;
        yield chunk;
      } else if (log.ended) {
        return;
      } else {
        await new Promise<void>((resolve) => {
          wake = resolve;
          log.waiting.add(resolve);
        });
      }
    }
  } finally {
    log.waiting.delete(wake);
    signal.removeEventListener('abort', onAbort);
  }
}

/** What is held from `position` on, up to the end of the chunk it lies in. */
function chunkAt(log: Log, position: number): Uint8Array | undefined {
  let chunkOffset = log.startOffset;
  for (const chunk of log.chunks) {
    if (position < chunkOffset + chunk.byteLength) return chunk.subarray(position - chunkOffset);
    chunkOffset += chunk.byteLength;
  }
  return undefined;
}
