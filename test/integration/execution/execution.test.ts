import { create } from '@bufbuild/protobuf';
import { timestampMs } from '@bufbuild/protobuf/wkt';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { digestPath, toWireDigest } from '../../../protos/digest.ts';
import {
  ExecutionStage_Value as Stage,
  type ActionResult,
  type ExecuteResponse,
} from '../../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { DurationSchema } from '@bufbuild/protobuf/wkt';
import { codes, type StatusError } from '../../../protos/status.ts';
import { until } from '../../support/until.ts';
import { buildAction, metadataOf, missingSubjects, openNode, responseOf, type TestNode } from '../node/fixture.ts';

let on: TestNode;
beforeAll(async () => {
  on = await openNode();
});
afterAll(() => on[Symbol.asyncDispose]());

/** Different at every run. */
const uuidScript = 'cat /proc/sys/kernel/random/uuid';
let serial = 0;
/** A script that no other test runs. */
const unique = (script: string): string => `: ${process.pid} ${(serial += 1)}; ${script}`;

const resultOf = (response: ExecuteResponse): ActionResult => {
  expect(response.status?.code ?? 0).toBe(0);
  if (!response.result) throw new Error('no result');
  return response.result;
};
const failure = (promise: Promise<unknown>): Promise<StatusError> =>
  promise.then(
    () => {
      throw new Error('it did not fail');
    },
    (error: StatusError) => error,
  );

