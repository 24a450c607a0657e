import { join } from 'node:path';
import { expect, test } from 'vitest';
import type { FsPort } from '../../../../node/storage/fs-port.ts';
import { checkUnsynced, settleUnsynced } from '../../../../node/storage/unsynced.ts';
import { createForgetfulFs } from './forgetful-fs.ts';
import { randomFrom } from './random.ts';

const index = Buffer.from('what the index holds');

/** A store with durability "fast" whose index is not on the medium, in a file system that forgets. */
async function unsyncedStore(seed: number) {
  const disk = createForgetfulFs(randomFrom(seed));
  const fs = disk.port();
  const paths = { data: '/data', index: '/data/index' };
  for (const path of [paths.data, paths.index]) await fs.makeDir(path);
  for (const path of ['/', paths.data]) await fs.syncDir(path);
  await checkUnsynced(paths.index, paths.data, fs, false);
  const file = await fs.create(join(paths.index, 'data.mdb'), 0o644);
  await fs.syncDir(paths.index);
  await file.append([index]);
  return { disk, fs, paths };
}

async function contentOf(fs: FsPort, path: string): Promise<Buffer> {
  const file = await fs.openRead(path);
  const bytes = Buffer.alloc(100);
  return bytes.subarray(0, await file.read(bytes, 0));
}

const seeds = Array.from({ length: 20 }, (_, seed) => seed);

test('the mark outlives a power cut, as an index without syncs may not', async () => {
  for (const seed of seeds) {
    const { disk, paths } = await unsyncedStore(seed);
    disk.losePower();
    expect(await disk.port().list(paths.data), `seed ${seed}`).toContain('unsynced-boot');
  }
});

test('once the mark is taken away it stays away, and the index is on the medium', async () => {
  for (const seed of seeds) {
    const { disk, fs, paths } = await unsyncedStore(seed);
    await settleUnsynced(paths.index, paths.data, fs);
    disk.losePower();
    const after = disk.port();
    expect(await after.list(paths.data), `seed ${seed}`).not.toContain('unsynced-boot');
    expect(await contentOf(after, join(paths.index, 'data.mdb')), `seed ${seed}`).toEqual(index);
  }
});
