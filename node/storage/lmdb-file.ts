/** A look at an LMDB file before LMDB maps it (layout of the LMDB that lmdb 3.5 carries). */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { join } from 'node:path';
import { StatusError } from '../../protos/status.ts';

const metaAt = {
  magic: 24,
  version: 28,
  pageSize: 48,
  freeRoot: 88,
  mainRoot: 136,
  lastPage: 144,
  transaction: 152,
  end: 160,
};
const pageAt = { number: 0, flags: 18, lower: 20, base: 24 };
const nodeAt = { low: 0, flags: 4, keySize: 6, key: 8 };
/** In the record of a table inside another one. */
const tableRootAt = 40;
const overflowAt = { number: 0, pages: 16 };
const branchPage = 0x01;
const leafPage = 0x02;
const overflowNode = 0x01;
const tableNode = 0x02;
const noPage = 2n ** 64n - 1n;
const lmdbMagic = 0xbeefc0de;
const lmdbVersion = 2;
/** A live writer replaces the pages under our eyes; so often a newer state is looked at instead. */
const looksMax = 5;

interface Meta {
  readonly pageSize: number;
  readonly roots: readonly bigint[];
  readonly lastPage: bigint;
  readonly transaction: bigint;
}

/**
 * LMDB maps its file and trusts it: a damaged header or a cut file would end the process with a signal, not with an
 * error. So the two meta pages and the length are looked at first. Returns the file's size, 0 when there is none. Throws
 * DATA_LOSS when LMDB had better not open it.
 */
export function checkEnvironment(path: string): number {
  const file = join(path, 'data.mdb');
  let fd: number;
  try {
    fd = openSync(file, 'r');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return 0;
    throw error;
  }
  try {
    if (fstatSync(fd).size === 0) return 0;
    for (let looks = 0, before = -1n; looks < looksMax; looks++) {
      const newest = newestMeta(fd);
      // The same state twice: nobody is writing, so it is as bad as it looks.
      if (!newest || newest.transaction === before) break;
      // Measured after the meta pages were read: a live writer makes the file longer, then says so there.
      const sizeBytes = fstatSync(fd).size;
      if (isWhole(fd, newest, sizeBytes)) return sizeBytes;
      before = newest.transaction;
    }
    throw new StatusError('DATA_LOSS', `${file} is damaged or cut short`);
  } finally {
    closeSync(fd);
  }
}

/**
 * LMDB never writes a page that a transaction took and gave back, so a sound file may end before the last page its header
 * counts. Then all pages in use have to be there.
 */
function isWhole(fd: number, meta: Meta, sizeBytes: number): boolean {
  try {
    const pages = BigInt(Math.floor(sizeBytes / meta.pageSize));
    return meta.lastPage < pages || meta.roots.every((root) => isTreeWhole(fd, root, meta.pageSize, pages));
  } catch (error) {
    // A place that a damaged page names is outside of it.
    if (error instanceof RangeError) return false;
    throw error;
  }
}

function isTreeWhole(fd: number, root: bigint, pageSize: number, pages: bigint): boolean {
  const page = Buffer.alloc(pageSize);
  const open = root === noPage ? [] : [root];
  let left = pages;
  for (let number = open.pop(); number !== undefined; number = open.pop()) {
    // More than there are: damaged pages that lead in a circle.
    if (number >= pages || left-- === 0n) return false;
    readSync(fd, page, 0, pageSize, Number(number) * pageSize);
    const flags = page.readUInt16LE(pageAt.flags);
    if (page.readBigUInt64LE(pageAt.number) !== number || (flags & (branchPage | leafPage)) === 0) return false;
    const nodes = page.readUInt16LE(pageAt.lower) / 2;
    for (let at = 0; at < nodes; at++) {
      const node = page.subarray(pageAt.base + page.readUInt16LE(pageAt.base + 2 * at));
      const nodeFlags = node.readUInt16LE(nodeAt.flags);
      const data = nodeAt.key + node.readUInt16LE(nodeAt.keySize);
      if ((flags & branchPage) !== 0) {
        open.push(BigInt(node.readUInt32LE(nodeAt.low)) | (BigInt(nodeFlags) << 32n));
      } else if ((nodeFlags & overflowNode) !== 0) {
        const first = node.readBigUInt64LE(data + overflowAt.number);
        if (first + node.readBigUInt64LE(data + overflowAt.pages) > pages) return false;
      } else if ((nodeFlags & tableNode) !== 0) {
        const inner = node.readBigUInt64LE(data + tableRootAt);
        if (inner !== noPage) open.push(inner);
      }
    }
  }
  return true;
}

function newestMeta(fd: number): Meta | undefined {
  const first = readMeta(fd, 0);
  const second = first && readMeta(fd, first.pageSize);
  return first && second && (first.transaction > second.transaction ? first : second);
}

function readMeta(fd: number, position: number): Meta | undefined {
  const page = Buffer.alloc(metaAt.end);
  if (readSync(fd, page, 0, page.length, position) < page.length) return undefined;
  if (page.readUInt32LE(metaAt.magic) !== lmdbMagic || page.readUInt32LE(metaAt.version) !== lmdbVersion) {
    return undefined;
  }
  return {
    pageSize: page.readUInt32LE(metaAt.pageSize),
    roots: [page.readBigUInt64LE(metaAt.freeRoot), page.readBigUInt64LE(metaAt.mainRoot)],
    lastPage: page.readBigUInt64LE(metaAt.lastPage),
    transaction: page.readBigUInt64LE(metaAt.transaction),
  };
}
