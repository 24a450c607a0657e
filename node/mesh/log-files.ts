/** The files of a durable log on a real disk. Calls on one file are made one after the other, by the log. */
import { readFileSync, truncateSync } from 'node:fs';
import { type FileHandle, open, rename } from 'node:fs/promises';
import { join } from 'node:path';
import type { LogFiles } from './ports.ts';

const ownerOnly = 0o600;

export interface DiskFiles extends LogFiles {
  /** Resolves when nothing is being written. */
  close(): Promise<void>;
}

/** The text of a log; empty when there is none. */
export function readLogText(dir: string, name: string): string {
  try {
    return readFileSync(join(dir, name), 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return '';
    throw error;
  }
}

/** Cuts a torn tail off. Checksums cover whole lines, so what precedes is ASCII of the same length in bytes. */
export function truncateLog(dir: string, name: string, text: string, length: number): void {
  truncateSync(join(dir, name), Buffer.byteLength(text.slice(0, length)));
}

interface OpenFile {
  readonly handle: FileHandle;
  /** Known without asking: each call to the system costs a turn of another thread. */
  sizeBytes: number;
}

export function createDiskFiles(dir: string): DiskFiles {
  const files = new Map<string, OpenFile>();
  let last: Promise<void> = Promise.resolve();

  /** Runs work in turn; `done` is told how it went, never before the call that asked returned. */
  function inTurn(work: () => Promise<void>, done: (ok: boolean) => void): void {
    last = last.then(work).then(
      () => done(true),
      () => done(false),
    );
  }

  async function fileOf(name: string): Promise<OpenFile> {
    let file = files.get(name);
    if (!file) {
      const handle = await open(join(dir, name), 'a', ownerOnly);
      file = { handle, sizeBytes: (await handle.stat()).size };
      files.set(name, file);
      await syncDirectory(dir);
    }
    return file;
  }

  async function letGo(name: string): Promise<void> {
    const file = files.get(name);
    files.delete(name);
    await file?.handle.close();
  }

  return {
    append(name, text, done) {
      inTurn(async () => {
        const file = await fileOf(name);
        const bytes = Buffer.from(text);
        try {
          await file.handle.appendFile(bytes);
          file.sizeBytes += bytes.byteLength;
        } catch (error) {
          // A part of it may have got there; the log was told that nothing did.
          await file.handle.truncate(file.sizeBytes);
          throw error;
        }
      }, done);
    },
    sync(name, done) {
      inTurn(async () => (await fileOf(name)).handle.datasync(), done);
    },
    replace(name, text, done) {
      inTurn(async () => {
        await letGo(name);
        const aside = join(dir, `${name}.new`);
        const handle = await open(aside, 'w', ownerOnly);
        try {
          await handle.writeFile(text);
          await handle.sync();
        } finally {
          await handle.close();
        }
        await rename(aside, join(dir, name));
        await syncDirectory(dir);
      }, done);
    },
    async close() {
      // An append that ended asks for a sync.
      for (let seen: Promise<void> | undefined; seen !== last; ) await (seen = last);
      await Promise.all([...files.keys()].map(letGo));
    },
  };
}

async function syncDirectory(path: string): Promise<void> {
  const handle = await open(path, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
