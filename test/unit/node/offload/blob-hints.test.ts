/** Blobs that members say will be needed. */
import { expect, test } from 'vitest';
import { createBlobHints } from '../../../../node/offload/blob-hints.ts';
import { hintedMax } from '../../../../node/offload/limits.ts';
import type { Digest } from '../../../../protos/digest.ts';
import { digestOf } from '../../../../protos/hasher.ts';

const key = { instance: '', action: digestOf('sha256', Buffer.from('action')) };
const digests = (count: number): Digest[] =>
  Array.from({ length: count }, (_, at) => digestOf('sha256', Buffer.from(`blob ${at}`)));

function given() {
  const brought: Digest[] = [];
  let body = new Uint8Array();
  const hints = createBlobHints({
    send: (_, sent) => void (body = Uint8Array.from(sent)),
    async bring(some) {
      brought.push(...some);
      return [];
    },
  });
  return {
    hints,
    brought,
    hear: (from: string, some: readonly Digest[]): void => {
      hints.tell('me', key, some);
      hints.onParcel(from, body);
    },
  };
}

test('what is hinted at is fetched, whether it is said before or after', () => {
  const { hints, brought, hear } = given();
  hear('ben', digests(2));
  using _ = hints.use(key, 'ben');
  expect(brought).toHaveLength(2);
  hear('ben', digests(3));
  expect(brought).toHaveLength(5);
  hear('cora', digests(3));
  expect(brought).toHaveLength(5);
});

test('nobody fills this disk by hinting again and again', () => {
  const { hints, brought, hear } = given();
  using _ = hints.use(key, 'ben');
  for (let times = 0; times < 5; times += 1) hear('ben', digests(hintedMax - 1));
  expect(brought).toHaveLength(hintedMax);
});
