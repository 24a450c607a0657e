import { anyUnpack } from '@bufbuild/protobuf/wkt';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  ExecutionStage_Value,
  type ExecuteResponse,
} from '../../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { type MeshExecution, MeshExecutionSchema } from '../../../protos/gen/potluck/mesh/v1/results_pb.ts';
import { fromWireDigest } from '../../../protos/digest.ts';
import { until } from '../../support/until.ts';
import { type ActionSpec, metadataOf } from '../node/fixture.ts';
import { only, type Office, type OfficeNode, openOffice, processesWith } from './office.ts';

let office: Office;
let anna: OfficeNode;
let ben: OfficeNode;

beforeAll(async () => {
  office = await openOffice({ slots: 1 }, { slots: 4, lends: 4 });
  [anna, ben] = office.nodes as [OfficeNode, OfficeNode];
}, 90_000);
afterAll(() => office?.[Symbol.asyncDispose]());

let serial = 0;
/** An action that nobody has run. */
const fresh = (spec: ActionSpec): ActionSpec => ({
  ...spec,
  script: `: ${process.pid}-${(serial += 1)}; ${spec.script}`,
});
/** One that only this node may run. */
const at = (node: OfficeNode, spec: ActionSpec, timeoutSeconds = 60n): ActionSpec => ({
  ...fresh(spec),
  action: { timeout: { seconds: timeoutSeconds, nanos: 0 }, ...only(node) },
});

function told(response: ExecuteResponse): MeshExecution | undefined {
  const [any] = response.result?.executionMetadata?.auxiliaryMetadata ?? [];
  return any && anyUnpack(any, MeshExecutionSchema);
}
const workerOf = (response: ExecuteResponse): string => response.result?.executionMetadata?.worker ?? '';
const stagesOf = (seen: Parameters<typeof metadataOf>[0][]): ExecutionStage_Value[] =>
  seen.map((operation) => metadataOf(operation).stage).filter((stage, index, all) => stage !== all[index - 1]);

