import { create } from '@bufbuild/protobuf';
import { anyUnpack, durationMs } from '@bufbuild/protobuf/wkt';
import { describe, expect, test } from 'vitest';
import { createTestClock } from '../../../support/test-clock.ts';
import { createExecutor, type ExecutionEvent, type Watched } from '../../../../node/execution/executor.ts';
import { abortedMaxMs, runningSlackMs } from '../../../../node/execution/limits.ts';
import { createLogStreams } from '../../../../node/execution/log-streams.ts';
import { missingBlobs } from '../../../../node/execution/missing.ts';
import type { PreparedAction } from '../../../../node/execution/prepare.ts';
import type { SchedulerLimits } from '../../../../node/execution/scheduler.ts';
import type { ActionKey } from '../../../../node/storage/action-cache.ts';
import {
  type ActionResult,
  ActionResultSchema,
  ActionSchema,
  CommandSchema,
} from '../../../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { RetryInfoSchema } from '../../../../protos/gen/google/rpc/error_details_pb.ts';
import { digestOf } from '../../../../protos/hasher.ts';
import { codes, StatusError } from '../../../../protos/status.ts';
import type { Sandbox, SandboxOutcome } from '../../../../sandbox/sandbox.ts';
import { until } from '../../../support/until.ts';

const limits: SchedulerLimits = {
  slots: 1,
  offeredRunsMax: 4,
  queuedRunsMax: 1,
  openOperationsMax: 10,
  abandonedGraceMs: 1_000,
  finishedTtlMs: 60_000,
  finishedOperationsMax: 10,
  finishedBytesMax: 1_000_000,
  attemptsMax: 3,
  retryDelayMs: 100,
};

const exited = (exitCode = 0): SandboxOutcome => ({ kind: 'exited', result: create(ActionResultSchema, { exitCode }) });

/** An executor over a sandbox and an action cache that do what the test says. */
function given(run: Sandbox['run'], put: (key: ActionKey, result: ActionResult) => Promise<void> = async () => {}) {
  const clock = createTestClock();
  const events: ExecutionEvent[] = [];
  const stored: ActionKey[] = [];
  let attempts = 0;
  let disposed = 0;
  const executor = createExecutor({
    sandbox: {
      isolation: 'none',
      limitsInForce: ['wall time'],
      keepLog: async (fn, text) => digestOf(fn, Buffer.from(text)),
      run(task, options) {
        attempts += 1;
        return run(task, options);
      },
    },
    actions: {
      get: async () => undefined,
      async put(key, result) {
        await put(key, result);
        stored.push(key);
      },
    },
    clock,
    worker: 'here',
    logs: createLogStreams(),
    limits,
    onEvent: (event) => events.push(event),
  });
  let serial = 0;
  return {
    executor,
    clock,
    events,
    stored,
    attempts: () => attempts,
    disposed: () => disposed,
    submit(options: { mergeKey?: string; pin?: () => Promise<void>; doNotCache?: boolean } = {}): Watched {
      serial += 1;
      const digest = digestOf('sha256', Buffer.from(`action ${serial}`));
      const prepared: PreparedAction = {
        digest,
        action: create(ActionSchema, { doNotCache: options.doNotCache ?? false }),
        command: create(CommandSchema, { arguments: ['true'] }),
        inputRoot: digest,
        timeoutMs: 1_000,
        pin: options.pin ?? (async () => {}),
        [Symbol.dispose]() {
          disposed += 1;
        },
      };
      return executor.submit({
        prepared,
        action: digest,
        mergeKey: options.mergeKey,
        context: {
          instance: '',
          invocation: 'test',
          priority: 0,
          mnemonic: '',
          target: '',
          skipCacheLookup: false,
        },
        hints: { inlineStdout: false, inlineStderr: false, inlineOutputFiles: [] },
      });
    },
  };
}

