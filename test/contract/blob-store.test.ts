import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe } from 'vitest';
import { openStore } from '../../node/storage/open-store.ts';
import { blobStoreContract } from './blob-store.ts';

describe.each(['full', 'fast'] as const)('disk store, durability %s', (durability) => {
  blobStoreContract(async () => {
    const dataDir = await mkdtemp(join(tmpdir(), 'potluck-contract-'));
    const store = await openStore({ dataDir, sizeLimitBytes: 1024 ** 3, durability });
    return {
      store: store.blobs,
      async [Symbol.asyncDispose]() {
        await store.close();
        await rm(dataDir, { recursive: true });
      },
    };
  });
});
