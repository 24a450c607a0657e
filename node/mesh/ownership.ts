/** One process at a time changes the membership in a data directory: the node that serves from it, or a command. */
import { lstatSync, mkdirSync, rmdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { readIfThere } from '../../mesh/net/identity/durable-file.ts';
import { StatusError } from '../../protos/status.ts';
import { claimOwnership } from '../storage/owner.ts';
import * as limits from './limits.ts';

/** Takes the membership for this process, until it is disposed of. Throws FAILED_PRECONDITION when another has it. */
export function ownMembership(dataDir: string): Disposable {
  const dir = join(dataDir, 'mesh');
  const path = join(dir, 'owner');
  const lock = join(dir, 'owner.lock');
  mkdirSync(dir, { recursive: true, mode: 0o700 });
  claimOwnership({
    dataDir,
    read() {
      const bytes = readIfThere(path);
      return bytes && bytes.byteLength > 0 ? Buffer.from(bytes).toString() : undefined;
    },
    // A power cut ends every owner, so nothing is lost with this file.
    write: (owner) => writeFileSync(path, owner, { mode: 0o600 }),
    exclusively(action) {
      takeLock(lock);
      try {
        action();
      } finally {
        rmdirSync(lock);
      }
    },
  });
  return { [Symbol.dispose]: () => rmSync(path, { force: true }) };
}

function takeLock(lock: string): void {
  try {
    mkdirSync(lock);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    // It is held for the time of a few system calls; one that is older was left behind.
    const { mtimeMs } = statSync(lock);
    if (Date.now() - mtimeMs < limits.lockMs) {
      throw new StatusError('UNAVAILABLE', `another potluck command is busy in ${lock}; try again`);
    }
    rmdirSync(lock);
    mkdirSync(lock);
  }
}

/** Throws FAILED_PRECONDITION for a directory that somebody else made, or that others can write to. */
export function requireOwnDirectory(dir: string): void {
  const stats = lstatSync(dir);
  if (stats.isDirectory() && stats.uid === process.getuid?.() && (stats.mode & 0o022) === 0) return;
  throw new StatusError('FAILED_PRECONDITION', `${dir} belongs to somebody else or can be written by others`);
}
