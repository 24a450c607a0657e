/** How long a start takes after a death with a hundred thousand blobs; printed, since machines differ. */
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { openStore } from '../../node/storage/open-store.ts';
import { namedBlob } from './content.ts';

const blobs = { small: 98_000, large: 2_000 };

test('a store of 100,000 blobs whose process died opens without reading them', { timeout: 240_000 }, async () => {
  const base = await mkdtemp(join(tmpdir(), 'potluck-start-'));
  onTestFinished(() => rm(base, { recursive: true }));
  const dataDir = join(base, 'data');
  const child = fork(new URL('filler.ts', import.meta.url), [dataDir, String(blobs.small), String(blobs.large)], {
    execArgv: [],
  });
  expect(await once(child, 'exit')).toEqual([null, 'SIGKILL']);

  const startMs = performance.now();
  const store = await openStore({ dataDir, sizeLimitBytes: 8 * 1024 ** 3 });
  const all = [namedBlob('small0', 200), namedBlob('small97999', 200), namedBlob('large1999', 8_100)];
  expect(await store.blobs.missing(all.map(({ digest }) => digest))).toEqual([]);
  console.log(`open after a death with 100,000 blobs: ${Math.round(performance.now() - startMs)} ms`);
  expect(store.stats()).toMatchObject({ blobs: 100_000, smallBlobs: blobs.small });
  await store.close();
});
