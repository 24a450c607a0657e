/** Touches gather in memory and go to the index lazily: reading must not cost a write each. Eviction flushes first. */
import type { Committer } from './committer.ts';
import type { EntryName } from './entry-key.ts';
import * as limits from './limits.ts';

export interface Recency {
  touch(name: EntryName): void;
  /** Whether it was touched since the last flush began. */
  isTouched(text: string): boolean;
  /** Resolves when the index knows of every touch until now. */
  flush(): Promise<void>;
  close(): Promise<void>;
}

export function createRecency(committer: Committer, batchChanges: number): Recency {
  let touched = new Map<string, Buffer>();
  let timer: NodeJS.Timeout | undefined;
  let flushing: Promise<unknown> = Promise.resolve();

  function flush(): Promise<void> {
    const flushed = Promise.all([flushing, writeOut()]).then(() => {});
    flushing = flushed.catch(() => {});
    return flushed;
  }

  async function writeOut(): Promise<void> {
    clearTimeout(timer);
    timer = undefined;
    const keys = [...touched.values()];
    touched = new Map();
    const commits: Promise<void>[] = [];
    for (let start = 0; start < keys.length; start += batchChanges) {
      const changes = keys.slice(start, start + batchChanges).map((key) => ({ kind: 'touch', key }) as const);
      commits.push(committer.commit(changes));
    }
    await Promise.all(commits);
  }

  // A touch that cannot be written costs an old blob its place, nothing else.
  const flushQuietly = (): void => void flush().catch(() => {});

  return {
    touch({ key, text }) {
      // Anew, so that the order of the map stays the order of use.
      touched.delete(text);
      touched.set(text, key);
      if (touched.size >= limits.touchesMax) flushQuietly();
      else timer ??= setTimeout(flushQuietly, limits.touchFlushMs).unref();
    },
    isTouched: (text) => touched.has(text),
    flush,
    close: () => flush().catch(() => {}),
  };
}