describe('an execution', () => {
  test('tells its operation at once, ends with done exactly when completed, and says who ran it when', async () => {
    const digest = await on.prepare({
      script: unique('cat in.txt; echo made > out.txt; echo oops >&2'),
      inputs: { 'in.txt': 'input' },
      command: { outputPaths: ['out.txt'] },
    });
    const call = on.execute(digest, { instanceName: 'team/linux' });
    const last = await call.last;
    expect(last.name).toMatch(/^team\/linux\/operations\/.+/);
    for (const operation of call.seen) {
      expect(operation.name).toBe(last.name);
      expect(operation.done).toBe(metadataOf(operation).stage === Stage.COMPLETED);
      expect(metadataOf(operation).actionDigest?.hash).toBe(digest.hash);
      expect(operation.result.case === 'error').toBe(false);
    }
    expect(call.seen[0]?.done).toBe(false);
    const result = resultOf(responseOf(last));
    expect(await on.text(result.stdoutDigest)).toBe('input');
    expect(await on.text(result.stderrDigest)).toBe('oops\n');
    expect(await on.text(result.outputFiles[0]?.digest)).toBe('made\n');
    expect(result.stdoutRaw).toHaveLength(0);

    const metadata = result.executionMetadata;
    expect(metadata?.worker).not.toBe('');
    const moments = [
      metadata?.queuedTimestamp,
      metadata?.workerStartTimestamp,
      metadata?.inputFetchStartTimestamp,
      metadata?.inputFetchCompletedTimestamp,
      metadata?.executionStartTimestamp,
      metadata?.executionCompletedTimestamp,
      metadata?.outputUploadStartTimestamp,
      metadata?.outputUploadCompletedTimestamp,
      metadata?.workerCompletedTimestamp,
    ].map((moment) => moment && timestampMs(moment));
    expect(moments).not.toContain(undefined);
    expect(moments).toEqual([...moments].sort((a, b) => Number(a) - Number(b)));
  });

  test('is answered from the cache the second time, with a name and what was asked to be inlined', async () => {
    const digest = await on.prepare({ script: unique(`${uuidScript} | tee out`), command: { outputPaths: ['out'] } });
    const first = await on.execute(digest).response;
    expect(first.cachedResult).toBe(false);
    const call = on.execute(digest, { inlineStdout: true, inlineOutputFiles: ['out'] });
    const operation = await call.last;
    expect(operation.name).not.toBe('');
    const second = responseOf(operation);
    expect(second.cachedResult).toBe(true);
    expect(second.result?.stdoutDigest).toEqual(first.result?.stdoutDigest);
    const text = await on.text(first.result?.stdoutDigest);
    expect(Buffer.from(second.result?.stdoutRaw ?? []).toString()).toBe(text);
    expect(Buffer.from(second.result?.outputFiles[0]?.contents ?? []).toString()).toBe(text);
  });

  test('told to skip the cache runs anew and replaces the result', async () => {
    const digest = await on.prepare({ script: unique(uuidScript) });
    const first = await on.execute(digest).response;
    const second = await on.execute(digest, { skipCacheLookup: true }).response;
    expect(second.cachedResult).toBe(false);
    expect(second.result?.stdoutDigest).not.toEqual(first.result?.stdoutDigest);
    const cached = await on.actionCache.getActionResult({ actionDigest: toWireDigest(digest) });
    expect(cached.stdoutDigest).toEqual(second.result?.stdoutDigest);
  });

  test('that fails is OK with its exit code, and is not cached', async () => {
    const digest = await on.prepare({ script: unique('echo why >&2; exit 3') });
    const response = await on.execute(digest, { inlineStderr: true }).response;
    const result = resultOf(response);
    expect(result.exitCode).toBe(3);
    expect(Buffer.from(result.stderrRaw).toString()).toBe('why\n');
    const miss = await failure(on.actionCache.getActionResult({ actionDigest: toWireDigest(digest) }));
    expect(miss.code).toBe('NOT_FOUND');
  });

  test('beyond its timeout is DEADLINE_EXCEEDED, with what it wrote, and is not cached', async () => {
    const digest = await on.prepare({
      script: unique('echo partial; sleep 60 & sleep 60'),
      action: { timeout: create(DurationSchema, { nanos: 300_000_000 }) },
    });
    const response = await on.execute(digest).response;
    expect(response.status?.code).toBe(codes.DEADLINE_EXCEEDED);
    expect(response.message).toContain('0.3 s');
    expect(await on.text(response.result?.stdoutDigest)).toBe('partial\n');
    expect(response.serverLogs['worker']?.humanReadable).toBe(true);
    expect(await on.text(response.serverLogs['worker']?.digest)).toMatch(
      /longer than 0\.3 s[^]*wall time[^]*running +\d+ ms/,
    );
    const miss = await failure(on.actionCache.getActionResult({ actionDigest: toWireDigest(digest) }));
    expect(miss.code).toBe('NOT_FOUND');
  });

  test('writes logs that can be read while it runs', async () => {
    const digest = await on.prepare({
      script: unique('echo early; sleep 60'),
      action: { doNotCache: true },
    });
    const call = on.execute(digest);
    await until(() => call.seen.some((operation) => metadataOf(operation).stdoutStreamName !== ''));
    const running = call.seen.find((operation) => metadataOf(operation).stdoutStreamName !== '');
    const { stdoutStreamName: resourceName } = metadataOf(running ?? (await call.first));
    let text = '';
    for await (const { data } of on.byteStream.read({ resourceName })) {
      text += Buffer.from(data).toString();
      if (text !== 'early\n') continue;
      await on.operations.cancelOperation({ name: (await call.first).name });
    }
    expect(text).toBe('early\n');
    await call.last;
  });
});

