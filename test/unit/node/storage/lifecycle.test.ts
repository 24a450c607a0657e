import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setImmediate as turn, setTimeout as pause } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { expect, test } from 'vitest';
import { type FsPort, nodeFs } from '../../../../node/storage/fs-port.ts';
import { openLmdbIndex } from '../../../../node/storage/lmdb-index.ts';
import { openStore } from '../../../../node/storage/open-store.ts';
import { createHasher } from '../../../../protos/hasher.ts';
import { randomBlob } from '../../../contract/blobs.ts';
import { diskUsage, tempStore } from './temp-store.ts';

const mib = 1024 ** 2;

test('an index that was being built anew when its process died is built to the end', async () => {
  await using subject = await tempStore();
  const all = Array.from({ length: 5 }, () => randomBlob(9_000));
  await subject.store.blobs.putMany(all);
  let opens = 0;
  const fs: FsPort = {
    ...nodeFs,
    openRead: async (path) => {
      if (path.includes('/cas/') && ++opens === 3) throw new Error('this is where it ends');
      return nodeFs.openRead(path);
    },
  };
  await expect(subject.reopen(() => rm(join(subject.dataDir, 'index'), { recursive: true }), { fs })).rejects.toThrow(
    'this is where it ends',
  );
  await subject.reopen();
  expect(await subject.store.verify()).toMatchObject({ blobs: 5, strayFiles: 0 });
});

test('what a dead process left is looked for until it was found', async () => {
  await using subject = await tempStore();
  const shard = join(subject.dataDir, 'cas/sha256/00');
  const stray = join(shard, `${'0'.repeat(64)}-12`);
  const sweepFails: FsPort = {
    ...nodeFs,
    unlink: (path) => (path === stray ? Promise.reject(new Error('not now')) : nodeFs.unlink(path)),
  };
  await subject.reopen(
    async () => {
      await mkdir(shard, { recursive: true });
      await writeFile(stray, 'stray');
    },
    {
      fs: sweepFails,
      openIndex: async (options) => ({ ...(await openLmdbIndex(options)), closedCleanly: false }),
    },
  );
  while (subject.warnings.length === 0) await pause(5);
  expect(existsSync(stray)).toBe(true);
  await subject.reopen();
  while (existsSync(stray)) await pause(5);
});

test('files at places that mean nothing do not keep a store from opening', async () => {
  await using subject = await tempStore();
  await subject.store.blobs.putMany([randomBlob(9_000)]);
  await subject.reopen(async () => {
    for (const path of ['cas/.DS_Store', 'cas/sha256/.DS_Store']) await writeFile(join(subject.dataDir, path), 'x');
  });
  expect(await subject.store.verify()).toMatchObject({ blobs: 1, dropped: [] });
});

test.each([
  ['full', 'fast'],
  ['fast', 'full'],
] as const)(
  'the mark of a node with durability "%s" is not touched by a second one, "%s", that is refused',
  async (first, second) => {
    await using subject = await tempStore({ durability: first });
    const mark = join(subject.dataDir, 'unsynced-boot');
    expect(existsSync(mark)).toBe(first === 'fast');
    const refused = openStore({ dataDir: subject.dataDir, sizeLimitBytes: 1024 ** 3, durability: second });
    await expect(refused).rejects.toMatchObject({ code: 'FAILED_PRECONDITION' });
    expect(existsSync(mark)).toBe(first === 'fast');
  },
);

test.each(['rename', 'unlink'] as const)('closing waits for a %s under way', async (call) => {
  const begun = Promise.withResolvers<void>();
  const gate = Promise.withResolvers<void>();
  let isGated = false;
  const gated = async (path: string): Promise<void> => {
    if (!isGated || !path.includes('/cas/')) return;
    begun.resolve();
    await gate.promise;
  };
  const fs: FsPort = {
    ...nodeFs,
    rename: (from, to) => gated(to).then(() => nodeFs.rename(from, to)),
    unlink: (path) => gated(path).then(() => nodeFs.unlink(path)),
  };
  await using subject = await tempStore({ fs });
  const { store } = subject;
  const [held, next] = [randomBlob(50_000), randomBlob(60_000)];
  await store.blobs.putMany([held]);
  isGated = true;
  const underWay = call === 'rename' ? store.blobs.putMany([next]) : store.gc({ targetBytes: 0 });
  await begun.promise;
  let isClosed = false;
  const closing = store.close().then(() => {
    isClosed = true;
  });
  for (let turns = 0; turns < 200; turns++) await turn();
  await pause(20);
  expect(isClosed).toBe(false);
  gate.resolve();
  await Promise.allSettled([underWay, closing]);
  await subject.reopen();
  expect(await subject.store.verify()).toMatchObject({ blobs: call === 'rename' ? 2 : 0, dropped: [], strayFiles: 0 });
});

