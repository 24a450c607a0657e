import { afterAll, beforeAll, expect, test } from 'vitest';
import { limits } from '../../../../node/reapi/limits.ts';
import { createUploads } from '../../../../node/reapi/uploads.ts';
import type { BlobStore } from '../../../../node/storage/blob-store.ts';
import { blobOf, noise } from '../../../integration/reapi/harness.ts';
import { type ObservedStore, openObservedStore } from '../../../integration/reapi/observed-store.ts';
import { until } from '../../../support/until.ts';

let store: ObservedStore;
beforeAll(async () => {
  store = await openObservedStore();
});
afterAll(() => store[Symbol.asyncDispose]());

test('a call that comes later takes the upload over; the earlier one is told', async () => {
  const uploads = createUploads(store.blobs);
  const { bytes, digest } = blobOf(noise(100));
  const first = uploads.attach('name', digest);
  await first.write(bytes.subarray(0, 40));
  const second = uploads.attach('name', digest);
  expect(second.committedBytes).toBe(40);
  await expect(first.write(bytes.subarray(40))).rejects.toThrow(/ABORTED/);
  uploads.drop('name', first);
  await second.write(bytes.subarray(40));
  await second.finish();
  await until(() => uploads.committedBytes('name') === undefined);
});

test('paused uploads are bounded in number, the oldest go first', async () => {
  const uploads = createUploads(store.blobs);
  const count = limits.pausedUploadsMax + 3;
  for (let index = 0; index < count; index += 1) {
    const upload = uploads.attach(`upload ${index}`, blobOf(noise(100, index + 1)).digest);
    await upload.write(noise(10));
    uploads.pause(`upload ${index}`, upload);
  }
  await until(() => store.puts() === limits.pausedUploadsMax);
  expect(uploads.committedBytes('upload 2')).toBeUndefined();
  expect(uploads.committedBytes('upload 3')).toBe(10);
  expect(uploads.committedBytes(`upload ${count - 1}`)).toBe(10);
});

test('what the store refuses, the writer gets to know, and the name is free again', async () => {
  const uploads = createUploads({
    ...store.blobs,
    async put(_digest, content) {
      for await (const _ of content) throw Object.assign(new Error('write'), { code: 'ENOSPC' });
    },
  });
  const upload = uploads.attach('name', blobOf(noise(100)).digest);
  const write = async () => {
    for (let at = 0; at < 100; at += 10) await upload.write(noise(10));
  };
  await expect(write()).rejects.toThrow('write');
  await until(() => uploads.committedBytes('name') === undefined);
});

test('paused uploads are bounded by the room that is kept for their blobs; the newest waits in any case', async () => {
  const put = (_digest: unknown, _content: unknown, options?: { signal?: AbortSignal }) =>
    new Promise<void>((_, reject) => {
      options?.signal?.addEventListener('abort', () => reject(new Error('ended')));
    });
  const uploads = createUploads({ put } as unknown as BlobStore);
  const pause = (name: string) => {
    const { digest } = blobOf(noise(100));
    uploads.pause(name, uploads.attach(name, { ...digest, sizeBytes: limits.pausedUploadBytesMax + 1 }));
  };
  pause('older');
  expect(uploads.committedBytes('older')).toBe(0);
  pause('newer');
  await until(() => uploads.committedBytes('older') === undefined);
  expect(uploads.committedBytes('newer')).toBe(0);
});