async function responseOf(watched: Watched) {
  await until(() => watched.state().response !== undefined);
  const { response } = watched.state();
  if (!response) throw new Error('no response');
  return response;
}

const aborted = (signal: AbortSignal): Promise<never> =>
  new Promise((_, reject) => signal.addEventListener('abort', () => reject(new StatusError('CANCELLED', 'killed'))));

describe('a full queue', () => {
  test('refuses with RESOURCE_EXHAUSTED and says when to come back; nothing of the refused stays', async () => {
    const on = given((_task, { signal }) => aborted(signal));
    on.submit();
    on.submit();
    let refusal: unknown;
    try {
      on.submit();
    } catch (error) {
      refusal = error;
    }
    expect(refusal).toBeInstanceOf(StatusError);
    const { code, details } = refusal as StatusError;
    expect(code).toBe('RESOURCE_EXHAUSTED');
    const [info] = details.map((detail) => anyUnpack(detail, RetryInfoSchema));
    expect(info?.retryDelay && durationMs(info.retryDelay)).toBeGreaterThan(0);
    expect([...on.executor.list(undefined)]).toHaveLength(2);
    expect(on.disposed()).toBe(1);
    await on.executor.close({ drainMs: 0 });
    expect(on.disposed()).toBe(3);
  });

  test('and a node that shuts down refuses with UNAVAILABLE', async () => {
    const on = given(async () => exited());
    await on.executor.close({ drainMs: 0 });
    expect(() => on.submit()).toThrow(/^UNAVAILABLE/);
  });
});

describe('a sandbox that hangs', () => {
  const never = (): Promise<never> => new Promise(() => {});

  test('gives its slot back soon after its action was cancelled', async () => {
    let hanging = true;
    const on = given(() => (hanging ? never() : Promise.resolve(exited())));
    const watched = on.submit();
    on.executor.cancel(watched.state().name);
    hanging = false;
    const next = on.submit();
    await until(() => {
      on.clock.advance(abortedMaxMs);
      return next.state().response !== undefined;
    });
    expect(on.events[0]).toMatchObject({ outcome: 'error', retried: false, error: { code: 'INTERNAL' } });
  });

  test('in any phase ends as INTERNAL, is not tried again, and does not keep the node open', async () => {
    let told: AbortSignal | undefined;
    const on = given((_task, { signal, onPhase }) => {
      told = signal;
      onPhase?.('running');
      return never();
    });
    const watched = on.submit();
    await until(() => told !== undefined);
    on.clock.advance(runningSlackMs / 2);
    expect(told?.aborted).toBe(false);
    on.clock.advance(1_000 + runningSlackMs / 2);
    expect(told?.aborted).toBe(true);
    on.clock.advance(abortedMaxMs);
    expect((await responseOf(watched)).status?.code).toBe(codes.INTERNAL);
    expect(on.attempts()).toBe(1);

    on.submit();
    await until(() => on.attempts() === 2);
    let closed = false;
    void on.executor.close({ drainMs: 0 }).then(() => {
      closed = true;
    });
    await until(() => {
      on.clock.advance(abortedMaxMs);
      return closed;
    });
  });
});