test('files that cannot be removed go on to count', async () => {
  const fs: FsPort = {
    ...nodeFs,
    unlink: async (path) => {
      if (path.includes('/cas/')) throw Object.assign(new Error('EPERM: not permitted'), { code: 'EPERM' });
      await nodeFs.unlink(path);
    },
  };
  await using subject = await tempStore({ fs });
  await subject.store.blobs.putMany(Array.from({ length: 5 }, () => randomBlob(300_000)));
  const usedBytes = await diskUsage(join(subject.dataDir, 'cas'));
  await expect(subject.store.gc({ targetBytes: 0 })).rejects.toThrow(/EPERM/);
  expect(subject.store.stats()).toMatchObject({ blobs: 0 });
  expect(subject.store.stats().usedBytes).toBeGreaterThanOrEqual(usedBytes);
});

test('a file that the disk cannot read is missing', async () => {
  let isBroken = false;
  const fs: FsPort = {
    ...nodeFs,
    openRead: async (path) => {
      const file = await nodeFs.openRead(path);
      const fail = async (): Promise<never> => {
        throw Object.assign(new Error('EIO: i/o error'), { code: 'EIO' });
      };
      return isBroken ? { ...file, read: fail } : file;
    },
  };
  await using subject = await tempStore({ fs });
  const blob = randomBlob(50_000);
  await subject.store.blobs.putMany([blob]);
  isBroken = true;
  expect(await subject.store.blobs.get(blob.digest)).toBeUndefined();
  expect(await subject.store.blobs.missing([blob.digest])).toEqual([blob.digest]);
});

test('others have their turn while small blobs are verified', async () => {
  await using subject = await tempStore();
  await subject.store.blobs.putMany(Array.from({ length: 2_000 }, () => randomBlob(20)));
  const abort = new AbortController();
  setImmediate(() => abort.abort());
  await expect(subject.store.verify({ signal: abort.signal })).rejects.toThrow(/abort/);
});

test('a stream on its way in is not kept in memory', async () => {
  setFlagsFromString('--expose-gc');
  const collectGarbage = runInNewContext('gc') as () => void;
  await using subject = await tempStore({ durability: 'fast' });
  const chunk = randomBlob(mib).bytes;
  const chunks = 64;
  const hasher = await createHasher('sha256');
  for (let at = 0; at < chunks; at++) hasher.update(chunk);
  const digest = { fn: 'sha256', hash: hasher.hex(), sizeBytes: chunks * mib } as const;
  collectGarbage();
  const before = process.memoryUsage().arrayBuffers;
  let held = 0;
  await subject.store.blobs.put(
    digest,
    (async function* () {
      for (let at = 0; at < chunks; at++) yield Uint8Array.from(chunk);
      // Collections of their own turns, when nothing of the last chunks is on the stack; buffers are freed a while after.
      for (let tries = 0; tries < 20; tries++) {
        await turn();
        collectGarbage();
        held = process.memoryUsage().arrayBuffers - before;
        if (held < (chunks / 4) * mib) break;
      }
    })(),
  );
  expect(held).toBeLessThan((chunks / 4) * mib);
});

test('a reader from beside that was killed does not make the index grow', async () => {
  await using subject = await tempStore({ sizeLimitBytes: 32 * mib, durability: 'fast' });
  const fill = async (batches: number): Promise<void> => {
    for (let at = 0; at < batches; at++) {
      const outcomes = await subject.store.blobs.putMany(Array.from({ length: 200 }, () => randomBlob(4_000)));
      expect(outcomes.find((outcome) => outcome)).toBeUndefined();
    }
  };
  await fill(15);
  const { indexBytes } = subject.store.stats();
  const reader = spawn(
    process.execPath,
    [
      '--input-type=module',
      '-e',
      `import { open } from ${JSON.stringify(import.meta.resolve('lmdb'))};
       const root = open({ path: ${JSON.stringify(join(subject.dataDir, 'index'))}, readOnly: true, noSubdir: false });
       root.useReadTransaction();
       console.log('reading');
       setInterval(() => {}, 1_000);`,
    ],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  );
  const exited = once(reader, 'exit');
  await once(reader.stdout, 'data');
  reader.kill('SIGKILL');
  await exited;
  await fill(25);
  expect(subject.store.stats().indexBytes).toBeLessThan(indexBytes + 2 * mib);
});
