import { describe } from 'vitest';
import { createSharingMesh } from '../support/sharing-nodes.ts';
import { blobStoreContract } from './blob-store.ts';

describe('store with peers behind it, alone in its mesh', () => {
  blobStoreContract(async () => {
    const node = await createSharingMesh().open();
    return { store: node.sharing.blobs, [Symbol.asyncDispose]: () => node[Symbol.asyncDispose]() };
  });
});

describe('store with peers behind it, among others that have nothing', () => {
  blobStoreContract(async () => {
    const mesh = createSharingMesh();
    const [node, one, two] = [await mesh.open(), await mesh.open(), await mesh.open()];
    return {
      store: node.sharing.blobs,
      async [Symbol.asyncDispose]() {
        for (const each of [node, one, two]) await each[Symbol.asyncDispose]();
      },
    };
  });
});