describe('failures', () => {
  test('of the machine are tried again and can succeed; the first one is in nobody’s answer', async () => {
    let failures = 2;
    const on = given(async () => {
      failures -= 1;
      if (failures >= 0) throw new Error('the disk hiccuped');
      return exited();
    });
    const watched = on.submit();
    await until(() => {
      on.clock.advance(1_000);
      return watched.state().response !== undefined;
    });
    expect((await responseOf(watched)).status?.code).toBe(codes.OK);
    expect(on.attempts()).toBe(3);
    expect(on.events.map((event) => event.kind === 'run-ended' && [event.outcome, event.retried])).toEqual([
      ['error', true],
      ['error', true],
      ['succeeded', false],
    ]);
  });

  test('of the machine that go on end the operation with their status, after a bounded number of attempts', async () => {
    const on = given(async () => {
      throw new TypeError('a defect');
    });
    const watched = on.submit();
    await until(() => {
      on.clock.advance(1_000);
      return watched.state().response !== undefined;
    });
    const response = await responseOf(watched);
    expect(response.status?.code).toBe(codes.INTERNAL);
    expect(response.message).toContain('a defect');
    expect(on.attempts()).toBe(3);
    expect(on.disposed()).toBe(1);
  });

  test.each([['FAILED_PRECONDITION'], ['INVALID_ARGUMENT'], ['RESOURCE_EXHAUSTED']] as const)(
    'that another attempt cannot cure are told at once: %s',
    async (code) => {
      const on = given(async () => {
        throw new StatusError(code, 'because');
      });
      expect((await responseOf(on.submit())).status?.code).toBe(codes[code]);
      expect(on.attempts()).toBe(1);
      expect(on.stored).toEqual([]);
    },
  );

  test('a full disk is RESOURCE_EXHAUSTED', async () => {
    const on = given(async () => {
      throw Object.assign(new Error('ENOSPC: no space left'), { code: 'ENOSPC' });
    });
    expect((await responseOf(on.submit())).status?.code).toBe(codes.RESOURCE_EXHAUSTED);
  });

  test('inputs that were evicted while the action was queued are named in the response', async () => {
    const gone = digestOf('sha256', Buffer.from('gone'));
    const on = given(async () => exited());
    const watched = on.submit({ pin: () => Promise.reject(missingBlobs([gone], 'action x')) });
    const { status } = await responseOf(watched);
    expect(status?.code).toBe(codes.FAILED_PRECONDITION);
    expect(status?.details).toHaveLength(1);
    expect(on.attempts()).toBe(0);
  });
});

describe('the action cache', () => {
  test('takes what exited with 0, and neither failures nor what must not be cached', async () => {
    const good = given(async () => exited());
    await responseOf(good.submit());
    expect(good.stored).toHaveLength(1);
    const failed = given(async () => exited(1));
    await responseOf(failed.submit());
    expect(failed.stored).toEqual([]);
    const private_ = given(async () => exited());
    await responseOf(private_.submit({ doNotCache: true }));
    expect(private_.stored).toEqual([]);
    const late = given(async () => ({ kind: 'timed-out', result: create(ActionResultSchema) }));
    expect((await responseOf(late.submit())).status?.code).toBe(codes.DEADLINE_EXCEEDED);
    expect(late.stored).toEqual([]);
  });

  test('that is full costs the entry, not the result', async () => {
    const on = given(
      async () => exited(),
      () => Promise.reject(new StatusError('RESOURCE_EXHAUSTED', 'no room')),
    );
    const response = await responseOf(on.submit());
    expect(response.status?.code).toBe(codes.OK);
    expect(response.message).toContain('no room');
  });

  test('that finds outputs gone again has the action run again', async () => {
    let refusals = 1;
    const on = given(
      async () => exited(),
      async () => {
        refusals -= 1;
        if (refusals >= 0) throw new StatusError('FAILED_PRECONDITION', 'output missing');
      },
    );
    const watched = on.submit();
    await until(() => {
      on.clock.advance(1_000);
      return watched.state().response !== undefined;
    });
    expect((await responseOf(watched)).status?.code).toBe(codes.OK);
    expect(on.attempts()).toBe(2);
  });
});

describe('closing', () => {
  test('waits for what runs, then kills it when it takes too long', async () => {
    let killed = false;
    const on = given((_task, { signal }) =>
      aborted(signal).catch((error: unknown) => {
        killed = true;
        throw error;
      }),
    );
    const watched = on.submit();
    const closing = on.executor.close({ drainMs: 5_000 });
    on.clock.advance(4_000);
    await Promise.resolve();
    expect(killed).toBe(false);
    on.clock.advance(1_000);
    await closing;
    expect(killed).toBe(true);
    expect(watched.shutDown()).toBe(true);
  });
});
