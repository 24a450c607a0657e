/**
 * Small files that must not be lost or half written: keys and the state of a membership. They change a few times a day,
 * so they are written synchronously, and nothing can come between reading and writing them.
 */
import {
  closeSync,
  fsyncSync,
  linkSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  unlinkSync,
  writeSync,
} from 'node:fs';
import { randomBytes } from 'node:crypto';
import { dirname } from 'node:path';

const ownerOnly = 0o600;

/** The file's bytes, or `undefined` when there is none. */
export function readIfThere(path: string): Uint8Array | undefined {
  try {
    return readFileSync(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}

/** Replaces a file in one durable step: write aside, sync, rename, sync the directory. */
export function replaceDurably(path: string, bytes: Uint8Array): void {
  const aside = writeAside(path, bytes);
  renameSync(aside, path);
  syncDirectory(dirname(path));
}

/** Makes a file durably; false when there is one already, which is left as it is. */
export function createDurably(path: string, bytes: Uint8Array): boolean {
  const aside = writeAside(path, bytes);
  try {
    linkSync(aside, path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
    throw error;
  } finally {
    unlinkSync(aside);
  }
  syncDirectory(dirname(path));
  return true;
}

/** Removes a file durably, if it is there. */
export function removeDurably(path: string): void {
  try {
    unlinkSync(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return;
    throw error;
  }
  syncDirectory(dirname(path));
}

function writeAside(path: string, bytes: Uint8Array): string {
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  const aside = `${path}.${randomBytes(6).toString('hex')}`;
  const file = openSync(aside, 'wx', ownerOnly);
  try {
    for (let at = 0; at < bytes.byteLength; ) at += writeSync(file, bytes, at);
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
  return aside;
}

function syncDirectory(path: string): void {
  const directory = openSync(path, 'r');
  try {
    fsyncSync(directory);
  } finally {
    closeSync(directory);
  }
}
