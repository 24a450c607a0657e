/** A short run of what `npm run fuzz` does at length. */
import { afterAll, beforeAll, expect, it } from 'vitest';
import { ByteStream } from '../../protos/gen/google/bytestream/bytestream_pb.ts';
import type { ControlledServer } from './control.ts';
import { fault, startProxy } from './faults/proxy.ts';
import { fuzzRound } from './fuzz/mix.ts';
import { calm, counts, settled, vitalsOf } from './fuzz/vitals.ts';
import { nodeControl } from './node-control.ts';

/** What a node that has nothing to do may take until it holds nothing. */
const settleMs = 30_000;

/** Waiting launchers and readers of the index come and go by a handful; what leaks once in a round is more than that. */
const filesSlack = 6;
const rounds = 8;

let server: ControlledServer;
beforeAll(async () => {
  server = await nodeControl.start();
});
afterAll(() => server[Symbol.asyncDispose]());

it('answers nonsense with the right status, serves others meanwhile and leaves nothing behind', {
  timeout: 120_000,
}, async (test) => {
  const seed = Date.now() % 2 ** 31;
  console.log(`seed ${seed}`);
  const sample = () => vitalsOf(server.pid, server.dataDir);
  // The first round opens what stays open, as the index and the copies of inputs.
  await fuzzRound(server.target, seed, 2);
  const before = process.platform === 'linux' ? await calm(sample) : undefined;
  const { served } = await fuzzRound(server.target, seed + 1, rounds);
  expect(served).toBeGreaterThan(0);
  if (!before) return test.skip('what a process holds is read from /proc');
  const most = {
    ...before,
    rssBytes: Infinity,
    openFiles: before.openFiles + filesSlack,
    sockets: before.sockets + filesSlack,
  };
  const after = await settled(sample, most, settleMs);
  expect(counts.filter((count) => after[count] > most[count])).toEqual([]);
});

it('notices a server that lets an error through', async () => {
  const planted = fault(ByteStream.method.read, () => ({
    ending: (ending) => {
      if (ending.code === 'INVALID_ARGUMENT') ending.code = 'UNKNOWN';
    },
  }));
  await using proxy = await startProxy({ grpc: server.target.grpc, http: server.target.http ?? '' }, planted);
  const finding = /Read .*UNKNOWN/s;
  let found = '';
  // The proxy does not bear every abuse: a connection of it may break first.
  for (let seed = 1; seed <= 3 && !finding.test(found); seed++) {
    found = await fuzzRound({ ...proxy, instance: '' }, seed, 12).then(
      () => 'nothing',
      (error: Error) => error.message,
    );
  }
  expect(found).toMatch(finding);
});
