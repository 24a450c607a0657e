import { afterEach, describe, expect, test } from 'vitest';
import { keepAliveMs, schedulerLimits } from '../../../node/execution/limits.ts';
import { type Digest, toWireDigest } from '../../../protos/digest.ts';
import { codes, type StatusError } from '../../../protos/status.ts';
import { until } from '../../support/until.ts';
import { type Followed, metadataOf, openNode, responseOf, type TestNode } from '../node/fixture.ts';
import { createTestClock } from '../../support/test-clock.ts';

/** One slot, so that a blocker decides when everything else runs. */
let on: TestNode;
const { abandonedGraceMs, finishedTtlMs } = schedulerLimits;
const clock = createTestClock();
const open = async (): Promise<void> => {
  on = await openNode({ slots: 1 }, { clock });
};
afterEach(() => on[Symbol.asyncDispose]());

const uuidScript = 'cat /proc/sys/kernel/random/uuid';
let serial = 0;
const unique = (script: string): string => `: ${(serial += 1)}; ${script}`;
const outputOf = async (call: Followed): Promise<string> => on.text((await call.response).result?.stdoutDigest);
const failure = (promise: Promise<unknown>): Promise<StatusError> =>
  promise.then(
    () => {
      throw new Error('it did not fail');
    },
    (error: StatusError) => error,
  );

/** Occupies the slot until it is released. */
async function block(): Promise<{ release(): Promise<void>; call: Followed; digest: Digest }> {
  const digest = await on.prepare({ script: unique('sleep 60'), action: { doNotCache: true } });
  const call = on.execute(digest);
  await until(() => on.load().executing === 1);
  const release = async (): Promise<void> => {
    await on.operations.cancelOperation({ name: (await call.first).name });
  };
  return { release, call, digest };
}

describe('identical actions in flight', () => {
  test('run once, and both clients get the result under operations of their own', async () => {
    await open();
    const blocker = await block();
    const digest = await on.prepare({ script: unique(uuidScript) });
    const one = on.execute(digest);
    const two = on.execute(digest);
    const names = [(await one.first).name, (await two.first).name];
    expect(new Set(names).size).toBe(2);
    expect(on.load()).toEqual({ executing: 1, queued: 1 });
    await blocker.release();
    const outputs = [await outputOf(one), await outputOf(two)];
    expect(outputs[0]).toMatch(/^[0-9a-f-]{36}\n$/);
    expect(outputs[1]).toBe(outputs[0]);
  });

  test('are kept apart by instance name', async () => {
    await open();
    const blocker = await block();
    const digest = await on.prepare({ script: unique(uuidScript) });
    const one = on.execute(digest, { instanceName: 'a' });
    const two = on.execute(digest, { instanceName: 'b' });
    await Promise.all([one.first, two.first]);
    await blocker.release();
    expect(await outputOf(one)).not.toBe(await outputOf(two));
  });

  test('with do_not_cache run each for itself, and leave nothing in the cache', async () => {
    await open();
    const blocker = await block();
    const digest = await on.prepare({ script: unique(uuidScript), action: { doNotCache: true } });
    const one = on.execute(digest);
    const two = on.execute(digest);
    await Promise.all([one.first, two.first]);
    expect(on.load().queued).toBe(2);
    await blocker.release();
    expect(await outputOf(one)).not.toBe(await outputOf(two));
    const miss = await failure(on.actionCache.getActionResult({ actionDigest: toWireDigest(digest) }));
    expect(miss.code).toBe('NOT_FOUND');
  });

  test('go on for the second client when the first goes away', async () => {
    await open();
    const blocker = await block();
    const digest = await on.prepare({ script: unique(uuidScript) });
    const one = on.execute(digest);
    const two = on.execute(digest);
    await Promise.all([one.first, two.first]);
    await one.leave();
    clock.advance(abandonedGraceMs * 2);
    await blocker.release();
    expect(await outputOf(two)).toMatch(/^[0-9a-f-]{36}\n$/);
  });

  test('go on for the second client when the first cancels', async () => {
    await open();
    const blocker = await block();
    const digest = await on.prepare({ script: unique(uuidScript) });
    const one = on.execute(digest);
    const two = on.execute(digest);
    const { name } = await one.first;
    await two.first;
    await on.operations.cancelOperation({ name });
    const cancelled = await one.last;
    expect(cancelled.result.case).toBe('response');
    expect(responseOf(cancelled).status?.code).toBe(codes.CANCELLED);
    await blocker.release();
    expect(await outputOf(two)).toMatch(/^[0-9a-f-]{36}\n$/);
  });
});