describe('set-up problems fail the call', () => {
  test.each(['sha256', 'blake3'] as const)('all missing blobs are named at once (%s)', async (fn) => {
    const { digest, blobs } = buildAction({
      script: unique('cat a b'),
      inputs: { a: unique('a'), b: unique('b') },
      fn,
    });
    const path = ({ digest: one }: { digest: typeof digest }) => `blobs/${digestPath(one)}`;

    const noAction = await failure(on.execute(digest).last);
    expect(noAction.code).toBe('FAILED_PRECONDITION');
    expect(missingSubjects(noAction)).toEqual([path(blobs.action)]);

    await on.upload(fn, [blobs.action]);
    expect(missingSubjects(await failure(on.execute(digest).last))).toEqual(
      [path(blobs.command), path(blobs.root)].sort(),
    );

    await on.upload(fn, [blobs.root]);
    expect(missingSubjects(await failure(on.execute(digest).last))).toEqual(
      [blobs.command, ...blobs.files].map(path).sort(),
    );

    await on.upload(fn, [blobs.command, ...blobs.files]);
    expect(resultOf(await on.execute(digest).response).exitCode).toBe(0);
  });

  test('more missing blobs than headers can name are named in a response', async () => {
    const names = Array.from({ length: 3_000 }, (_, index) => `input-${index}`);
    const { digest, blobs } = buildAction({
      script: unique('true'),
      inputs: Object.fromEntries(names.map((name) => [name, unique(name)])),
    });
    await on.upload('sha256', [blobs.action, blobs.command, blobs.root]);
    const { status } = await on.execute(digest).response;
    expect(status?.code).toBe(codes.FAILED_PRECONDITION);
    expect(missingSubjects(status)).toHaveLength(names.length);
  });

  test.each([
    ['a timeout above the maximum', { action: { timeout: create(DurationSchema, { seconds: 121n }) } }, /120 s/],
    ['a negative timeout', { action: { timeout: create(DurationSchema, { seconds: -1n }) } }, /negative/],
    ['no arguments', { command: { arguments: [] } }, /arguments/],
    ['an absolute output', { command: { outputPaths: ['/etc/passwd'] } }, /output_paths/],
    ['a working directory outside', { command: { workingDirectory: '../..' } }, /working_directory/],
  ])('%s is INVALID_ARGUMENT', async (_what, spec, text) => {
    const digest = await on.prepare({ script: unique('true'), ...spec });
    const error = await failure(on.execute(digest).last);
    expect(error.code).toBe('INVALID_ARGUMENT');
    expect(error.reason).toMatch(text);
  });

  test.each([
    ['the action', { action: { platform: { properties: [{ name: 'OSFamily', value: 'beos' }] } } }],
    [
      'the command alone, as old clients do',
      { command: { platform: { properties: [{ name: 'OSFamily', value: 'beos' }] } } },
    ],
  ])('a platform that is not here, asked for by %s, is FAILED_PRECONDITION at once', async (_who, spec) => {
    const digest = await on.prepare({ script: unique('true'), ...spec });
    const error = await failure(on.execute(digest).last);
    expect(error.code).toBe('FAILED_PRECONDITION');
    expect(error.reason).toContain('OSFamily=beos');
    expect(missingSubjects(error)).toEqual([]);
  });

  test('a priority outside the advertised range', async () => {
    const digest = await on.prepare({ script: unique('true') });
    const error = await failure(on.execute(digest, { executionPolicy: { priority: 1_000_000 } }).last);
    expect(error.code).toBe('INVALID_ARGUMENT');
  });

  test('a blob that is no Action, and an input root that is no Directory', async () => {
    const junk = buildAction({ script: 'true', inputs: { a: '\xff\xff\xff junk' } }).blobs.files[0];
    if (!junk) throw new Error('no file');
    await on.upload('sha256', [junk]);
    expect((await failure(on.execute(junk.digest).last)).code).toBe('INVALID_ARGUMENT');
    const digest = await on.prepare({
      script: unique('true'),
      action: { inputRootDigest: toWireDigest(junk.digest) },
    });
    expect((await failure(on.execute(digest).last)).code).toBe('INVALID_ARGUMENT');
  });
});

describe('the empty blob', () => {
  test('is an input root and an input file although nobody uploaded it', async () => {
    const { digest, blobs } = buildAction({ script: unique('test ! -s empty'), inputs: { empty: '' } });
    await on.upload('sha256', [blobs.action, blobs.command, blobs.root]);
    expect(resultOf(await on.execute(digest).response).exitCode).toBe(0);
    const bare = buildAction({ script: unique('ls -A') });
    await on.upload('sha256', [bare.blobs.action, bare.blobs.command]);
    expect(resultOf(await on.execute(bare.digest).response).exitCode).toBe(0);
  });
});