describe('an action of a client here', () => {
  test('runs elsewhere when there is no slot, and its outputs are here when it has ended', async () => {
    const held = anna.execute(await anna.prepare(at(anna, { script: 'sleep 1' })));
    await until(
      async () => metadataOf(await held.first).stage !== ExecutionStage_Value.UNKNOWN && anna.load().executing > 0,
    );
    const action = await anna.prepare(
      fresh({
        script: 'cat in > out; mkdir -p dir/sub; echo deep > dir/sub/file; echo told; echo warned >&2',
        inputs: { in: 'brought by anna' },
        command: { outputPaths: ['out', 'dir'] },
      }),
    );
    const followed = anna.execute(action);
    const response = await followed.response;
    expect(response.status?.code).toBe(0);
    expect(response.result?.exitCode).toBe(0);
    expect(workerOf(response)).toContain(ben.peerId);
    expect(stagesOf([...followed.seen])).toEqual([
      ExecutionStage_Value.QUEUED,
      ExecutionStage_Value.EXECUTING,
      ExecutionStage_Value.COMPLETED,
    ]);
    const executing = followed.seen.map(metadataOf).find(({ stage }) => stage === ExecutionStage_Value.EXECUTING);
    expect(executing?.partialExecutionMetadata?.worker).toContain(ben.peerId);
    expect(told(response)).toMatchObject({
      executor: ben.peerId,
      source: 'mesh',
      token: expect.stringMatching(/^\d+\.\d+\.\d+$/),
    });
    expect(await anna.text(response.result?.outputFiles[0]?.digest)).toBe('brought by anna');
    expect(await anna.text(response.result?.stdoutDigest)).toBe('told\n');
    expect(await anna.text(response.result?.stderrDigest)).toBe('warned\n');
    const tree = response.result?.outputDirectories[0]?.treeDigest;
    expect(fromWireDigest(tree, 0).sizeBytes).toBeGreaterThan(0);
    // The same action asked for again is known here now, and to the other as well.
    expect((await anna.execute(action).response).cachedResult).toBe(true);
    await until(
      async () => (await ben.actionCache.getActionResult(ben.request(action)).catch(() => undefined)) !== undefined,
    );
    await held.response;
  });

  test('gives the same outputs wherever it runs', async () => {
    const spec = {
      script: 'for i in 1 2 3; do echo $i; done > out; pwd >> out; id -u >> out',
      command: { outputPaths: ['out'] },
    };
    const [here, there] = await Promise.all(
      [anna, ben].map(async (node) => anna.execute(await anna.prepare(at(node, spec))).response),
    );
    expect(workerOf(here as ExecuteResponse)).toContain(anna.peerId);
    expect(workerOf(there as ExecuteResponse)).toContain(ben.peerId);
    expect(there?.result?.outputFiles[0]?.digest).toEqual(here?.result?.outputFiles[0]?.digest);
  });

  test('that fails elsewhere is told with its exit code and what it wrote, and is not cached', async () => {
    const action = await anna.prepare(at(ben, { script: 'echo sorry >&2; exit 3' }));
    const response = await anna.execute(action, { inlineStderr: true }).response;
    expect(response.status?.code).toBe(0);
    expect(response.result?.exitCode).toBe(3);
    expect(Buffer.from(response.result?.stderrRaw ?? []).toString()).toBe('sorry\n');
    await expect(anna.actionCache.getActionResult(anna.request(action))).rejects.toThrow('NOT_FOUND');
  });

  test('that takes longer than it may is ended, and its ending comes through the mesh like any other', async () => {
    // Not as a guest: on a crowded machine a guest that is too slow gets no verdict.
    const action = await anna.prepare(at(anna, { script: 'sleep 60' }, 1n));
    const response = await anna.execute(action).response;
    expect(response.status?.message).toContain('longer than 1 s');
    expect(response.status?.code).toBe(4);
    expect(workerOf(response)).toContain(anna.peerId);
  });

  test('that nobody can run is refused at once, with what there is', async () => {
    const action = await anna.prepare(
      fresh({ script: 'true', action: { platform: { properties: [{ name: 'OSFamily', value: 'plan9' }] } } }),
    );
    await expect(anna.execute(action).last).rejects.toThrow(
      /FAILED_PRECONDITION: .*OSFamily=plan9.*offer.*potluck-node=/,
    );
  });
});

test('what a command writes elsewhere can be read here while it runs', async () => {
  const action = await anna.prepare(at(ben, { script: 'echo first; sleep 1; echo second' }));
  const followed = anna.execute(action);
  await until(() => followed.seen.some((one) => metadataOf(one).stage === ExecutionStage_Value.EXECUTING));
  const executing = followed.seen.map(metadataOf).find(({ stage }) => stage === ExecutionStage_Value.EXECUTING);
  const chunks: string[] = [];
  let isDone = false;
  void followed.last.then(() => (isDone = true));
  let firstCame: boolean | undefined;
  for await (const { data } of anna.byteStream.read({ resourceName: executing?.stdoutStreamName ?? '' })) {
    chunks.push(Buffer.from(data).toString());
    firstCame ??= !isDone;
  }
  expect(chunks.join('')).toBe('first\nsecond\n');
  expect(firstCame).toBe(true);
});

test('a client that cancels ends the command on the other machine', async () => {
  const marker = `cancelled-${process.pid}-${(serial += 1)}`;
  const action = await anna.prepare(at(ben, { script: `sleep 300; : ${marker}` }));
  const followed = anna.execute(action);
  await until(async () => (await processesWith(marker)).length > 0);
  const { name } = await followed.first;
  await anna.operations.cancelOperation({ name });
  expect((await followed.response).status?.code).toBe(1);
  await until(async () => (await processesWith(marker)).length === 0);
});
