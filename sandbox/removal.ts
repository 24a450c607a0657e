/** Removes directories that an action wrote, whatever it made of them. */
import { execFile } from 'node:child_process';
import { opendir, rmdir, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { removedHereMax } from './limits.ts';

const run = promisify(execFile);

/**
 * Removes `path` and everything below. Names that are not UTF-8, trees deeper than a path may be long and directories
 * without permissions are beyond Node; the system's own tools get those. They get large trees as well: a hundred
 * thousand files removed here would keep the node from its other work for seconds.
 */
export async function removeTree(path: string): Promise<void> {
  try {
    await removeFew(path, { left: removedHereMax });
  } catch {
    await run('/bin/sh', ['-c', 'chmod -R u+rwx -- "$1" 2>/dev/null; exec rm -rf -- "$1"', 'sh', path], { env: {} });
  }
}

async function removeFew(path: string, budget: { left: number }): Promise<void> {
  for await (const entry of await opendir(path)) {
    if (budget.left-- === 0) throw new Error(`${path} is large`);
    const at = join(path, entry.name);
    if (entry.isDirectory()) await removeFew(at, budget);
    else await unlink(at);
  }
  await rmdir(path);
}
