import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { expect, test } from 'vitest';
import * as limits from '../../../../node/peers/limits.ts';
import { createResultFinder } from '../../../../node/peers/result-finder.ts';
import type { ActionKey } from '../../../../node/storage/action-cache.ts';
import { makeDigest } from '../../../../protos/digest.ts';
import { ResultsRequestSchema, ResultsResponseSchema } from '../../../../protos/gen/potluck/mesh/v1/results_pb.ts';

const key: ActionKey = { instance: '', action: makeDigest('sha256', 'ab'.repeat(32), 7) };

/** A member that tells a result for every key. */
function everything(body: Uint8Array): Uint8Array {
  const { keys } = fromBinary(ResultsRequestSchema, body);
  const results = keys.map(() => ({ statement: { payload: Uint8Array.of(1), signature: Uint8Array.of(2) } }));
  return toBinary(ResultsResponseSchema, create(ResultsResponseSchema, { results }));
}

test('what one member tells is there while another still says nothing', async () => {
  const silent = Promise.withResolvers<Uint8Array>();
  const finder = createResultFinder({
    client: { call: async (peer, _, body) => (peer === 'silent' ? await silent.promise : everything(body)) },
    members: () => ['silent', 'ready'],
  });
  const found = finder.find(key)[Symbol.asyncIterator]();
  expect((await found.next()).value).toMatchObject({ from: 'ready' });
  // And what comes later is told as well.
  silent.resolve(everything(toBinary(ResultsRequestSchema, create(ResultsRequestSchema, { keys: [{}] }))));
  expect((await found.next()).value).toMatchObject({ from: 'silent' });
  expect(await found.next()).toMatchObject({ done: true });
});

test('a member that says nothing is left out for a while, never for long; one that lied for much longer', async () => {
  let nowMs = 0;
  const asked: string[] = [];
  let answers = false;
  const finder = createResultFinder({
    client: {
      async call(peer, _, body) {
        asked.push(peer);
        if (!answers) throw new Error('nothing came');
        return everything(body);
      },
    },
    members: () => ['only'],
    nowMs: () => nowMs,
  });
  const ask = async (): Promise<number> => {
    let told = 0;
    for await (const _ of finder.find(key)) told += 1;
    return told;
  };
  for (let round = 0; round < 8; round++) {
    expect(await ask()).toBe(0);
    expect(await ask()).toBe(0);
    nowMs += limits.silentPauseMsMax;
  }
  // Asked once in each round, also after many failures.
  expect(asked).toHaveLength(8);
  answers = true;
  expect(await ask()).toBe(1);
  finder.bench('only');
  nowMs += limits.silentPauseMsMax;
  expect(await ask()).toBe(0);
  nowMs += limits.benchMs;
  expect(await ask()).toBe(1);
});
