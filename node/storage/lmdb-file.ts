/** A look at an LMDB file before LMDB maps it. */
import { closeSync, openSync, readSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { StatusError } from '../../protos/status.ts';

const metaAt = { magic: 24, version: 28, pageSize: 48, lastPage: 144, transaction: 152, end: 160 };
const lmdbMagic = 0xbeefc0de;
const lmdbVersion = 2;

/**
 * LMDB maps its file and trusts it: a damaged header or a cut file would end the process with a signal, not with an
 * error. So the two meta pages are looked at first (layout of the LMDB that lmdb 3.5 carries). Returns the file's size,
 * 0 when there is none. Throws DATA_LOSS when LMDB had better not open it.
 */
export function checkEnvironment(path: string): number {
  const file = join(path, 'data.mdb');
  let sizeBytes: number;
  try {
    sizeBytes = statSync(file).size;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return 0;
    throw error;
  }
  if (sizeBytes === 0) return 0;
  const fd = openSync(file, 'r');
  try {
    const first = readMeta(fd, 0);
    const second = first && readMeta(fd, first.pageSize);
    const newest = first && second && (first.transaction > second.transaction ? first : second);
    if (!newest || (newest.lastPage + 1n) * BigInt(newest.pageSize) > BigInt(sizeBytes)) {
      throw new StatusError('DATA_LOSS', `${file} is damaged or cut short`);
    }
  } finally {
    closeSync(fd);
  }
  return sizeBytes;
}

function readMeta(
  fd: number,
  position: number,
): { pageSize: number; lastPage: bigint; transaction: bigint } | undefined {
  const page = Buffer.alloc(metaAt.end);
  if (readSync(fd, page, 0, page.length, position) < page.length) return undefined;
  const pageSize = page.readUInt32LE(metaAt.pageSize);
  if (page.readUInt32LE(metaAt.magic) !== lmdbMagic || page.readUInt32LE(metaAt.version) !== lmdbVersion) {
    return undefined;
  }
  return {
    pageSize,
    lastPage: page.readBigUInt64LE(metaAt.lastPage),
    transaction: page.readBigUInt64LE(metaAt.transaction),
  };
}
