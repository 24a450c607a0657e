/** Members of the mesh that do not keep to it. What they send never reaches a client, and they are not asked again. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { DataServer, DataSource } from '../../../mesh/net/data/server.ts';
import { serveData } from '../../../mesh/net/data/server.ts';
import { createTlsIdentity } from '../../../mesh/net/data/tls-identity.ts';
import type { Digest } from '../../../protos/digest.ts';
import { digestOf } from '../../../protos/hasher.ts';
import { chunksOf, randomBlob, readAll } from '../../contract/blobs.ts';
import { createSharingMesh, type SharingNode } from '../../support/sharing-nodes.ts';

const identity = await createTlsIdentity();
let mesh: ReturnType<typeof createSharingMesh>;
let ben: SharingNode;
let closers: (() => PromiseLike<void>)[];

beforeEach(async () => {
  mesh = createSharingMesh();
  closers = [];
  ben = await mesh.open();
  closers.push(() => ben[Symbol.asyncDispose]());
});
afterEach(async () => {
  for (const close of closers.reverse()) await close();
});

/** A member with a genuine certificate that serves what `lie` makes of a blob's bytes. */
async function openLiar(blobs: readonly { digest: Digest; bytes: Uint8Array }[], lie: (bytes: Buffer) => Buffer) {
  let asked = 0;
  const find = (digest: Digest): Buffer | undefined => {
    const blob = blobs.find((one) => one.digest.hash === digest.hash);
    if (blob) asked += 1;
    return blob && lie(Buffer.from(blob.bytes));
  };
  const source: DataSource = {
    async open(digest) {
      const bytes = find(digest);
      return (
        bytes && {
          isArriving: false,
          has: () => true,
          async *read({ offset, length }) {
            for (let at = offset; at < offset + length && at < bytes.length; at += 65_536) {
              yield bytes.subarray(at, Math.min(at + 65_536, offset + length));
            }
          },
          async [Symbol.asyncDispose]() {},
        }
      );
    },
    get: async (digest) => find(digest),
    put: async () => {},
    calls: new Map(),
  };
  const member = mesh.mesh.join();
  const server: DataServer = await serveData({
    host: '127.0.0.1',
    port: 0,
    credentials: member.credentials,
    identity,
    source,
  });
  closers.push(() => server.close());
  mesh.introduce(member.peer, { host: '127.0.0.1', port: server.port });
  return { member, asked: () => asked };
}

const flipped = (at: (bytes: Buffer) => number) => (bytes: Buffer) => {
  const other = Buffer.from(bytes);
  const position = at(bytes);
  other[position] = (other[position] ?? 0) ^ 1;
  return other;
};
const lies = [
  ['a wrong first byte', flipped(() => 0)],
  ['a wrong last byte', flipped((bytes) => bytes.length - 1)],
  ['short bytes', (bytes: Buffer) => bytes.subarray(0, bytes.length - 1)],
] as const;
const sizes = [300, 2_000_000, 20_000_000];

describe.each(lies)('a member that sends %s', (_, lie) => {
  test.each(sizes)('of a blob of %i bytes, which nobody else has: it is missing', async (sizeBytes) => {
    const blob = randomBlob(sizeBytes);
    await openLiar([blob], lie);
    const outcome = await readBlob(blob.digest);
    // A read that had begun breaks off; nobody takes what was read for the blob.
    expect(['missing', 'broken']).toContain(outcome);
    expect(await ben.store.blobs.missing([blob.digest])).toEqual([blob.digest]);
  });

  test.each(sizes)(
    'of a blob of %i bytes, which another has: the right bytes come, or the read breaks off and the next is right',
    async (sizeBytes) => {
      const blob = randomBlob(sizeBytes);
      const liar = await openLiar([blob], lie);
      const honest = await mesh.open();
      closers.push(() => honest[Symbol.asyncDispose]());
      await honest.store.blobs.put(blob.digest, chunksOf(blob.bytes));
      let outcome = await readBlob(blob.digest);
      if (outcome === 'broken') outcome = await readBlob(blob.digest);
      expect(outcome).toEqual('right');
      expect(liar.asked()).toBeLessThan(20);

      async function readBlobAgain(): Promise<boolean> {
        await using reader = await ben.store.blobs.open(blob.digest);
        return reader !== undefined && (await readAll(reader)).equals(blob.bytes);
      }
      expect(await readBlobAgain()).toBe(true);
    },
  );
});

/** Anything else than the blob's own bytes, taken for whole, fails the test here. */
async function readBlob(digest: Digest): Promise<'right' | 'missing' | 'broken'> {
  try {
    await using reader = await ben.sharing.blobs.open(digest);
    if (!reader) return 'missing';
    const bytes = await readAll(reader);
    expect(digestOf(digest.fn, bytes)).toEqual(digest);
    return 'right';
  } catch (error) {
    if ((error as { code?: string }).code === undefined) throw error;
    return 'broken';
  }
}

test('a member that lied once is not asked for anything else', async () => {
  const [first, second] = [randomBlob(500), randomBlob(500)];
  const liar = await openLiar(
    [first, second],
    flipped(() => 3),
  );
  expect(await ben.sharing.blobs.get(first.digest)).toBeUndefined();
  const asked = liar.asked();
  expect(asked).toBeGreaterThan(0);
  expect(await ben.sharing.blobs.get(second.digest)).toBeUndefined();
  expect(liar.asked()).toBe(asked);
});
