import { chmod, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { startNode } from '../../support/node-process.ts';
import { openScratch, potluck, type Scratch } from './potluck.ts';

let scratch: Scratch;
let dataDir: string;
beforeAll(async () => {
  scratch = await openScratch();
  dataDir = join(scratch.dir, 'data');
});
afterAll(() => scratch[Symbol.asyncDispose]());

const cache = (...words: string[]) => potluck(['cache', ...words, '--data-dir', dataDir]);

test('where there is no cache, the commands say so and make none', async () => {
  for (const command of ['stats', 'gc', 'verify']) {
    const { exitCode, stdout, stderr } = await cache(command);
    expect({ exitCode, stdout }).toEqual({ exitCode: 1, stdout: '' });
    expect(stderr).toBe(`potluck: there is no cache in ${dataDir}; --data-dir names another place\n`);
  }
  expect(await readdir(scratch.dir)).toEqual([]);
});

test('beside a serving node stats are shown, and what changes the cache is refused', async () => {
  await using node = await startNode({ dataDir });
  const made = await potluck(['run', '--remote', node.grpc, '--', 'sh', '-c', 'head -c 200000 /dev/zero | tr "\\0" x']);
  expect(made.exitCode).toBe(0);

  const stats = await cache('stats', '--json');
  expect(JSON.parse(stats.stdout)).toEqual({
    dataDir,
    usedBytes: expect.any(Number),
    blobs: expect.any(Number),
    blobBytes: expect.any(Number),
    smallBlobs: expect.any(Number),
    smallBlobBytes: expect.any(Number),
    chunkedBlobs: 0,
    chunkedBlobBytes: 0,
    indexBytes: expect.any(Number),
    results: 1,
  });
  expect(JSON.parse(stats.stdout).blobBytes).toBeGreaterThan(200_000);
  expect((await cache('stats')).stdout).toMatch(/^Action results +1$/m);

  for (const command of ['gc', 'verify']) {
    const { exitCode, stderr } = await cache(command);
    expect(exitCode).toBe(1);
    expect(stderr).toMatch(/^potluck: another .* uses .*stop it.*\n$/);
  }
  expect(await node.stop()).toBe(0);
});

test('verify finds a blob that turned bad, drops it, and is content the next time', async () => {
  expect(await cache('verify')).toMatchObject({ exitCode: 0, stdout: expect.stringContaining('0 bad') });
  const files = await readdir(join(dataDir, 'cas'), { recursive: true, withFileTypes: true });
  const [blob] = files.filter((file) => file.isFile());
  const path = join(blob?.parentPath ?? '', blob?.name ?? '');
  await chmod(path, 0o644);
  await writeFile(path, Buffer.alloc(200_000, 'y'));

  const found = await cache('verify');
  expect(found).toMatchObject({ exitCode: 1, stdout: expect.stringContaining('1 bad') });
  expect(found.stderr).toMatch(/^dropped: sha256\/[0-9a-f]{64}\/200000$/m);
  const again = await cache('verify', '--json');
  expect(again.exitCode).toBe(0);
  expect(JSON.parse(again.stdout)).toMatchObject({ dataDir, dropped: [] });
});

test('gc empties the cache when told to', async () => {
  const { exitCode, stdout } = await cache('gc', '--to', '0', '--json');
  expect(exitCode).toBe(0);
  expect(JSON.parse(stdout)).toEqual({
    dataDir,
    evictedBlobs: expect.any(Number),
    evictedBytes: expect.any(Number),
    usedBytes: expect.any(Number),
  });
  expect(JSON.parse((await cache('stats', '--json')).stdout)).toMatchObject({ blobs: 0, results: 0 });
});
