/**
 * The index in LMDB: tables `entries` (key to place, seq, value id), `order` (place and seq to key), `values` (value id to
 * key and bytes) and `meta`. Values are keyed by a rising id, so that new ones are appended and old ones free whole pages;
 * hashes as keys would rewrite a page per blob.
 */
import { type Database, open, type RootDatabase, type RootDatabaseOptionsWithPath } from 'lmdb';
import { StatusError } from '../../protos/status.ts';
import { diskBytes, isResultKey, keySizeBytes, keyText } from './entry-key.ts';
import { indexShareMax, smallBlobBytesMax } from './limits.ts';
import { checkEnvironment } from './lmdb-file.ts';
import { claimOwnership, nobody } from './owner.ts';
import type { IndexEntry, IndexTotals, StoreIndex } from './store-index.ts';

const schemaVersion = 1;
const idWidthBytes = 6;
const mapBytesMin = 1024 ** 3;
const totalsKey = Buffer.from('totals');
const ownerKey = Buffer.from('owner');
const schemaKey = Buffer.from('schema');
const filledKey = Buffer.from('filled');

interface Totals extends IndexTotals {
  readonly nextId: number;
}

const noTotals: Totals = {
  nextId: 1,
  fileBlobs: 0,
  fileBytes: 0,
  fileDiskBytes: 0,
  smallBlobs: 0,
  smallBytes: 0,
  chunkedBlobs: 0,
  chunkedBytes: 0,
  results: 0,
};

type Table = Database<Buffer, Buffer>;

export interface LmdbIndexOptions {
  readonly path: string;
  /** Where the lock's message sends the reader. */
  readonly dataDir: string;
  readonly sizeLimitBytes: number;
  /** Without it a commit is visible but not on the medium when it resolves. */
  readonly sync: boolean;
}

/**
 * Opens the index for writing. Throws FAILED_PRECONDITION when another live process has it; DATA_LOSS when it cannot be
 * read, so that it has to be deleted and built anew.
 */
export async function openLmdbIndex(options: LmdbIndexOptions): Promise<StoreIndex> {
  checkEnvironment(options.path);
  const root = openEnvironment({
    path: options.path,
    // A commit becomes visible only once it is on the medium; with overlapping syncs it would be the other way round.
    overlappingSync: false,
    // Its promise is out of our reach, and a commit that fails would reject it unheard; `batch` has its own.
    eventTurnBatching: false,
    noSync: !options.sync,
    mapSize: mapBytes(options.sizeLimitBytes),
  });
  const { entries, order, values, meta, previousOwner } = await closingOnFailure(root, () => {
    const all = tables(root);
    const { meta } = all;
    const previousOwner = claimOwnership({
      dataDir: options.dataDir,
      read: () => meta.get(ownerKey)?.toString(),
      write: (owner) => meta.putSync(ownerKey, Buffer.from(owner)),
      exclusively: (action) => root.transactionSync(action),
    });
    checkSchema(meta);
    return { ...all, previousOwner };
  });
  let totals = readTotals(meta);

  let isOpen = true;
  /** LMDB reads through a pointer that closing frees. */
  const mustBeOpen = (): void => {
    if (!isOpen) throw new StatusError('UNAVAILABLE', 'the store is closed');
  };

  const find = (key: Buffer): IndexEntry | undefined => {
    mustBeOpen();
    const bytes = entries.get(key);
    return bytes && decodeEntry(bytes);
  };

  return {
    isNew: meta.get(filledKey) === undefined,
    markFilled: () => meta.putSync(filledKey, Buffer.of(1)),
    closedCleanly: previousOwner === undefined,
    find,
    has(key) {
      mustBeOpen();
      return entries.doesExist(key);
    },
    value(entry) {
      mustBeOpen();
      const record = values.get(id(entry.valueId));
      return record && valueBytes(record);
    },

    async commit(changes) {
      mustBeOpen();
      const after = { ...totals };
      const overlay = new Map<string, IndexEntry | undefined>();
      const writes: (() => void)[] = [];
      const put = (table: Table, key: Buffer, value: Buffer): void =>
        void writes.push(() => void table.put(key, value));
      const remove = (table: Table, key: Buffer): void => void writes.push(() => void table.remove(key));
      const current = (key: Buffer): IndexEntry | undefined => {
        const text = keyText(key);
        return overlay.has(text) ? overlay.get(text) : find(key);
      };
      const set = (key: Buffer, entry: IndexEntry): void => {
        overlay.set(keyText(key), entry);
        put(entries, key, encodeEntry(entry));
        put(order, orderKey(entry), key);
      };
      const forget = (key: Buffer, entry: IndexEntry): void => {
        overlay.set(keyText(key), undefined);
        remove(entries, key);
        remove(order, orderKey(entry));
        if (entry.place === 'inline') remove(values, id(entry.valueId));
        count(after, key, entry.place, -1);
      };
      for (const change of changes) {
        const { key } = change;
        const old = current(key);
        if (change.kind === 'remove') {
          if (old) forget(key, old);
        } else if (old && !(change.kind === 'inline' && isResultKey(key))) {
          remove(order, orderKey(old));
          set(key, { ...old, seq: after.nextId++ });
        } else if (change.kind !== 'touch') {
          if (old) forget(key, old);
          const seq = after.nextId++;
          if (change.kind === 'inline') put(values, id(seq), encodeValue(key, change.value));
          set(key, { place: change.kind, seq, valueId: change.kind === 'inline' ? seq : 0 });
          count(after, key, change.kind, 1);
        }
      }
      if (writes.length === 0) return;
      put(meta, totalsKey, Buffer.from(JSON.stringify(after)));
      // A process that was killed while it read would keep pages from being used again, and the file growing.
      root.readerCheck();
      await reasonOf(
        root.batch(() => {
          for (const write of writes) write();
        }),
      );
      totals = after;
    },

    oldest(place, limit) {
      mustBeOpen();
      const code = placeCodes[place];
      const range = order.getRange({ start: Buffer.of(code), end: Buffer.of(code + 1), limit });
      return Array.from(range, ({ value }) => value);
    },
    keysAfter(after, limit) {
      mustBeOpen();
      return Array.from(entries.getKeys({ start: after ? Buffer.concat([after, Buffer.of(0)]) : Buffer.of(0), limit }));
    },
    totals: () => totals,
    size: () => environmentSize([entries, order, values, meta]),
    async close({ isTidy }) {
      if (!isOpen) return;
      isOpen = false;
      if (isTidy) meta.removeSync(ownerKey);
      else meta.putSync(ownerKey, Buffer.from(nobody));
      await root.close();
    },
  };
}

