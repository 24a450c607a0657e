/** Lists of chunks when something goes wrong around them: bad chunks, races, closing, files that cannot be linked. */
import { chmod, mkdir, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { type FsFile, type FsPort, nodeFs } from '../../../../node/storage/fs-port.ts';
import { knownChunksMax, lookupsPerTurn } from '../../../../node/storage/limits.ts';
import { canBeList } from '../../../../node/storage/chunk-lists.ts';
import { openLmdbIndex } from '../../../../node/storage/lmdb-index.ts';
import type { OpenStoreOptions } from '../../../../node/storage/open-store.ts';
import type { IndexChange } from '../../../../node/storage/store-index.ts';
import { type Digest, digestKey } from '../../../../protos/digest.ts';
import { type Blob, blobOf, chunksOf, randomBlob, readAll } from '../../../contract/blobs.ts';
import { diskUsage, type TempStore, tempStore } from './temp-store.ts';

const MiB = 1024 ** 2;
const sizes = [1.5 * MiB, 300_000, 5_000, 700_000];

let subject: TempStore;
beforeEach(async () => {
  subject = await tempStore();
});
afterEach(async () => {
  await subject[Symbol.asyncDispose]();
});

const blobs = () => subject.store.blobs;
const digestsOf = (some: readonly Blob[]): Digest[] => some.map(({ digest }) => digest);

function chunked(): { whole: Blob; chunks: Blob[] } {
  const chunks = sizes.map((size) => randomBlob(size));
  return { whole: blobOf(Buffer.concat(chunks.map(({ bytes }) => bytes))), chunks };
}

async function spliced() {
  const made = chunked();
  await blobs().putMany(made.chunks);
  await blobs().putChunked(made.whole.digest, digestsOf(made.chunks));
  expect(subject.store.stats().chunkedBlobs).toBe(1);
  return made;
}

async function flip(path: string, at = 100): Promise<void> {
  const bytes = await readFile(path);
  bytes[at] = (bytes[at] ?? 0) ^ 1;
  await chmod(path, 0o644);
  await writeFile(path, bytes);
}

/** Removes a chunk's file and has the store notice. */
async function lose(chunk: Blob | undefined): Promise<void> {
  await rm(subject.fileOf(chunk?.digest as Digest));
  expect(await blobs().get(chunk?.digest as Digest)).toBeUndefined();
}

/** An index that calls `before` when a list is about to be committed. */
function indexWith(before: () => Promise<unknown>): NonNullable<OpenStoreOptions['openIndex']> {
  const isList = (change: IndexChange): boolean => change.kind === 'inline' && change.value.byteLength < 1_000;
  return async (options) => {
    const index = await openLmdbIndex(options);
    return {
      ...index,
      async commit(changes) {
        if (changes.some(({ kind }) => kind === 'remove') && changes.some(isList)) await before();
        await index.commit(changes);
      },
    };
  };
}

/** A file system that changes files opened for reading at `path`. */
function withFile(path: () => string, change: (file: FsFile) => FsFile): FsPort {
  return {
    ...nodeFs,
    openRead: async (opened) => {
      const file = await nodeFs.openRead(opened);
      return opened === path() ? change(file) : file;
    },
  };
}

describe('a file made of chunks is whole', () => {
  test.each(['EXDEV', 'EMLINK', 'ENOENT'])('where a hard link cannot be had: %s', async (code) => {
    const fs: FsPort = { ...nodeFs, link: () => Promise.reject(Object.assign(new Error(code), { code })) };
    await subject.reopen(undefined, { fs });
    const { whole } = await spliced();
    for (const executable of [false, true]) {
      const path = join(subject.dataDir, `linked-${executable}`);
      expect(await blobs().linkTo(whole.digest, path, { executable })).toBe(true);
      expect((await readFile(path)).equals(whole.bytes)).toBe(true);
    }
  });

  test('for all who link it at once, and again after the store was emptied', async () => {
    const { whole, chunks } = await spliced();
    const paths = Array.from({ length: 6 }, (_, at) => join(subject.dataDir, `linked-${at}`));
    await Promise.all(paths.map((path, at) => blobs().linkTo(whole.digest, path, { executable: at % 2 === 0 })));
    for (const path of paths) expect((await readFile(path)).equals(whole.bytes)).toBe(true);
    await subject.store.gc({ targetBytes: 0 });
    expect(await readdir(join(subject.dataDir, 'links'))).toEqual([]);
    expect(await blobs().linkTo(whole.digest, `${paths[0]}-gone`, { executable: true })).toBe(false);
    await blobs().putMany(chunks);
    await blobs().putChunked(whole.digest, digestsOf(chunks));
    expect(await blobs().linkTo(whole.digest, `${paths[0]}-again`, { executable: true })).toBe(true);
    expect((await readFile(`${paths[0]}-again`)).equals(whole.bytes)).toBe(true);
  });
});

describe('while the list takes the place of the file', () => {
  test('a store that is closed does not wait for those who read the file', async () => {
    const { whole, chunks } = chunked();
    const readers: Awaited<ReturnType<typeof openWhole>>[] = [];
    const openWhole = () => blobs().open(whole.digest);
    await subject.reopen(undefined, { openIndex: indexWith(async () => void readers.push(await openWhole())) });
    await blobs().put(whole.digest, chunksOf(whole.bytes, 65_536));
    await blobs().putMany(chunks);
    await blobs().putChunked(whole.digest, digestsOf(chunks));
    expect(readers).toHaveLength(1);
    const [reader] = readers;
    expect(reader && (await readAll(reader)).equals(whole.bytes)).toBe(true);

    await subject.reopen();
    expect(Buffer.from((await blobs().get(whole.digest)) ?? []).equals(whole.bytes)).toBe(true);
    expect(await subject.store.verify()).toMatchObject({ dropped: [], strayFiles: 0 });
    await reader?.[Symbol.asyncDispose]();
  });

  test('a file that turns out bad does not take the list with it', async () => {
    const { whole, chunks } = chunked();
    const readers: Awaited<ReturnType<typeof openWhole>>[] = [];
    const openWhole = () => blobs().open(whole.digest);
    await blobs().put(whole.digest, chunksOf(whole.bytes, 65_536));
    await blobs().putMany(chunks);
    await subject.reopen(() => flip(subject.fileOf(whole.digest)), {
      openIndex: indexWith(async () => void readers.push(await openWhole())),
    });
    await blobs().putChunked(whole.digest, digestsOf(chunks));
    const [reader] = readers;
    await expect(reader && readAll(reader)).rejects.toMatchObject({ code: 'NOT_FOUND' });
    await reader?.[Symbol.asyncDispose]();
    expect(await blobs().missing([whole.digest])).toEqual([]);
    expect(Buffer.from((await blobs().get(whole.digest)) ?? []).equals(whole.bytes)).toBe(true);
  });

  test.each([
    ['of a blob that is a file', true],
    ['of a new blob', false],
  ])('a chunk that is lost before the list %s is written has it refused', async (_, isFile) => {
    const { whole, chunks } = chunked();
    let isArmed = false;
    await subject.reopen(undefined, {
      fs: withFile(
        () => subject.fileOf((chunks[3] as Blob).digest),
        (file) => ({
          ...file,
          async close() {
            await file.close();
            if (!isArmed) return;
            isArmed = false;
            await lose(chunks[0]);
          },
        }),
      ),
    });
    if (isFile) await blobs().put(whole.digest, chunksOf(whole.bytes, 65_536));
    await blobs().putMany(chunks);
    isArmed = true;
    await expect(blobs().putChunked(whole.digest, digestsOf(chunks))).rejects.toMatchObject({ code: 'NOT_FOUND' });
    expect(isArmed).toBe(false);
    expect(await blobs().missing([whole.digest])).toEqual(isFile ? [] : [whole.digest]);
    if (isFile) expect(Buffer.from((await blobs().get(whole.digest)) ?? []).equals(whole.bytes)).toBe(true);
    expect(subject.store.stats().chunkedBlobs).toBe(0);
  });

  test('what came piece by piece is kept when a list of the same blob came and went meanwhile', async () => {
    const { whole, chunks } = chunked();
    let isArmed = false;
    const fs: FsPort = {
      ...nodeFs,
      create: async (path, mode) => {
        const file = await nodeFs.create(path, mode);
        return {
          ...file,
          async sync() {
            await file.sync();
            if (!isArmed) return;
            isArmed = false;
            await blobs().putChunked(whole.digest, digestsOf(chunks));
            await lose(chunks[0]);
          },
        };
      },
    };
    await subject.reopen(undefined, { fs });
    await blobs().putMany(chunks);
    await using arrival = await blobs().arrive(whole.digest);
    await arrival.write(0, [whole.bytes]);
    isArmed = true;
    await arrival.finish();
    expect(isArmed).toBe(false);
    expect(Buffer.from((await blobs().get(whole.digest)) ?? []).equals(whole.bytes)).toBe(true);
  });
});

test('a blob that is pinned as a file does not become a list that nobody has pinned', async () => {
  const { whole, chunks } = chunked();
  await blobs().put(whole.digest, chunksOf(whole.bytes, 65_536));
  using _ = await blobs().pin([whole.digest]);
  await lose(whole);
  await blobs().putMany(chunks);
  await blobs().putChunked(whole.digest, digestsOf(chunks));
  await subject.store.gc({ targetBytes: 0 });
  await subject.store.gc({ targetBytes: 0 });
  expect(await blobs().missing([whole.digest])).toEqual([]);
});

test.each([true, false])(
  'a disk that is full leaves what there was (a file: %s), until there is room',
  async (isFile) => {
    const { whole, chunks } = chunked();
    let isFull = false;
    await subject.reopen(undefined, {
      fs: { ...nodeFs, freeBytes: async (path) => (isFull ? 0 : nodeFs.freeBytes(path)) },
    });
    if (isFile) await blobs().put(whole.digest, chunksOf(whole.bytes, 65_536));
    await blobs().putMany(chunks);
    const { usedBytes } = subject.store.stats();
    isFull = true;
    await expect(blobs().putChunked(whole.digest, digestsOf(chunks))).rejects.toMatchObject({
      code: 'RESOURCE_EXHAUSTED',
    });
    expect(subject.store.stats()).toMatchObject({ chunkedBlobs: 0, pinnedBlobs: 0, usedBytes });
    expect(await blobs().missing([whole.digest])).toEqual(isFile ? [] : [whole.digest]);
    isFull = false;
    await blobs().putChunked(whole.digest, digestsOf(chunks));
    expect(Buffer.from((await blobs().get(whole.digest)) ?? []).equals(whole.bytes)).toBe(true);
  },
);

test('who gives up a splice leaves nothing pinned and nothing stored', async () => {
  const { whole, chunks } = chunked();
  const abort = new AbortController();
  await subject.reopen(undefined, {
    fs: withFile(
      () => subject.fileOf((chunks[1] as Blob).digest),
      (file) => ({
        ...file,
        read: async (into, position) => {
          abort.abort(new Error('given up'));
          return file.read(into, position);
        },
      }),
    ),
  });
  await blobs().putMany(chunks);
  const splicing = blobs().putChunked(whole.digest, digestsOf(chunks), { signal: abort.signal });
  await expect(splicing).rejects.toThrow('given up');
  expect(subject.store.stats()).toMatchObject({ chunkedBlobs: 0, pinnedBlobs: 0 });
  expect(await blobs().missing([whole.digest])).toEqual([whole.digest]);
});

test('a blob larger than the cache is held when its chunks fit, and has its room as a file or none', async () => {
  await subject[Symbol.asyncDispose]();
  subject = await tempStore({ sizeLimitBytes: 8 * MiB });
  const chunk = randomBlob(MiB);
  const whole = blobOf(Buffer.concat(Array.from({ length: 12 }, () => chunk.bytes)));
  await blobs().putMany([chunk]);
  await blobs().putChunked(
    whole.digest,
    Array.from({ length: 12 }, () => chunk.digest),
  );
  expect(Buffer.from((await blobs().get(whole.digest)) ?? []).equals(whole.bytes)).toBe(true);
  const path = join(dirname(subject.dataDir), 'linked');
  expect(await blobs().linkTo(whole.digest, path, { executable: false })).toBe(true);
  expect((await readFile(path)).equals(whole.bytes)).toBe(true);
  expect(await readdir(join(subject.dataDir, 'links'))).toEqual([]);
  await expect(blobs().put(randomBlob(12 * MiB).digest, chunksOf(Buffer.alloc(1)))).rejects.toMatchObject({
    code: 'RESOURCE_EXHAUSTED',
  });
  expect(await diskUsage(subject.dataDir)).toBeLessThanOrEqual(8 * MiB);
});

test('several who splice one blob at once, each from chunks of their own, all find it', async () => {
  const { whole, chunks } = chunked();
  const halves = [whole.bytes.subarray(0, 1_100_000), whole.bytes.subarray(1_100_000)].map((bytes) => blobOf(bytes));
  await blobs().putMany([...chunks, ...halves]);
  const { storedBlobs } = subject.store.stats().counters;
  await Promise.all([
    blobs().putChunked(whole.digest, digestsOf(chunks)),
    blobs().putChunked(whole.digest, digestsOf(halves)),
    blobs().put(whole.digest, chunksOf(whole.bytes, 100_000)),
    blobs().putChunked(whole.digest, digestsOf(chunks)),
  ]);
  const stats = subject.store.stats();
  expect(stats.counters.storedBlobs).toBe(storedBlobs + 1);
  expect(stats.blobs).toBe(chunks.length + halves.length + 1);
  expect(Buffer.from((await blobs().get(whole.digest)) ?? []).equals(whole.bytes)).toBe(true);
  expect(await subject.store.verify()).toMatchObject({ dropped: [], strayFiles: 0 });
});

test('what can be a list is long, of chunks that are short but not too many', () => {
  const chunk = randomBlob(1).digest;
  const listOf = (count: number, sizeBytes: number): boolean => {
    const chunks = Array.from({ length: count }, () => ({ ...chunk, sizeBytes }));
    return canBeList({ ...chunk, sizeBytes: count * sizeBytes }, chunks);
  };
  expect(listOf(2, MiB)).toBe(false);
  expect(listOf(3, MiB)).toBe(true);
  expect(listOf(3, 2 * MiB)).toBe(true);
  expect(listOf(3, 2 * MiB + 1)).toBe(false);
  expect(listOf(1_000, 32 * 1024)).toBe(true);
  expect(listOf(1_000, 32 * 1024 - 1)).toBe(false);
  expect(listOf(knownChunksMax, MiB)).toBe(true);
  expect(listOf(knownChunksMax + 1, MiB)).toBe(false);
});

test('chunks of another digest function do not make a list', async () => {
  const { whole, chunks } = chunked();
  const others = chunks.map(({ bytes }) => blobOf(bytes, 'sha1'));
  await blobs().putMany(others);
  await blobs().putChunked(whole.digest, digestsOf(others));
  expect(Buffer.from((await blobs().get(whole.digest)) ?? []).equals(whole.bytes)).toBe(true);
});

test('a list that is found under the name of another blob is damage', async () => {
  const first = chunked();
  const second = { ...first, whole: blobOf(Buffer.concat([...first.chunks].reverse().map(({ bytes }) => bytes))) };
  let isSwapped = false;
  const lists: Uint8Array[] = [];
  await subject.reopen(undefined, {
    openIndex: async (options) => {
      const real = await openLmdbIndex(options);
      return {
        ...real,
        async commit(changes) {
          for (const change of changes)
            if (change.kind === 'inline' && change.value.byteLength < 1_000) lists.push(change.value);
          await real.commit(changes);
        },
        value(entry) {
          const value = real.value(entry);
          return isSwapped && value && lists[0] && Buffer.from(value).equals(lists[0]) ? lists[1] : value;
        },
      };
    },
  });
  await blobs().putMany(first.chunks);
  await blobs().putChunked(first.whole.digest, digestsOf(first.chunks));
  await blobs().putChunked(second.whole.digest, digestsOf([...first.chunks].reverse()));
  expect(lists).toHaveLength(2);
  isSwapped = true;
  expect((await blobs().get(first.whole.digest)) === undefined).toBe(true);
  expect(await blobs().missing([first.whole.digest, second.whole.digest])).toEqual([first.whole.digest]);
});

test('a file left behind that has the name of a list goes, and the blob stays all the time', async () => {
  const { whole } = await spliced();
  const path = subject.fileOf(whole.digest);
  await mkdir(dirname(path), { recursive: true });
  await writeFile(path, whole.bytes);
  const heard: boolean[] = [];
  const stop = subject.store.watch((digest, isHeld) => {
    if (digest.hash === whole.digest.hash) heard.push(isHeld);
  });
  let isDone = false;
  let asked = 0;
  let missed = 0;
  const asking = (async () => {
    for (; !isDone; asked += 1) {
      missed += (await blobs().missing([whole.digest])).length;
      await new Promise(setImmediate);
    }
  })();
  const report = await subject.store.verify();
  isDone = true;
  await asking;
  expect(missed).toBe(0);
  stop();
  expect(asked).toBeGreaterThan(0);
  expect(report).toMatchObject({ dropped: [], strayFiles: 1 });
  expect(heard).toEqual([]);
  await expect(stat(path)).rejects.toMatchObject({ code: 'ENOENT' });
  expect(Buffer.from((await blobs().get(whole.digest)) ?? []).equals(whole.bytes)).toBe(true);
});

describe('a chunk that is bad', () => {
  test.each([1, 2, 3, 4])('is dropped by verify together with the blobs it is part of (%i)', async () => {
    const { whole, chunks } = await spliced();
    const other = randomBlob(3 * MiB);
    await blobs().put(other.digest, chunksOf(other.bytes, 65_536));
    const bad = chunks[3] as Blob;
    await flip(subject.fileOf(bad.digest));
    const { dropped } = await subject.store.verify();
    expect([...dropped].sort()).toEqual([digestKey(bad.digest), digestKey(whole.digest)].sort());
    expect(await blobs().missing(digestsOf([whole, ...chunks, other]))).toEqual(digestsOf([whole, bad]));
    await expect.poll(() => subject.store.stats().chunkedBlobs).toBe(0);
    expect((await subject.store.verify()).dropped).toEqual([]);
  });

  test.each([
    ['ends in it', 1.5 * MiB - 10, 100_000],
    ['holds all of it', 1000, 1.9 * MiB],
    ['begins in it', 1.5 * MiB + 1000, 400_000],
  ])('lets no wrong byte out of a part that %s', async (_, offset, length) => {
    const { whole, chunks } = await spliced();
    await subject.reopen(() => flip(subject.fileOf((chunks[1] as Blob).digest)));
    await using reader = await blobs().open(whole.digest);
    const parts: Uint8Array[] = [];
    const reading = (async () => {
      for await (const part of reader?.read({ offset, length }) ?? []) parts.push(part);
    })();
    await expect(reading).rejects.toMatchObject({ code: 'NOT_FOUND' });
    const seen = Buffer.concat(parts);
    expect(seen.equals(whole.bytes.subarray(offset, offset + seen.byteLength))).toBe(true);
    expect(await blobs().missing([whole.digest])).toEqual([whole.digest]);
  });

  test.each(['copyTo', 'linkTo'] as const)('is noticed by %s, which makes no file', async (how) => {
    const { whole, chunks } = await spliced();
    await subject.reopen(() => flip(subject.fileOf((chunks[3] as Blob).digest), 650_000));
    const path = join(subject.dataDir, 'made');
    expect(await blobs()[how](whole.digest, path, { executable: true })).toBe(false);
    await expect(stat(path)).rejects.toMatchObject({ code: 'ENOENT' });
    expect(await blobs().missing([whole.digest])).toEqual([whole.digest]);
    expect(await readdir(join(subject.dataDir, 'links'))).toEqual([]);
  });
});

test('a blob whose chunk was evicted is not among those that are held', async () => {
  const { whole, chunks } = await spliced();
  expect([...subject.store.held()].map(({ hash }) => hash)).toContain(whole.digest.hash);
  await lose(chunks[0]);
  expect([...subject.store.held()].map(({ hash }) => hash)).not.toContain(whole.digest.hash);
});

test('a blob is there again when the chunk it lacked is, if nobody asked meanwhile', async () => {
  const { whole, chunks } = await spliced();
  await lose(chunks[0]);
  await blobs().putMany(chunks);
  expect(Buffer.from((await blobs().get(whole.digest)) ?? []).equals(whole.bytes)).toBe(true);
});

test('evicting a list counts the bytes that were kept', async () => {
  const { chunks } = await spliced();
  const kept = chunks.reduce((sum, { digest }) => sum + digest.sizeBytes, 0);
  const { evictedBytes } = await subject.store.gc({ targetBytes: 0 });
  expect(evictedBytes).toBeLessThanOrEqual(kept);
  expect(evictedBytes).toBeGreaterThan(2 * MiB);
});

test('others have their turn while long lists are looked up', async () => {
  const chunk = randomBlob(33_000);
  const count = 1_000;
  const whole = blobOf(Buffer.concat(Array.from({ length: count }, () => chunk.bytes)));
  await blobs().putMany([chunk]);
  await blobs().putChunked(
    whole.digest,
    Array.from({ length: count }, () => chunk.digest),
  );
  expect(subject.store.stats().chunkedBlobs).toBe(1);
  let turns = 0;
  let isDone = false;
  const counting = (async () => {
    for (; !isDone; turns += 1) await new Promise(setImmediate);
  })();
  const asked = 100;
  expect(await blobs().missing(Array.from({ length: asked }, () => whole.digest))).toEqual([]);
  isDone = true;
  await counting;
  expect(turns).toBeGreaterThanOrEqual(Math.floor((asked * count) / lookupsPerTurn));
});
