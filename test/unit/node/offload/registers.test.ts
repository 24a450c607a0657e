import { create } from '@bufbuild/protobuf';
import { expect, test } from 'vitest';
import * as limits from '../../../../node/offload/limits.ts';
import { createRegisters } from '../../../../node/offload/registers.ts';
import { ActionResultSchema } from '../../../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { VouchedResultSchema } from '../../../../protos/gen/potluck/mesh/v1/results_pb.ts';
import { randomBlob } from '../../../contract/blobs.ts';

function open(failing?: Error) {
  const stored: number[] = [];
  const delivered: string[] = [];
  const registers = createRegisters({
    local: {
      get: async () => undefined,
      async putMany(blobs) {
        stored.push(blobs.length);
        return blobs.map((_, at) => (at === 0 ? failing : undefined));
      },
    },
    hold: async () => true,
    deliver: ({ kind }) => void delivered.push(kind),
  });
  const publish = () =>
    registers.publish(
      { instance: '', action: randomBlob(10).digest },
      create(ActionResultSchema, { exitCode: 0 }),
      create(VouchedResultSchema),
    );
  return { registers, stored, delivered, publish };
}

test('what is published within a moment is stored and told together', async () => {
  const { stored, delivered, publish } = open();
  const all = [publish(), publish(), publish()];
  expect(delivered).toEqual([]);
  await Promise.all(all);
  expect(stored).toEqual([3]);
  expect(delivered).toEqual(['publish', 'publish', 'publish']);
});

test('many wait for nobody, and one that cannot be stored keeps none of the others', async () => {
  const { stored, delivered, publish } = open(new Error('no room'));
  const all = await Promise.allSettled(Array.from({ length: limits.publishTogether }, publish));
  expect(all.map(({ status }) => status).filter((status) => status === 'rejected')).toHaveLength(1);
  expect(stored).toEqual([limits.publishTogether]);
  expect(delivered).toHaveLength(limits.publishTogether - 1);
});

test('a node that stops publishes nothing more', async () => {
  const { registers, stored, publish } = open();
  const waiting = publish();
  registers.close();
  await waiting;
  expect(stored).toEqual([]);
});