/** Looks at an index that another process may be writing; `undefined` when there is none. */
export async function readLmdbTotals(
  path: string,
): Promise<{ totals: IndexTotals; size: ReturnType<StoreIndex['size']> } | undefined> {
  if (checkEnvironment(path) === 0) return undefined;
  const root = openEnvironment({
    path,
    readOnly: true,
    mapSize: mapBytesMin,
  });
  try {
    const { entries, order, values, meta } = tables(root);
    return { totals: readTotals(meta), size: environmentSize([entries, order, values, meta]) };
  } finally {
    await root.close();
  }
}

type Environment = RootDatabase<Buffer, Buffer>;

function openEnvironment(options: RootDatabaseOptionsWithPath): Environment {
  try {
    return open({ ...options, noSubdir: false, keyEncoding: 'binary', encoding: 'binary' });
  } catch (error) {
    throw damaged(error) ?? error;
  }
}

async function closingOnFailure<T>(root: Environment, action: () => T): Promise<T> {
  try {
    return action();
  } catch (error) {
    await root.close();
    throw damaged(error) ?? error;
  }
}

/** MDB_PAGE_NOTFOUND, MDB_CORRUPTED, MDB_VERSION_MISMATCH, MDB_INVALID. */
const damageCodes = [-30797, -30796, -30794, -30793];

function damaged(error: unknown): StatusError | undefined {
  const { code, message } = error as { code?: unknown; message?: string };
  return damageCodes.includes(Number(code)) ? new StatusError('DATA_LOSS', `${message}`, { cause: error }) : undefined;
}

function checkSchema(meta: Table): void {
  const schema = meta.get(schemaKey)?.toString();
  if (schema === undefined) meta.putSync(schemaKey, Buffer.from(String(schemaVersion)));
  else if (schema !== String(schemaVersion)) {
    meta.removeSync(ownerKey);
    throw new StatusError('DATA_LOSS', `the index has format ${schema}, this program writes ${schemaVersion}`);
  }
}