describe('a client that goes away', () => {
  test('has its action killed after the grace time, not before', async () => {
    await open();
    const { call, digest } = await block();
    const { name } = await call.first;
    await call.leave();
    clock.advance(abandonedGraceMs / 2);
    // Still there: whoever comes back keeps it for another grace time.
    const back = on.wait(name);
    await back.first;
    clock.advance(abandonedGraceMs * 2);
    expect(on.load().executing).toBe(1);
    await back.leave();
    await until(async () => {
      clock.advance(abandonedGraceMs);
      return on.load().executing === 0;
    });
    const operation = await on.operations.getOperation({ name });
    expect(responseOf(operation).status?.code).toBe(codes.CANCELLED);
    expect(metadataOf(operation).actionDigest?.hash).toBe(digest.hash);
  });

  test('finds its result by WaitExecution, as often as it asks, until it is forgotten', async () => {
    await open();
    const blocker = await block();
    const digest = await on.prepare({ script: unique(uuidScript) });
    const call = on.execute(digest, { instanceName: 'some/instance' });
    const { name } = await call.first;
    await call.leave();
    const waiting = on.wait(name);
    const also = on.wait(name);
    await Promise.all([waiting.first, also.first]);
    await blocker.release();
    const output = await outputOf(waiting);
    expect(output).toMatch(/^[0-9a-f-]{36}\n$/);
    expect(await outputOf(also)).toBe(output);
    const later = on.wait(name);
    expect(await outputOf(later)).toBe(output);
    expect(later.seen).toHaveLength(1);
    await until(async () => {
      clock.advance(finishedTtlMs);
      return (await failure(on.wait(name).last)).code === 'NOT_FOUND';
    });
  });

  test('that waits for an unknown operation is told NOT_FOUND', async () => {
    await open();
    expect((await failure(on.wait('a/operations/never').last)).code).toBe('NOT_FOUND');
  });
});

describe('an Execute stream', () => {
  test('repeats its state while nothing changes', async () => {
    await open();
    const { call } = await block();
    const before = call.seen.length;
    await until(() => {
      clock.advance(keepAliveMs);
      return call.seen.length >= before + 2;
    });
    const [one, two] = call.seen.slice(-2);
    expect(one).toEqual(two);
  });
});

describe('Operations', () => {
  test('are listed by instance and by page, waited for and deleted', async () => {
    await open();
    const blocker = await block();
    const digest = await on.prepare({ script: unique('true') });
    const call = on.execute(digest, { instanceName: 'x/y' });
    const { name } = await call.first;

    const { operations } = await on.operations.listOperations({});
    expect(operations.map((operation) => operation.name)).toEqual([(await blocker.call.first).name, name]);
    const { operations: ofInstance } = await on.operations.listOperations({ name: 'x/y/operations' });
    expect(ofInstance.map((operation) => operation.name)).toEqual([name]);
    const page = await on.operations.listOperations({ pageSize: 1 });
    expect(page.operations).toHaveLength(1);
    const rest = await on.operations.listOperations({ pageSize: 1, pageToken: page.nextPageToken });
    expect(rest.operations.map((operation) => operation.name)).toEqual([name]);
    expect(rest.nextPageToken).toBe('');

    const early = await on.operations.waitOperation({ name, timeout: { nanos: 1_000_000 } });
    expect(early.done).toBe(false);
    expect((await failure(on.operations.deleteOperation({ name }))).code).toBe('FAILED_PRECONDITION');
    const waiting = on.operations.waitOperation({ name, timeout: { seconds: 60n } });
    await blocker.release();
    expect((await waiting).done).toBe(true);
    await on.operations.deleteOperation({ name });
    expect((await failure(on.operations.getOperation({ name }))).code).toBe('NOT_FOUND');
    expect((await failure(on.operations.cancelOperation({ name }))).code).toBe('NOT_FOUND');
  });
});

describe('shutting down', () => {
  test('kills what runs; its clients are told UNAVAILABLE, and so are those in the queue', async () => {
    await open();
    const { call } = await block();
    const queued = on.execute(await on.prepare({ script: unique('true') }));
    await queued.first;
    await on.node.close({ drainMaxMs: 0 });
    expect((await failure(call.last)).code).toBe('UNAVAILABLE');
    expect((await failure(queued.last)).code).toBe('UNAVAILABLE');
  });

  test('lets what runs end while the drain lasts', async () => {
    await open();
    const digest = await on.prepare({ script: unique('sleep 0.5; echo done') });
    const call = on.execute(digest);
    await until(() => on.load().executing === 1);
    const closing = on.node.close({ drainMaxMs: 30_000 });
    expect(on.node.status().state).toBe('draining');
    expect((await call.response).result?.exitCode).toBe(0);
    await closing;
  });

  test('forgets operations but not results', async () => {
    await open();
    const digest = await on.prepare({ script: unique(uuidScript) });
    const call = on.execute(digest);
    const output = await outputOf(call);
    await on.node.close({ drainMaxMs: 1_000 });
    await using again = await openNode({ dataDir: on.dataDir });
    expect((await failure(again.wait((await call.first).name).last)).code).toBe('NOT_FOUND');
    const response = await again.execute(digest).response;
    expect(response.cachedResult).toBe(true);
    expect(await again.text(response.result?.stdoutDigest)).toBe(output);
  });
});
