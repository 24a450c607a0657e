/**
 * Records of builds on disk: a file of JSON lines for each, only ever appended to. Nothing is synced: a crash costs the
 * lines of the last moments, and a torn last line is passed over by who reads.
 */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { appendFile, mkdir, open, readdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Clock } from '../execution/clock.ts';
import * as limits from './limits.ts';
import type { Line } from './records.ts';

export interface BuildFile {
  /** Orders files by when they were begun. */
  readonly name: string;
  readonly startedMs: number;
}

export interface BuildFiles {
  nameOf(id: string, startedMs: number): string;
  /** False when the line was dropped: the file is full, or the disk too slow. */
  append(name: string, line: Line): boolean;
  /** All files, newest first. */
  list(): Promise<BuildFile[]>;
  /** The lines that are whole; none for a file that is gone. `containing` passes over all but the first without that text, unparsed. */
  read(name: string, containing?: string): AsyncIterable<Line>;
  /** The last line when it is whole: a summary, of a build that was closed in good order. */
  last(name: string): Promise<Line | undefined>;
  /** Removes what is too old or too much. */
  tidy(nowMs: number): Promise<void>;
  /** Writes what waits. */
  flush(): Promise<void>;
  close(): Promise<void>;
}

const suffix = '.jsonl';
/** How the line that names the build begins. */
const heading = '{"kind":"build"';
/** A summary is the longest line there is: its slowest actions and failures with their histories. */
const lineBytesMax = 512 * 1024;

export function createBuildFiles(dir: string, clock: Clock, onProblem: (reason: string) => void): BuildFiles {
  const sizes = new Map<string, number>();
  let pending = new Map<string, string[]>();
  let pendingBytes = 0;
  let cancelTimer: (() => void) | undefined;
  let writing: Promise<void> | undefined;
  let failing = false;

  async function write(batch: ReadonlyMap<string, readonly string[]>, bytes: number): Promise<void> {
    try {
      await mkdir(dir, { recursive: true, mode: 0o700 });
      for (const [name, lines] of batch) await appendFile(join(dir, name), lines.join(''), { mode: 0o600 });
      failing = false;
    } catch (error) {
      if (!failing) onProblem(`builds are not recorded: ${error instanceof Error ? error.message : String(error)}`);
      failing = true;
    } finally {
      pendingBytes -= bytes;
    }
  }

  /** What gathers while the disk is busy goes with the next write. */
  function flush(): Promise<void> {
    cancelTimer?.();
    cancelTimer = undefined;
    writing ??= writeAll().finally(() => {
      writing = undefined;
      if (pending.size > 0) wakeLater();
    });
    return writing;
  }

  function wakeLater(): void {
    cancelTimer ??= clock.setTimer(limits.flushMs, () => void flush());
  }

  async function writeAll(): Promise<void> {
    while (pending.size > 0) {
      const batch = pending;
      pending = new Map();
      await write(batch, pendingBytes);
    }
  }

  async function list(): Promise<BuildFile[]> {
    const names = await readdir(dir).catch(() => []);
    return names
      .filter((name) => name.endsWith(suffix))
      .map((name) => ({ name, startedMs: Number.parseInt(name, 10) }))
      .sort((a, b) => b.startedMs - a.startedMs || (a.name < b.name ? 1 : -1));
  }

  return {
    nameOf: (id, startedMs) => `${startedMs}-${createHash('sha256').update(id).digest('hex').slice(0, 16)}${suffix}`,
    append(name, line) {
      // The newline in front ends a line that a crash had torn; blank lines are nothing.
      const known = sizes.get(name);
      const text = `${known === undefined ? '\n' : ''}${JSON.stringify(line)}\n`;
      const bytes = Buffer.byteLength(text);
      const size = (known ?? 0) + bytes;
      const isFull = line.kind === 'action' && size > limits.buildBytesMax;
      if (isFull || pendingBytes + bytes > limits.pendingBytesMax) return false;
      sizes.set(name, size);
      pendingBytes += bytes;
      const lines = pending.get(name);
      if (lines) lines.push(text);
      else pending.set(name, [text]);
      if (pendingBytes >= limits.flushBytes) void flush();
      else wakeLater();
      return true;
    },
    list,
    async *read(name, containing) {
      const stream = createReadStream(join(dir, name), { encoding: 'utf8' });
      const lines = createInterface({ input: stream, crlfDelay: Number.POSITIVE_INFINITY });
      try {
        for await (const text of lines) {
          if (containing !== undefined && !text.includes(containing) && !text.startsWith(heading)) continue;
          const line = parseLine(text);
          if (line) yield line;
        }
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
      } finally {
        lines.close();
        stream.destroy();
      }
    },
    async last(name) {
      const file = await open(join(dir, name)).catch(() => undefined);
      if (!file) return undefined;
      try {
        const { size } = await file.stat();
        const length = Math.min(size, lineBytesMax);
        const { buffer } = await file.read(Buffer.alloc(length), 0, length, size - length);
        const text = buffer.toString();
        const end = text.endsWith('\n') ? text.length - 1 : text.length;
        return parseLine(text.slice(text.lastIndexOf('\n', end - 1) + 1, end));
      } finally {
        await file.close();
      }
    },
    async tidy(nowMs) {
      await flush();
      let bytes = 0;
      for (const [at, { name, startedMs }] of (await list()).entries()) {
        const found = await stat(join(dir, name)).catch(() => undefined);
        bytes += found?.size ?? 0;
        const age = nowMs - (found?.mtimeMs ?? startedMs);
        if (at < limits.buildsMax && bytes <= limits.buildsBytesMax && age <= limits.buildAgeMaxMs) continue;
        await rm(join(dir, name), { force: true });
        sizes.delete(name);
      }
    },
    flush,
    async close() {
      await flush();
    },
  };
}

function parseLine(text: string): Line | undefined {
  if (!text.startsWith('{')) return undefined;
  try {
    return JSON.parse(text) as Line;
  } catch {
    return undefined;
  }
}
