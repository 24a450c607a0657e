import { execFileSync } from 'node:child_process';
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { create } from '@bufbuild/protobuf';
import { expect, onTestFinished, test } from 'vitest';
import { type FsFile, type FsPort, nodeFs } from '../../../../node/storage/fs-port.ts';
import { ActionResultSchema } from '../../../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { type Blob, blobOf, chunksOf, randomBlob } from '../../../contract/blobs.ts';
import { tempStore } from './temp-store.ts';

/** The real file system, whose disk is full from the `n`th call on that would need space, until it is let go. */
function fullAfter() {
  let callsLeft = Number.POSITIVE_INFINITY;
  let hasFailed = false;
  async function needsSpace<T>(call: () => Promise<T>): Promise<T> {
    if (callsLeft-- > 0) return call();
    hasFailed = true;
    throw Object.assign(new Error('ENOSPC: no space left on device'), { code: 'ENOSPC' });
  }
  const wrap = (file: FsFile): FsFile => ({
    ...file,
    append: (chunks) => needsSpace(() => file.append(chunks)),
    sync: () => needsSpace(() => file.sync()),
  });
  const fs: FsPort = {
    ...nodeFs,
    create: (path, mode) => needsSpace(async () => wrap(await nodeFs.create(path, mode))),
    rename: (from, to) => needsSpace(() => nodeFs.rename(from, to)),
    link: (from, to) => needsSpace(() => nodeFs.link(from, to)),
    copy: (from, to) => needsSpace(() => nodeFs.copy(from, to)),
    makeDir: (path) => needsSpace(() => nodeFs.makeDir(path)),
    syncDir: (path) => needsSpace(() => nodeFs.syncDir(path)),
    freeBytes: async (path) => (callsLeft-- > 0 ? nodeFs.freeBytes(path) : ((hasFailed = true), 0)),
  };
  return {
    fs,
    /** Runs `action` with the disk full after `calls`; false when it never came to that. */
    async during(calls: number, action: () => Promise<void>): Promise<boolean> {
      hasFailed = false;
      callsLeft = calls;
      await action();
      callsLeft = Number.POSITIVE_INFINITY;
      return hasFailed;
    },
  };
}

test.each([
  ['small', 500],
  ['large', 50_000],
])(
  'a disk that is full at any step of storing a %s blob refuses it and leaves nothing behind',
  async (_, sizeBytes) => {
    const full = fullAfter();
    await using subject = await tempStore({ fs: full.fs });
    const { blobs } = subject.store;
    const held = randomBlob(30_000);
    await blobs.put(held.digest, chunksOf(held.bytes));

    let steps = 0;
    for (; ; steps++) {
      const { digest, bytes } = randomBlob(sizeBytes);
      const hasFailed = await full.during(steps, async () => {
        const error: unknown = await blobs.put(digest, chunksOf(bytes)).catch((reason: unknown) => reason);
        if (error !== undefined) {
          expect(error).toMatchObject({ code: 'RESOURCE_EXHAUSTED' });
          expect(await blobs.missing([digest])).toEqual([digest]);
        }
        // What is held is served meanwhile.
        expect(Buffer.from((await blobs.get(held.digest)) ?? [])).toEqual(held.bytes);
      });
      expect(await readdir(join(subject.dataDir, 'tmp'))).toEqual([]);
      await blobs.put(digest, chunksOf(bytes));
      expect(await blobs.missing([digest])).toEqual([]);
      if (!hasFailed) break;
    }
    expect(steps).toBeGreaterThan(0);
    expect(subject.store.stats().usedBytes).toBeLessThan(1024 ** 2);
    expect(await subject.store.verify()).toMatchObject({ dropped: [], strayFiles: 0 });
  },
);

test('a full disk refuses results, and takes them when there is space again', async () => {
  const full = fullAfter();
  await using subject = await tempStore({ fs: full.fs });
  const key = { instance: '', action: blobOf('action').digest };
  const result = create(ActionResultSchema, { exitCode: 1 });
  await full.during(0, async () => {
    await expect(subject.store.actions.put(key, result)).rejects.toMatchObject({ code: 'RESOURCE_EXHAUSTED' });
  });
  expect(await subject.store.actions.get(key)).toBeUndefined();
  await subject.store.actions.put(key, result);
  expect(await subject.store.actions.get(key)).toEqual(result);
});

