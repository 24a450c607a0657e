/** Removes directories that an action wrote, whatever it made of them. */
import { execFile } from 'node:child_process';
import { rm } from 'node:fs/promises';
import { promisify } from 'node:util';

const run = promisify(execFile);

/**
 * Removes `path` and everything below. Names that are not UTF-8, trees deeper than a path may be long and directories
 * without permissions are beyond `rm` of Node; the system's own tools get those.
 */
export async function removeTree(path: string): Promise<void> {
  try {
    await rm(path, { recursive: true, force: true });
  } catch {
    await run('/bin/sh', ['-c', 'chmod -R u+rwx -- "$1" 2>/dev/null; exec rm -rf -- "$1"', 'sh', path], { env: {} });
  }
}