function tables(root: Environment): { entries: Table; order: Table; values: Table; meta: Table } {
  const table = (name: string): Table => root.openDB(name, { keyEncoding: 'binary', encoding: 'binary' });
  return { entries: table('entries'), order: table('order'), values: table('values'), meta: table('meta') };
}

/** Address space only: the store bounds the size, LMDB merely has to have room. */
function mapBytes(sizeLimitBytes: number): number {
  return mapBytesMin + Math.ceil((sizeLimitBytes * indexShareMax) / mapBytesMin) * mapBytesMin;
}

function readTotals(meta: Table): Totals {
  const text = meta.get(totalsKey)?.toString();
  return text === undefined ? noTotals : { ...noTotals, ...(JSON.parse(text) as Partial<Totals>) };
}

function count(
  totals: { -readonly [K in keyof Totals]: Totals[K] },
  key: Buffer,
  place: IndexEntry['place'],
  by: 1 | -1,
): void {
  if (isResultKey(key)) {
    totals.results += by;
    return;
  }
  const sizeBytes = keySizeBytes(key);
  if (place === 'file') {
    totals.fileBlobs += by;
    totals.fileBytes += by * sizeBytes;
    totals.fileDiskBytes += by * diskBytes(sizeBytes);
  } else if (sizeBytes > smallBlobBytesMax) {
    totals.chunkedBlobs += by;
    totals.chunkedBytes += by * sizeBytes;
  } else {
    totals.smallBlobs += by;
    totals.smallBytes += by * sizeBytes;
  }
}

function environmentSize(all: readonly Table[]): { fileBytes: number; usedBytes: number } {
  const stats = all.map((table) => table.getStats() as LmdbStats);
  const whole = stats[0];
  if (!whole) return { fileBytes: 0, usedBytes: 0 };
  const metaPages = 2;
  const pages = [...stats, whole.root, whole.free].reduce((sum, tree) => sum + treePages(tree), metaPages);
  return { fileBytes: (whole.lastPageNumber + 1) * whole.pageSize, usedBytes: pages * whole.pageSize };
}

interface TreeStats {
  readonly treeBranchPageCount: number;
  readonly treeLeafPageCount: number;
  readonly overflowPages: number;
}

interface LmdbStats extends TreeStats {
  readonly pageSize: number;
  readonly lastPageNumber: number;
  readonly root: TreeStats;
  readonly free: TreeStats;
}

function treePages(tree: TreeStats): number {
  return tree.treeBranchPageCount + tree.treeLeafPageCount + tree.overflowPages;
}

/** A commit that failed says why in a promise of its own, rejected later. */
async function reasonOf(commit: Promise<boolean>): Promise<void> {
  try {
    await commit;
  } catch (error) {
    await (error as { commitError?: Promise<never> }).commitError;
    throw error;
  }
}

const placeCodes = { inline: 0, file: 1 } as const;

function id(value: number): Buffer {
  const bytes = Buffer.allocUnsafe(idWidthBytes);
  bytes.writeUIntBE(value, 0, idWidthBytes);
  return bytes;
}

function orderKey(entry: IndexEntry): Buffer {
  const bytes = Buffer.allocUnsafe(1 + idWidthBytes);
  bytes[0] = placeCodes[entry.place];
  bytes.writeUIntBE(entry.seq, 1, idWidthBytes);
  return bytes;
}

function encodeEntry(entry: IndexEntry): Buffer {
  const bytes = Buffer.allocUnsafe(1 + 2 * idWidthBytes);
  bytes[0] = placeCodes[entry.place];
  bytes.writeUIntBE(entry.seq, 1, idWidthBytes);
  bytes.writeUIntBE(entry.valueId, 1 + idWidthBytes, idWidthBytes);
  return bytes;
}

function decodeEntry(bytes: Buffer): IndexEntry {
  return {
    place: bytes[0] === placeCodes.file ? 'file' : 'inline',
    seq: bytes.readUIntBE(1, idWidthBytes),
    valueId: bytes.readUIntBE(1 + idWidthBytes, idWidthBytes),
  };
}

function encodeValue(key: Buffer, value: Uint8Array): Buffer {
  return Buffer.concat([Buffer.of(key.length), key, value]);
}

function valueBytes(record: Buffer): Buffer {
  return record.subarray(1 + (record[0] ?? 0));
}