/** A real file system of 12 MiB, or why there is none. */
async function smallDisk(): Promise<{ path: string } | { skipped: string }> {
  const path = await mkdtemp(join(tmpdir(), 'potluck-small-disk-'));
  onTestFinished(() => rm(path, { recursive: true, force: true }));
  try {
    execFileSync('/bin/mount', ['-t', 'tmpfs', '-o', 'size=12m', 'potluck-test', path], { stdio: 'pipe' });
  } catch (error) {
    return { skipped: `cannot mount a tmpfs (${String((error as Error).message).trim()}); run as root to check this` };
  }
  onTestFinished(() => void execFileSync('/bin/umount', ['--lazy', path]));
  return { path };
}

test('a real disk that fills up', async (context) => {
  const disk = await smallDisk();
  if ('skipped' in disk) {
    console.log(`skipped: ${disk.skipped}`);
    return context.skip(disk.skipped);
  }
  await using subject = await tempStore({ dataDir: disk.path });
  const { blobs } = subject.store;
  const stored: Blob[] = [];
  const refused: Blob[] = [];
  for (let round = 0; round < 60; round++) {
    for (const sizeBytes of [300_000, 5_000, 5_000]) {
      const blob = randomBlob(sizeBytes);
      const error: unknown = await blobs.put(blob.digest, chunksOf(blob.bytes)).catch((reason: unknown) => reason);
      (error === undefined ? stored : refused).push(blob);
      if (error !== undefined) expect(error).toMatchObject({ code: 'RESOURCE_EXHAUSTED' });
    }
  }
  expect(stored.length).toBeGreaterThan(20);
  expect(refused.length).toBeGreaterThan(20);
  expect(await readdir(join(subject.dataDir, 'tmp'))).toEqual([]);
  for (const { digest, bytes } of stored) expect(Buffer.from((await blobs.get(digest)) ?? [])).toEqual(bytes);
  expect(await blobs.missing(refused.map(({ digest }) => digest))).toHaveLength(refused.length);
  expect(await subject.store.verify()).toMatchObject({ dropped: [], strayFiles: 0 });

  // Evicting works on the full disk and makes room.
  const { evictedBlobs } = await subject.store.gc({ targetBytes: 6 * 1024 ** 2 });
  expect(evictedBlobs).toBeGreaterThan(5);
  const [late] = refused;
  if (late) await blobs.put(late.digest, chunksOf(late.bytes));
});

test('a disk that turns out full in the midst of a commit', async (context) => {
  const disk = await smallDisk();
  if ('skipped' in disk) return context.skip(disk.skipped);
  const unheard: unknown[] = [];
  const onUnheard = (reason: unknown): void => void unheard.push(reason);
  process.on('unhandledRejection', onUnheard);
  onTestFinished(() => void process.off('unhandledRejection', onUnheard));
  // LMDB says so on standard error as well.
  const { error } = console;
  console.error = () => {};
  onTestFinished(() => void (console.error = error));

  // As if there were space whenever it is asked for.
  await using subject = await tempStore({
    dataDir: disk.path,
    fs: { ...nodeFs, freeBytes: async () => Number.MAX_SAFE_INTEGER },
  });
  await writeFile(join(disk.path, 'filler'), Buffer.alloc(9 * 1024 ** 2));
  const stored: Blob[] = [];
  const refused: Blob[] = [];
  while (refused.length < 5) {
    const blob = randomBlob(7_000);
    const [error] = await subject.store.blobs.putMany([blob]);
    (error === undefined ? stored : refused).push(blob);
  }
  expect(await subject.store.blobs.missing([...stored, ...refused].map(({ digest }) => digest))).toEqual(
    refused.map(({ digest }) => digest),
  );
  await rm(join(disk.path, 'filler'));
  expect(await subject.store.blobs.putMany(refused)).toEqual(refused.map(() => undefined));
  expect((await subject.store.verify()).dropped).toEqual([]);
  expect(unheard).toEqual([]);
});

test('a disk filled by others is served from', async (context) => {
  const disk = await smallDisk();
  if ('skipped' in disk) return context.skip(disk.skipped);
  await using subject = await tempStore({ dataDir: disk.path });
  const { blobs } = subject.store;
  const all = [randomBlob(100), randomBlob(100_000)];
  expect(await blobs.putMany(all)).toEqual([undefined, undefined]);
  await writeFile(join(disk.path, 'filler'), Buffer.alloc(12 * 1024 ** 2)).catch(() => {});
  const one = randomBlob(100);
  expect(await blobs.putMany([one])).toMatchObject([{ code: 'RESOURCE_EXHAUSTED' }]);
  for (const { digest, bytes } of all) expect(Buffer.from((await blobs.get(digest)) ?? [])).toEqual(bytes);
  await rm(join(disk.path, 'filler'));
  expect(await blobs.putMany([one])).toEqual([undefined]);
});
