/** What this node offers to members: the blobs it holds, and those it is receiving. */
import type { DataSource } from '../../mesh/net/data/server.ts';
import type { BlobStore } from '../storage/blob-store.ts';
import type { Transfers } from './transfers.ts';

export interface BlobSourceOptions {
  readonly local: Pick<BlobStore, 'open' | 'get'>;
  readonly arriving: Transfers['arriving'];
}

export function blobSource({ local, arriving }: BlobSourceOptions): Pick<DataSource, 'open' | 'get'> {
  return {
    async open(digest, options) {
      const reader = await local.open(digest, options);
      if (reader) {
        return {
          isArriving: false,
          has: () => true,
          read: (range, readOptions) => reader.read(range, readOptions),
          [Symbol.asyncDispose]: () => reader[Symbol.asyncDispose](),
        };
      }
      const blob = arriving(digest);
      return (
        blob && {
          isArriving: true,
          has: (range) => blob.has(range),
          read: (range, readOptions) => blob.read(range, readOptions),
          async [Symbol.asyncDispose]() {},
        }
      );
    },
    get: (digest, options) => local.get(digest, options),
  };
}
