import { constants } from 'node:fs';
import { access, chmod, link, mkdir, readFile, stat, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { emptyDigest } from '../../../../protos/digest.ts';
import { blobOf, chunksOf, randomBlob } from '../../../contract/blobs.ts';
import { type TempStore, tempStore } from './temp-store.ts';

let subject: TempStore;
let outside: string;
beforeEach(async () => {
  subject = await tempStore();
  outside = join(subject.dataDir, '..', 'outside');
  await mkdir(outside);
});
afterEach(() => subject[Symbol.asyncDispose]());

const modeOf = async (path: string): Promise<string> => ((await stat(path)).mode & 0o7777).toString(8);
const kinds = [
  ['small', 500],
  ['large', 50_000],
] as const;

describe.each(kinds)('a %s blob', (_, sizeBytes) => {
  const { digest, bytes } = randomBlob(sizeBytes);
  beforeEach(() => subject.store.blobs.put(digest, chunksOf(bytes)));

  test.each([
    ['copyTo', false, '644'],
    ['copyTo', true, '755'],
    ['linkTo', false, '444'],
    ['linkTo', true, '555'],
  ] as const)('%s with executable %s makes a file of mode %s', async (how, executable, mode) => {
    const path = join(outside, 'file');
    expect(await subject.store.blobs[how](digest, path, { executable })).toBe(true);
    expect((await readFile(path)).equals(bytes)).toBe(true);
    expect(await modeOf(path)).toBe(mode);
    await expect(subject.store.blobs[how](digest, path, { executable })).rejects.toThrow(/EEXIST/);
  });

  test('a copy is private', async () => {
    const path = join(outside, 'file');
    await subject.store.blobs.copyTo(digest, path, { executable: false });
    await writeFile(path, 'changed');
    expect(Buffer.from((await subject.store.blobs.get(digest)) ?? [])).toEqual(bytes);
  });

  test('links of one kind share an inode, links of two kinds do not', async () => {
    const links = [false, false, true, true].map((executable, at) => ({ executable, path: join(outside, `${at}`) }));
    for (const { path, executable } of links) await subject.store.blobs.linkTo(digest, path, { executable });
    const [a, b, c, d] = await Promise.all(links.map(async ({ path }) => (await stat(path)).ino));
    expect(a).toBe(b);
    expect(c).toBe(d);
    expect(a).not.toBe(c);
    expect(await modeOf(join(outside, '0'))).toBe('444');
  });

  test.each([true, false])('a link that was written to is not handed on (executable %s)', async (executable) => {
    const { blobs } = subject.store;
    await blobs.linkTo(digest, join(outside, '0'), { executable });
    await chmod(join(outside, '0'), 0o777);
    await writeFile(join(outside, '0'), 'changed');
    if (await blobs.linkTo(digest, join(outside, '1'), { executable })) {
      expect((await readFile(join(outside, '1'))).equals(bytes)).toBe(true);
      expect(await modeOf(join(outside, '1'))).toBe(executable ? '555' : '444');
    } else {
      // It was the store's own file, which is bad now.
      expect([sizeBytes, executable]).toEqual([50_000, false]);
      expect(await blobs.missing([digest])).toEqual([digest]);
    }
  });

  test.each([true, false])('a link whose mode was changed is not handed on (executable %s)', async (executable) => {
    await subject.store.blobs.linkTo(digest, join(outside, '0'), { executable });
    await chmod(join(outside, '0'), 0o777);
    expect(await subject.store.blobs.linkTo(digest, join(outside, '1'), { executable })).toBe(true);
    expect(await modeOf(join(outside, '1'))).toBe(executable ? '555' : '444');
  });

  test('many links at once are all made', async () => {
    const paths = Array.from({ length: 20 }, (_unused, at) => join(outside, `${at}`));
    await Promise.all(paths.map((path) => subject.store.blobs.linkTo(digest, path, { executable: true })));
    for (const path of paths) await access(path, constants.X_OK);
  });

  test('a link outlives the eviction of its blob', async () => {
    const path = join(outside, 'file');
    await subject.store.blobs.linkTo(digest, path, { executable: true });
    await subject.store.gc({ targetBytes: 0 });
    expect(await subject.store.blobs.missing([digest])).toEqual([digest]);
    expect((await readFile(path)).equals(bytes)).toBe(true);
    expect(await subject.store.blobs.linkTo(digest, join(outside, 'other'), { executable: true })).toBe(false);
    expect(await subject.store.blobs.copyTo(digest, join(outside, 'other'), { executable: true })).toBe(false);
  });

  test('link copies are gone after a restart and are made again', async () => {
    await subject.store.blobs.linkTo(digest, join(outside, '0'), { executable: true });
    await subject.reopen();
    await subject.store.blobs.linkTo(digest, join(outside, '1'), { executable: true });
    expect((await readFile(join(outside, '1'))).equals(bytes)).toBe(true);
  });

  test.each([true, false])('a file is taken in (move %s)', async (move) => {
    const other = randomBlob(sizeBytes);
    const path = join(outside, 'file');
    await writeFile(path, other.bytes);
    expect(await subject.store.blobs.putFile('sha256', path, { move })).toEqual(other.digest);
    expect(Buffer.from((await subject.store.blobs.get(other.digest)) ?? [])).toEqual(other.bytes);
    if (!move) {
      await writeFile(path, 'changed');
      expect(Buffer.from((await subject.store.blobs.get(other.digest)) ?? [])).toEqual(other.bytes);
    }
    expect(await subject.store.verify()).toMatchObject({ dropped: [], strayFiles: 0 });
  });
});

test('the empty blob becomes a file and back', async () => {
  for (const [how, executable, mode] of [
    ['linkTo', true, '555'],
    ['copyTo', false, '644'],
  ] as const) {
    const path = join(outside, how);
    expect(await subject.store.blobs[how](emptyDigest('sha256'), path, { executable })).toBe(true);
    expect(await readFile(path)).toHaveLength(0);
    expect(await modeOf(path)).toBe(mode);
    expect(await subject.store.blobs.putFile('sha1', path)).toEqual(emptyDigest('sha1'));
  }
  expect(subject.store.stats().blobs).toBe(0);
});

test('a file that has a second name is copied, not moved: the other name could change it', async () => {
  const { bytes, digest } = randomBlob(50_000);
  await writeFile(join(outside, 'file'), bytes);
  await link(join(outside, 'file'), join(outside, 'second'));
  await subject.store.blobs.putFile('sha256', join(outside, 'file'), { move: true });
  await writeFile(join(outside, 'second'), 'changed');
  expect(Buffer.from((await subject.store.blobs.get(digest)) ?? [])).toEqual(bytes);
});

test('a moved file is read-only from then on and costs no copy', async () => {
  const { bytes, digest } = randomBlob(50_000);
  const path = join(outside, 'file');
  await writeFile(path, bytes, { mode: 0o755 });
  const { ino } = await stat(path);
  await subject.store.blobs.putFile('sha256', path, { move: true });
  expect((await stat(subject.fileOf(digest))).ino).toBe(ino);
  expect(await modeOf(subject.fileOf(digest))).toBe('444');
  await expect(stat(path)).rejects.toThrow(/ENOENT/);
});

test('only regular files are taken in', async () => {
  await writeFile(join(outside, 'file'), 'content');
  await symlink('file', join(outside, 'link'));
  await expect(subject.store.blobs.putFile('sha256', join(outside, 'link'))).rejects.toThrow(/ELOOP/);
  await expect(subject.store.blobs.putFile('sha256', outside)).rejects.toMatchObject({ code: 'FAILED_PRECONDITION' });
  await expect(subject.store.blobs.putFile('sha256', join(outside, 'none'))).rejects.toThrow(/ENOENT/);
});

test('a blob is found by its hash alone', async () => {
  for (const [sizeBytes, fn] of [
    [300, 'sha256'],
    [30_000, 'blake3'],
  ] as const) {
    const { digest, bytes } = randomBlob(sizeBytes, fn);
    expect(await subject.store.blobs.findByHash(fn, digest.hash)).toBeUndefined();
    await subject.store.blobs.put(digest, chunksOf(bytes));
    expect(await subject.store.blobs.findByHash(fn, digest.hash)).toEqual(digest);
    expect(await subject.store.blobs.findByHash('sha256', blobOf(digest.hash).digest.hash)).toBeUndefined();
  }
  expect(await subject.store.blobs.findByHash('md5', emptyDigest('md5').hash)).toEqual(emptyDigest('md5'));
  await expect(subject.store.blobs.findByHash('sha256', '../../etc/passwd')).rejects.toMatchObject({
    code: 'INVALID_ARGUMENT',
  });
});
